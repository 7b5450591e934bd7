#include "emulation.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace emulation {

Order order;
dim3 currentThread, currentBlock, currentGrid;
int currentThreads = 0;

namespace {

constexpr size_t STACK_BYTES = 128 * 1024;
constexpr int LANES = 32, MAIL_BYTES = 128;

struct Copy {
	void *to;
	const void *from;
	bool isThere;
};

struct Fibre {
	ucontext_t start;
	jmp_buf at;
	bool hasStarted = false, hasEnded = false;
	/** What it waits for, a number of the meeting; 0 when it may run. */
	int waitsForBlock = 0, waitsForWarp = 0;
	std::vector<std::vector<Copy>> groups{1};
	std::vector<unsigned char> stack = std::vector<unsigned char>(STACK_BYTES);
};

struct Meeting {
	int arrived = 0, counted = 0, result = 0;
};

std::vector<Fibre> fibres;
std::vector<Meeting> warps;
Meeting block;
std::vector<unsigned char> mail;
unsigned char *shared = nullptr;
jmp_buf scheduler;
ucontext_t schedulerContext;
int current = 0;
const std::function<void()> *body = nullptr;
std::mt19937 random(1);

void yield() {
	if (_setjmp(fibres[current].at) == 0) {
		_longjmp(scheduler, 1);
	}
}

void enter() {
	(*body)();
	fibres[current].hasEnded = true;
	_longjmp(scheduler, 1);
}

int membersOf(int warp) { return currentThreads - warp * LANES < LANES ? currentThreads - warp * LANES : LANES; }

void perform(const Copy &copy) {
	if (copy.isThere) {
		memcpy(copy.to, copy.from, 16);
	} else {
		memset(copy.to, 0, 16);
	}
}

/** Lets the fibre run until it waits or ends. */
void resume(int index) {
	current = index;
	currentThread = dim3(index);
	if (_setjmp(scheduler) == 0) {
		Fibre &fibre = fibres[index];
		if (fibre.hasStarted) {
			_longjmp(fibre.at, 1);
		}
		fibre.hasStarted = true;
		getcontext(&fibre.start);
		fibre.start.uc_stack.ss_sp = fibre.stack.data();
		fibre.start.uc_stack.ss_size = fibre.stack.size();
		fibre.start.uc_link = &schedulerContext;
		makecontext(&fibre.start, enter, 0);
		setcontext(&fibre.start);
	}
}

bool canRun(const Fibre &fibre) { return !fibre.hasEnded && fibre.waitsForBlock == 0 && fibre.waitsForWarp == 0; }

/** One block. False when nobody can go on and some have not ended. */
bool runBlock() {
	std::vector<int> turn(currentThreads);
	for (int index = 0; index < currentThreads; index++) {
		turn[index] = order.kind == Order::BACKWARD ? currentThreads - 1 - index : index;
	}
	for (Fibre &fibre : fibres) {
		fibre.hasStarted = fibre.hasEnded = false;
		fibre.waitsForBlock = fibre.waitsForWarp = 0;
		fibre.groups.assign(1, {});
	}
	block = Meeting();
	warps.assign((currentThreads + LANES - 1) / LANES, Meeting());
	for (bool isMoving = true; isMoving;) {
		isMoving = false;
		if (order.kind == Order::SHUFFLED) {
			std::shuffle(turn.begin(), turn.end(), random);
		}
		for (size_t first = 0; first < turn.size(); first += LANES) {
			// A warp goes on alone for as long as it can: whoever relies on another without a barrier is found out. Shuffled, all go on evenly.
			for (bool isWarpMoving = true; isWarpMoving;) {
				isWarpMoving = false;
				for (size_t place = first; place < first + LANES && place < turn.size(); place++) {
					if (canRun(fibres[turn[place]])) {
						resume(turn[place]);
						isMoving = true;
						isWarpMoving = order.kind != Order::SHUFFLED;
					}
				}
			}
		}
	}
	for (const Fibre &fibre : fibres) {
		if (!fibre.hasEnded) {
			return false;
		}
	}
	return true;
}

} // namespace

unsigned char *sharedMemory() { return shared; }
int lane() { return int(currentThread.x) % LANES; }
unsigned char *mailbox(int index) { return mail.data() + (currentThread.x / LANES * LANES + index) * MAIL_BYTES; }

int barrierCount(bool counts) {
	block.counted += counts ? 1 : 0;
	if (++block.arrived < currentThreads) {
		fibres[current].waitsForBlock = 1;
		yield();
	} else {
		block.result = block.counted;
		block.arrived = block.counted = 0;
		for (Fibre &fibre : fibres) {
			fibre.waitsForBlock = 0;
		}
	}
	return block.result;
}

void barrier() { barrierCount(false); }

void warpBarrier() {
	const int warp = int(currentThread.x) / LANES;
	if (++warps[warp].arrived < membersOf(warp)) {
		fibres[current].waitsForWarp = 1;
		yield();
		return;
	}
	warps[warp].arrived = 0;
	for (int member = 0; member < membersOf(warp); member++) {
		fibres[warp * LANES + member].waitsForWarp = 0;
	}
}

void copyAsync(void *to, const void *from, bool isThere) {
	const Copy copy{to, from, isThere};
	if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (isThere && reinterpret_cast<uintptr_t>(from) % 16 != 0)) {
		fprintf(stderr, "A copy that is not aligned to 16 bytes.\n");
		abort();
	}
	if (order.areCopiesLate) {
		fibres[current].groups.back().push_back(copy);
	} else {
		perform(copy);
	}
}

void copyGroup() { fibres[current].groups.emplace_back(); }

void copyWait(int left) {
	// The last group is the one that is open.
	auto &groups = fibres[current].groups;
	while (int(groups.size()) - 1 > left) {
		for (const Copy &copy : groups.front()) {
			perform(copy);
		}
		groups.erase(groups.begin());
	}
}

int run(dim3 grid, int threads, size_t sharedBytes, const std::function<void()> &kernel) {
	const size_t page = size_t(sysconf(_SC_PAGESIZE)), pages = (sharedBytes + page - 1) / page * page;
	// Ends at a page that nobody may touch, and begins with numbers that are none: what was never written shows.
	auto *const memory = static_cast<unsigned char *>(mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	if (memory == MAP_FAILED || mprotect(memory + pages, page, PROT_NONE) != 0) {
		return -1;
	}
	shared = memory + pages - (sharedBytes + 15) / 16 * 16;
	body = &kernel;
	currentThreads = threads;
	currentGrid = grid;
	if (int(fibres.size()) != threads) {
		fibres = std::vector<Fibre>(threads);
	}
	mail.assign(size_t(threads + LANES) * MAIL_BYTES, 0);
	bool isWell = true;
	for (unsigned z = 0; z < grid.z && isWell; z++) {
		for (unsigned y = 0; y < grid.y && isWell; y++) {
			for (unsigned x = 0; x < grid.x && isWell; x++) {
				currentBlock = dim3(x, y, z);
				memset(shared, 0xff, sharedBytes);
				isWell = runBlock();
			}
		}
	}
	munmap(memory, pages + page);
	return isWell ? 0 : -1;
}

} // namespace emulation
