/** The emulation of machine.h: blocks one after another, the threads of a block as fibres of this thread. */
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

struct dim3 {
	unsigned x = 1, y = 1, z = 1;
	dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

/** In which order the threads of a block run between two meetings (warp after warp from the first or from the last, each as far as it can, or all evenly in a random order), and when a copy arrives: at once, or not before it is waited for. */
struct Order {
	enum Kind { FORWARD, BACKWARD, SHUFFLED } kind = FORWARD;
	bool areCopiesLate = false;
};

extern Order order;
extern dim3 currentThread, currentBlock, currentGrid;
extern int currentThreads;

unsigned char *sharedMemory();
void barrier();
int barrierCount(bool counts);
void warpBarrier();
int lane();
void copyAsync(void *to, const void *from, bool isThere);
void copyGroup();
void copyWait(int left);
/** Where the warp's lanes leave what they exchange, 128 bytes each; valid until the next exchange. */
unsigned char *mailbox(int lane);
/** Runs the body for every thread of every block. 0, or -1 for threads that wait for each other for ever. */
int run(dim3 grid, int threads, size_t sharedBytes, const std::function<void()> &body);

template <class Value> void exchange(const Value &own, Value *all) {
	static_assert(sizeof(Value) <= 128, "a mailbox is small");
	memcpy(mailbox(lane()), &own, sizeof own);
	warpBarrier();
	for (int index = 0; index < 32; index++) {
		memcpy(&all[index], mailbox(index), sizeof own);
	}
	warpBarrier();
}

inline uint32_t shuffle(uint32_t value, int mask) {
	uint32_t all[32];
	exchange(value, all);
	return all[lane() ^ mask];
}

} // namespace emulation

#define threadIdx emulation::currentThread
#define blockIdx emulation::currentBlock
#define gridDim emulation::currentGrid
