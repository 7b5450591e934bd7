/**
 * Holds every kernel to its reference, on a card (compiled by nvcc) or in the emulation (by a C++ compiler).
 *
 *   check all [KERNEL]      random cases with tails, of refusals, w8a8, sla, int8 or norms alone; in the emulation in several orders, whose results must be the same bits
 *   check time              sizes of Wan 1.3B at 480p: milliseconds and 10^12 operations a second; on a card alone
 *   check w8a8 | sla ...    on numbers from files, for the tests: see main
 *
 * Exit code 0 when everything agrees, 1 when something does not, 2 for a mistake in the call.
 */
#include "references.h"
#include "status.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>
#ifndef __CUDACC__
#include <sys/mman.h>
#include <unistd.h>
#endif

using namespace turbocast;

namespace {

typedef std::vector<float> Floats;

// ---- Memory of the device ----------------------------------------------------------------------------------------------------------------------

/** Of the device; in the emulation it ends at a page that nobody may touch, so that a read or write behind it ends the program. */
class Memory {
public:
	explicit Memory(size_t bytes) : bytes_(bytes == 0 ? 1 : bytes) {
#ifdef __CUDACC__
		if (cudaMalloc(&pointer_, bytes_) != cudaSuccess) {
			fprintf(stderr, "%zu bytes of the device could not be had.\n", bytes_);
			exit(1);
		}
		cudaMemset(pointer_, 0xff, bytes_);
#else
		const size_t page = size_t(sysconf(_SC_PAGESIZE)), rounded = (bytes_ + 15) / 16 * 16;
		pages_ = (rounded + page - 1) / page * page + page;
		base_ = mmap(nullptr, pages_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		pointer_ = static_cast<unsigned char *>(base_) + pages_ - page - rounded;
		mprotect(static_cast<unsigned char *>(base_) + pages_ - page, page, PROT_NONE);
		memset(pointer_, 0xff, rounded);
#endif
	}
	Memory(const Memory &) = delete;
	~Memory() {
#ifdef __CUDACC__
		cudaFree(pointer_);
#else
		munmap(base_, pages_);
#endif
	}
	void *get() const { return pointer_; }
	template <class T> T *as() const { return static_cast<T *>(pointer_); }
	template <class T> void put(const std::vector<T> &from) {
#ifdef __CUDACC__
		cudaMemcpy(pointer_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
#else
		memcpy(pointer_, from.data(), from.size() * sizeof(T));
#endif
	}
	template <class T> std::vector<T> take(size_t count) const {
		std::vector<T> to(count);
#ifdef __CUDACC__
		cudaMemcpy(to.data(), pointer_, count * sizeof(T), cudaMemcpyDeviceToHost);
#else
		memcpy(to.data(), pointer_, count * sizeof(T));
#endif
		return to;
	}

private:
	size_t bytes_;
	void *pointer_ = nullptr;
#ifndef __CUDACC__
	void *base_ = nullptr;
	size_t pages_ = 0;
#endif
};

template <class T> Memory *upload(const std::vector<T> &from) {
	Memory *const memory = new Memory(from.size() * sizeof(T));
	memory->put(from);
	return memory;
}

template <class T> std::vector<T> rounded(const Floats &x) {
	std::vector<T> to;
	for (const float value : x) {
		to.push_back(fromFloat<T>(value));
	}
	return to;
}

template <class T> Floats widened(const std::vector<T> &x) {
	Floats to;
	for (const T value : x) {
		to.push_back(toFloat(value));
	}
	return to;
}

Floats normals(size_t count, unsigned seed, float mean = 0) {
	std::mt19937 random(seed);
	std::normal_distribution<float> normal(mean, 1);
	Floats x(count);
	for (float &value : x) {
		value = normal(random);
	}
	return x;
}

int typeOf(Half) { return TC_FLOAT16; }
int typeOf(Bfloat) { return TC_BFLOAT16; }
const char *nameOf(int type) { return type == TC_FLOAT16 ? "float16" : "bfloat16"; }

void must(int status) {
	if (status != TC_OK) {
		fprintf(stderr, "Status %d: %s (driver: %d)\n", status, tc_status_text(status), tc_launch_error());
		exit(1);
	}
#ifdef __CUDACC__
	const cudaError_t error = cudaDeviceSynchronize();
	if (error != cudaSuccess) {
		fprintf(stderr, "The device: %s\n", cudaGetErrorString(error));
		exit(1);
	}
#endif
}

// ---- Comparing ---------------------------------------------------------------------------------------------------------------------------------

int failures = 0;

/** Norm of the difference over norm of the expected; NaN never passes. */
double relativeError(const Floats &actual, const Floats &expected) {
	double difference = 0, norm = 0;
	for (size_t index = 0; index < expected.size(); index++) {
		difference += pow(double(actual[index]) - expected[index], 2);
		norm += pow(double(expected[index]), 2);
	}
	return sqrt(difference / norm);
}

void report(const std::string &what, double error, double tolerance) {
	const bool isWell = error <= tolerance;
	failures += isWell ? 0 : 1;
	printf("%s %s: %.3g, allowed %.3g\n", isWell ? "ok  " : "FAIL", what.c_str(), error, tolerance);
}

/** Runs a kernel in every order of the emulation; the results, bytes of the outputs, must not differ. On a card once. */
template <class Run> void inEveryOrder(const std::string &what, Run run) {
#ifdef __CUDACC__
	(void)what;
	run();
#else
	const auto first = (emulation::order = {emulation::Order::FORWARD, false}, run());
	for (const emulation::Order &order : {emulation::Order{emulation::Order::BACKWARD, true}, emulation::Order{emulation::Order::SHUFFLED, true}}) {
		emulation::order = order;
		if (run() != first) {
			failures++;
			printf("FAIL %s: another order of threads gives other numbers\n", what.c_str());
		}
	}
	emulation::order = {};
#endif
}

// ---- Cases -------------------------------------------------------------------------------------------------------------------------------------

struct W8a8Result {
	std::vector<int8_t> x8, w8;
	std::vector<float> xScales, wScales, y;
};

template <class T> W8a8Result runW8a8(const std::vector<T> &x, const std::vector<T> &w, const std::vector<T> &bias, int rows, int outputs, int inputs) {
	const size_t across = ceilDivide(inputs, 128), down = ceilDivide(rows, 128), along = ceilDivide(outputs, 128);
	const std::unique_ptr<Memory> xs(upload(x)), ws(upload(w)), biases(upload(bias));
	Memory x8(size_t(rows) * inputs), w8(size_t(outputs) * inputs), xScales(down * across * 4), wScales(along * across * 4), y(size_t(rows) * outputs * 2);
	const int type = typeOf(T());
	must(tc_w8a8_quantize(type, xs->get(), rows, inputs, x8.as<int8_t>(), xScales.as<float>(), nullptr));
	must(tc_w8a8_quantize(type, ws->get(), outputs, inputs, w8.as<int8_t>(), wScales.as<float>(), nullptr));
	must(tc_w8a8_linear(type, x8.as<int8_t>(), xScales.as<float>(), w8.as<int8_t>(), wScales.as<float>(), bias.empty() ? nullptr : biases->get(), y.get(), rows, outputs, inputs, nullptr));
	return {x8.take<int8_t>(size_t(rows) * inputs), w8.take<int8_t>(size_t(outputs) * inputs), xScales.take<float>(down * across), wScales.take<float>(along * across), widened(y.take<T>(size_t(rows) * outputs))};
}

template <class T> W8a8Result w8a8ByReference(const std::vector<T> &x, const std::vector<T> &w, const std::vector<T> &bias, int rows, int outputs, int inputs) {
	const size_t across = ceilDivide(inputs, 128);
	W8a8Result result;
	result.x8.resize(x.size());
	result.w8.resize(w.size());
	result.xScales.resize(across * ceilDivide(rows, 128));
	result.wScales.resize(across * ceilDivide(outputs, 128));
	quantizeReference(widened(x).data(), rows, inputs, result.x8.data(), result.xScales.data());
	quantizeReference(widened(w).data(), outputs, inputs, result.w8.data(), result.wScales.data());
	std::vector<T> y(size_t(rows) * outputs);
	linearReference<T>(result.x8.data(), result.xScales.data(), result.w8.data(), result.wScales.data(), bias.empty() ? nullptr : bias.data(), y.data(), rows, outputs, inputs);
	result.y = widened(y);
	return result;
}

template <class T> void checkW8a8(int rows, int outputs, int inputs, bool hasBias, unsigned seed) {
	const std::string what = "w8a8 " + std::string(nameOf(typeOf(T()))) + " " + std::to_string(rows) + "x" + std::to_string(inputs) + " to " + std::to_string(outputs);
	const auto x = rounded<T>(normals(size_t(rows) * inputs, seed)), w = rounded<T>(normals(size_t(outputs) * inputs, seed + 1)), bias = rounded<T>(normals(hasBias ? outputs : 0, seed + 2));
	const W8a8Result expected = w8a8ByReference(x, w, bias, rows, outputs, inputs);
	W8a8Result actual;
	inEveryOrder(what, [&] {
		actual = runW8a8(x, w, bias, rows, outputs, inputs);
		return actual.y;
	});
	report(what + ", bits that differ", double((actual.x8 != expected.x8) + (actual.w8 != expected.w8) + (actual.xScales != expected.xScales) + (actual.wScales != expected.wScales) + (actual.y != expected.y)), 0);
}

/** x [heads, tokens, d] as a tensor of the device [tokens, heads, d] or [heads, tokens, d], and where things lie in it. */
template <class T> struct Tensor {
	std::unique_ptr<Memory> memory;
	tc_strides strides;
	int heads, tokens, d;

	Tensor(int heads_, int tokens_, int d_, bool isByToken) : memory(new Memory(size_t(heads_) * tokens_ * d_ * 2)), heads(heads_), tokens(tokens_), d(d_) {
		strides = isByToken ? tc_strides{d, int64_t(heads) * d} : tc_strides{int64_t(tokens) * d, d};
	}
	Tensor(const std::vector<T> &x, int heads_, int tokens_, int d_, bool isByToken) : Tensor(heads_, tokens_, d_, isByToken) {
		std::vector<T> placed(x.size());
		for (size_t index = 0; index < x.size(); index++) {
			placed[place(index)] = x[index];
		}
		memory->put(placed);
	}
	Floats take() const {
		const std::vector<T> placed = memory->template take<T>(size_t(heads) * tokens * d);
		Floats x(placed.size());
		for (size_t index = 0; index < x.size(); index++) {
			x[index] = toFloat(placed[place(index)]);
		}
		return x;
	}
	size_t place(size_t index) const { return index / d / tokens * strides.head + index / d % tokens * strides.token + index % d; }
};

struct SlaCase {
	int heads, tokens, d, blockQueries, blockKeys;
	double ratio;
	bool isByToken, hasLinear;
};

struct SlaResult {
	Floats out;
	std::vector<int32_t> chosen;
};

size_t chosenCount(const SlaCase &c) {
	const int blocks = ceilDivide(c.tokens, c.blockKeys), kept = int(c.ratio * blocks);
	return size_t(c.heads) * ceilDivide(c.tokens, c.blockQueries) * (kept < 1 ? 1 : kept);
}

template <class T> SlaResult runSla(const SlaCase &c, const std::vector<T> &q, const std::vector<T> &k, const std::vector<T> &v, const Floats &weight, const Floats &bias) {
	const Tensor<T> qs(q, c.heads, c.tokens, c.d, c.isByToken), ks(k, c.heads, c.tokens, c.d, c.isByToken), vs(v, c.heads, c.tokens, c.d, c.isByToken), out(c.heads, c.tokens, c.d, c.isByToken);
	const std::unique_ptr<Memory> weights(upload(weight)), biases(upload(bias));
	Memory chosen(chosenCount(c) * 4);
	const tc_sla call = {typeOf(T()), c.heads, c.tokens, c.d, c.blockQueries, c.blockKeys, c.ratio, qs.strides, ks.strides, vs.strides, out.strides, qs.memory->get(), ks.memory->get(), vs.memory->get(),
		c.hasLinear ? weights->as<float>() : nullptr, c.hasLinear ? biases->as<float>() : nullptr, out.memory->get(), chosen.as<int32_t>()};
	const Memory workspace(tc_sla_workspace(&call));
	must(tc_sla_run(&call, workspace.get(), tc_sla_workspace(&call), nullptr));
	return {out.take(), chosen.take<int32_t>(chosenCount(c))};
}

template <class T> SlaResult slaByReference(const SlaCase &c, const std::vector<T> &q, const std::vector<T> &k, const std::vector<T> &v, const Floats &weight, const Floats &bias) {
	SlaResult result{Floats(q.size()), std::vector<int32_t>(chosenCount(c))};
	sparseLinearReference({c.heads, c.tokens, c.tokens, c.d}, c.blockQueries, c.blockKeys, c.ratio, widened(q).data(), widened(k).data(), widened(v).data(),
		c.hasLinear ? weight.data() : nullptr, c.hasLinear ? bias.data() : nullptr, result.out.data(), result.chosen.data());
	return result;
}

/** Of numbers with 11 and with 8 binary digits. */
double toleranceOf(int type) { return type == TC_FLOAT16 ? 1e-3 : 8e-3; }

template <class T> void checkSla(const SlaCase &c, unsigned seed) {
	const std::string what = "sla " + std::string(nameOf(typeOf(T()))) + " " + std::to_string(c.heads) + "x" + std::to_string(c.tokens) + "x" + std::to_string(c.d) + " blocks "
		+ std::to_string(c.blockQueries) + "x" + std::to_string(c.blockKeys) + (c.hasLinear ? "" : ", exact branch");
	const size_t count = size_t(c.heads) * c.tokens * c.d;
	const auto q = rounded<T>(normals(count, seed)), k = rounded<T>(normals(count, seed + 1, 0.5f)), v = rounded<T>(normals(count, seed + 2));
	Floats weight = normals(size_t(c.d) * c.d, seed + 3);
	for (float &value : weight) {
		value /= sqrtf(float(c.d));
	}
	const Floats bias = normals(c.d, seed + 4);
	const SlaResult expected = slaByReference(c, q, k, v, weight, bias);
	SlaResult actual;
	inEveryOrder(what, [&] {
		actual = runSla(c, q, k, v, weight, bias);
		return actual.out;
	});
	report(what + ", blocks that differ", double(actual.chosen != expected.chosen), 0);
	report(what, relativeError(actual.out, expected.out), toleranceOf(typeOf(T())));
}

template <class T> void checkInt8(int heads, int queries, int keys, int d, bool isByToken, unsigned seed) {
	const std::string what = "int8 attention " + std::string(nameOf(typeOf(T()))) + " " + std::to_string(heads) + "x" + std::to_string(queries) + "x" + std::to_string(d) + ", " + std::to_string(keys) + " keys";
	const auto q = rounded<T>(normals(size_t(heads) * queries * d, seed)), k = rounded<T>(normals(size_t(heads) * keys * d, seed + 1, 3)), v = rounded<T>(normals(size_t(heads) * keys * d, seed + 2));
	Floats expected(q.size()), exact(q.size()), actual;
	int8AttentionReference({heads, queries, keys, d}, widened(q).data(), widened(k).data(), widened(v).data(), expected.data());
	attentionReference({heads, queries, keys, d}, widened(q).data(), widened(k).data(), widened(v).data(), exact.data());
	inEveryOrder(what, [&] {
		const Tensor<T> qs(q, heads, queries, d, isByToken), ks(k, heads, keys, d, isByToken), vs(v, heads, keys, d, isByToken), out(heads, queries, d, isByToken);
		const tc_int8_attention call = {typeOf(T()), heads, queries, keys, d, qs.strides, ks.strides, vs.strides, out.strides, qs.memory->get(), ks.memory->get(), vs.memory->get(), out.memory->get()};
		const Memory workspace(tc_int8_attention_workspace(&call));
		must(tc_int8_attention_run(&call, workspace.get(), tc_int8_attention_workspace(&call), nullptr));
		return actual = out.take();
	});
	report(what, relativeError(actual, expected), toleranceOf(typeOf(T())));
	// Scores of random numbers are small, and so is what they average: 8 bits show more than in a trained network.
	report(what + ", against exact attention", relativeError(actual, exact), 3e-2);
}

template <class T> void checkNorms(int rows, int heads, int headDim, int rowsPerTable, unsigned seed) {
	const int dim = heads * headDim, tables = ceilDivide(rows, rowsPerTable);
	const std::string size = std::string(nameOf(typeOf(T()))) + " " + std::to_string(rows) + "x" + std::to_string(dim);
	const auto x = rounded<T>(normals(size_t(rows) * dim, seed, 0.7f));
	const Floats scale = normals(size_t(tables) * dim, seed + 1), shift = normals(size_t(tables) * dim, seed + 2), weight = normals(dim, seed + 3, 1), angles = normals(size_t(rows) * headDim / 2, seed + 4);
	Floats cosines, sines, expected(x.size()), actual;
	for (const float angle : angles) {
		cosines.push_back(cosf(angle));
		sines.push_back(sinf(angle));
	}
	const std::unique_ptr<Memory> xs(upload(x)), scales(upload(scale)), shifts(upload(shift)), weights(upload(weight)), cs(upload(cosines)), ss(upload(sines));
	normModulateReference(widened(x).data(), scale.data(), shift.data(), expected.data(), rows, dim, rowsPerTable, 1e-6f);
	inEveryOrder("norm", [&] {
		Memory out(x.size() * 2);
		must(tc_norm_modulate(typeOf(T()), typeOf(T()), xs->get(), scales->as<float>(), shifts->as<float>(), out.get(), rows, dim, rowsPerTable, 1e-6f, nullptr));
		return actual = widened(out.take<T>(x.size()));
	});
	report("norm and modulation " + size, relativeError(actual, expected), toleranceOf(typeOf(T())) / 2);
	const std::unique_ptr<Memory> wide(upload(widened(x)));
	inEveryOrder("norm", [&] {
		Memory out(x.size() * 2);
		must(tc_norm_modulate(TC_FLOAT32, typeOf(T()), wide->get(), scales->as<float>(), shifts->as<float>(), out.get(), rows, dim, rowsPerTable, 1e-6f, nullptr));
		return actual = widened(out.take<T>(x.size()));
	});
	report("norm and modulation of float32 to " + size, relativeError(actual, expected), toleranceOf(typeOf(T())) / 2);
	for (const bool hasNorm : {true, false}) {
		Floats turned = widened(x);
		normRopeReference(turned.data(), hasNorm ? weight.data() : nullptr, cosines.data(), sines.data(), rows, heads, headDim, 1e-6f);
		inEveryOrder("rope", [&] {
			const std::unique_ptr<Memory> at(upload(x));
			must(tc_norm_rope(typeOf(T()), at->get(), hasNorm ? weights->as<float>() : nullptr, cs->as<float>(), ss->as<float>(), rows, heads, headDim, 1e-6f, nullptr));
			return actual = widened(at->take<T>(x.size()));
		});
		report(std::string(hasNorm ? "norm and rotation " : "rotation ") + size, relativeError(actual, turned), toleranceOf(typeOf(T())) / 2);
	}
}

/** What must be refused, with its status. */
void checkRefusals() {
	Memory memory(4096);
	int8_t *const bytes = memory.as<int8_t>();
	float *const floats = memory.as<float>();
	const auto expect = [](const char *what, int status, int expected) { report(std::string("refused: ") + what, status == expected ? 0 : 1, 0); };
	expect("no rows", tc_w8a8_quantize(TC_FLOAT16, bytes, 0, 8, bytes, floats, nullptr), TC_BAD_ARGUMENT);
	expect("no values", tc_w8a8_quantize(TC_FLOAT16, bytes, 1, 8, nullptr, floats, nullptr), TC_BAD_ARGUMENT);
	expect("seven columns", tc_w8a8_quantize(TC_FLOAT16, bytes, 1, 7, bytes, floats, nullptr), TC_UNSUPPORTED);
	expect("another type", tc_w8a8_quantize(7, bytes, 1, 8, bytes, floats, nullptr), TC_UNSUPPORTED);
	expect("an odd address", tc_w8a8_quantize(TC_FLOAT16, bytes + 2, 1, 8, bytes, floats, nullptr), TC_MISALIGNED);
	expect("24 inputs", tc_w8a8_linear(TC_FLOAT16, bytes, floats, bytes, floats, nullptr, bytes, 1, 8, 24, nullptr), TC_UNSUPPORTED);
	expect("no norm", tc_norm_modulate(TC_FLOAT16, TC_FLOAT16, bytes, floats, nullptr, bytes, 1, 8, 1, 1e-6f, nullptr), TC_BAD_ARGUMENT);
	expect("a norm to float32", tc_norm_modulate(TC_FLOAT32, TC_FLOAT32, bytes, floats, floats, bytes, 1, 8, 1, 1e-6f, nullptr), TC_UNSUPPORTED);
	expect("a norm from another type of 16 bits", tc_norm_modulate(TC_BFLOAT16, TC_FLOAT16, bytes, floats, floats, bytes, 1, 8, 1, 1e-6f, nullptr), TC_UNSUPPORTED);
	tc_sla sla = {TC_FLOAT16, 1, 100, 64, 64, 64, 0.5, {6400, 64}, {6400, 64}, {6400, 64}, {6400, 64}, bytes, bytes, bytes, nullptr, nullptr, bytes, nullptr};
	expect("a workspace that is too small", tc_sla_run(&sla, bytes, 16, nullptr), TC_WORKSPACE_TOO_SMALL);
	sla.k_strides.token = 60;
	expect("rows that overlap", tc_sla_run(&sla, bytes, 1 << 30, nullptr), TC_BAD_ARGUMENT);
	sla.k_strides.token = 68;
	expect("rows off their places", tc_sla_run(&sla, bytes, 1 << 30, nullptr), TC_MISALIGNED);
	sla.head_dim = 80;
	expect("heads of 80", tc_sla_run(&sla, bytes, 1 << 30, nullptr), TC_UNSUPPORTED);
	report("refused: its workspace", double(tc_sla_workspace(&sla)), 0);
	sla.ratio = NAN;
	expect("a ratio that is no number", tc_sla_run(&sla, bytes, 1 << 30, nullptr), TC_BAD_ARGUMENT);
}

/** All, or those of one kernel. */
void checkAll(const std::string &kernel) {
	const auto isWanted = [&](const char *name) { return kernel.empty() || kernel == name; };
	if (isWanted("refusals")) {
		checkRefusals();
	}
	if (isWanted("w8a8")) {
		checkW8a8<Bfloat>(200, 136, 256, true, 1);
		checkW8a8<Half>(1, 8, 16, false, 4);
		checkW8a8<Bfloat>(130, 264, 528, true, 7);
	}
	if (isWanted("sla")) {
		checkSla<Half>({2, 200, 64, 64, 64, 0.5, false, true}, 11);
		checkSla<Bfloat>({1, 330, 128, 128, 64, 0.34, true, true}, 21);
		checkSla<Half>({1, 270, 128, 64, 128, 0.7, true, true}, 31);
		checkSla<Bfloat>({2, 130, 64, 128, 64, 1.0, true, false}, 41);
		checkSla<Half>({1, 1, 64, 64, 64, 0.1, false, true}, 51);
	}
	if (isWanted("int8")) {
		checkInt8<Half>(2, 130, 200, 64, true, 61);
		checkInt8<Bfloat>(1, 100, 64, 128, false, 71);
		checkInt8<Half>(1, 3, 257, 128, true, 81);
	}
	if (isWanted("norms")) {
		checkNorms<Bfloat>(5, 3, 64, 2, 91);
		checkNorms<Half>(3, 1, 8, 3, 95);
	}
}

// ---- Time --------------------------------------------------------------------------------------------------------------------------------------

#ifdef __CUDACC__

/** Milliseconds of a call: the median of 20 after three that do not count. */
template <class Call> float timed(Call call) {
	std::vector<float> times;
	for (int index = 0; index < 23; index++) {
		void *timer;
		float milliseconds = 0;
		must(tc_timer_start(&timer, nullptr));
		const int status = call();
		must(tc_timer_stop(timer, nullptr, &milliseconds));
		must(status);
		if (index >= 3) {
			times.push_back(milliseconds);
		}
	}
	std::sort(times.begin(), times.end());
	return times[times.size() / 2];
}

void print(const char *what, float milliseconds, double operations) { printf("%-48s %8.3f ms %8.1f T/s\n", what, milliseconds, operations / milliseconds / 1e9); }

int timeAll() {
	const int tokens = 32760, dim = 1536, hidden = 8960, heads = 12, d = 128;
	for (const auto &shape : {std::pair<int, int>{dim, dim}, {hidden, dim}, {dim, hidden}}) {
		const int outputs = shape.first, inputs = shape.second;
		Memory x(size_t(tokens) * inputs * 2), x8(size_t(tokens) * inputs), w8(size_t(outputs) * inputs), scales(1 << 22), y(size_t(tokens) * outputs * 2);
		x.put(rounded<Bfloat>(normals(size_t(tokens) * inputs, 1)));
		print(("quantise " + std::to_string(inputs)).c_str(), timed([&] { return tc_w8a8_quantize(TC_BFLOAT16, x.get(), tokens, inputs, x8.as<int8_t>(), scales.as<float>(), nullptr); }), 0);
		print(("w8a8 " + std::to_string(inputs) + " to " + std::to_string(outputs)).c_str(),
			timed([&] { return tc_w8a8_linear(TC_BFLOAT16, x8.as<int8_t>(), scales.as<float>(), w8.as<int8_t>(), scales.as<float>(), nullptr, y.get(), tokens, outputs, inputs, nullptr); }), 2.0 * tokens * outputs * inputs);
	}
	const auto numbers = rounded<Bfloat>(normals(size_t(heads) * tokens * d, 2));
	const Tensor<Bfloat> q(numbers, heads, tokens, d, true), k(numbers, heads, tokens, d, true), v(numbers, heads, tokens, d, true), out(heads, tokens, d, true);
	const std::unique_ptr<Memory> weight(upload(normals(d * d, 3))), bias(upload(normals(d, 4)));
	for (const auto &blocks : {std::pair<int, int>{128, 64}, {64, 128}, {64, 64}}) {
		const tc_sla call = {TC_BFLOAT16, heads, tokens, d, blocks.first, blocks.second, 0.1, q.strides, k.strides, v.strides, out.strides, q.memory->get(), k.memory->get(), v.memory->get(), weight->as<float>(), bias->as<float>(), out.memory->get(), nullptr};
		const Memory workspace(tc_sla_workspace(&call));
		print(("sla 0.1, blocks " + std::to_string(blocks.first) + "x" + std::to_string(blocks.second)).c_str(), timed([&] { return tc_sla_run(&call, workspace.get(), tc_sla_workspace(&call), nullptr); }), 4.0 * 0.1 * heads * tokens * double(tokens) * d);
	}
	const tc_int8_attention call = {TC_BFLOAT16, heads, tokens, tokens, d, q.strides, k.strides, v.strides, out.strides, q.memory->get(), k.memory->get(), v.memory->get(), out.memory->get()};
	const Memory workspace(tc_int8_attention_workspace(&call));
	print("int8 attention, dense", timed([&] { return tc_int8_attention_run(&call, workspace.get(), tc_int8_attention_workspace(&call), nullptr); }), 4.0 * heads * tokens * double(tokens) * d);
	return 0;
}

#else

int timeAll() {
	fprintf(stderr, "The emulation has no time to tell; compile with nvcc and run on a card.\n");
	return 2;
}

#endif

// ---- Files -------------------------------------------------------------------------------------------------------------------------------------

template <class T> std::vector<T> readFile(const std::string &path, size_t count) {
	std::vector<T> data(count);
	FILE *const file = fopen(path.c_str(), "rb");
	if (file == nullptr || fread(data.data(), sizeof(T), count, file) != count || fgetc(file) != EOF) {
		fprintf(stderr, "%s does not have %zu numbers.\n", path.c_str(), count);
		exit(2);
	}
	fclose(file);
	return data;
}

template <class T> void writeFile(const std::string &path, const std::vector<T> &data) {
	FILE *const file = fopen(path.c_str(), "wb");
	if (file == nullptr || fwrite(data.data(), sizeof(T), data.size(), file) != data.size() || fclose(file) != 0) {
		fprintf(stderr, "%s could not be written.\n", path.c_str());
		exit(2);
	}
}

void w8a8Files(bool isReference, const std::string &folder, int rows, int inputs, int outputs) {
	const auto x = rounded<Bfloat>(readFile<float>(folder + "/x", size_t(rows) * inputs)), w = rounded<Bfloat>(readFile<float>(folder + "/weight", size_t(outputs) * inputs)), bias = rounded<Bfloat>(readFile<float>(folder + "/bias", outputs));
	const W8a8Result result = isReference ? w8a8ByReference(x, w, bias, rows, outputs, inputs) : runW8a8(x, w, bias, rows, outputs, inputs);
	writeFile(folder + "/x_int8", result.x8);
	writeFile(folder + "/x_scale", result.xScales);
	writeFile(folder + "/int8_weight", result.w8);
	writeFile(folder + "/scale", result.wScales);
	writeFile(folder + "/out", result.y);
}

void slaFiles(bool isReference, const std::string &folder, const SlaCase &c) {
	const size_t count = size_t(c.heads) * c.tokens * c.d;
	const Floats q = readFile<float>(folder + "/q", count), k = readFile<float>(folder + "/k", count), v = readFile<float>(folder + "/v", count);
	const Floats weight = readFile<float>(folder + "/weight", size_t(c.d) * c.d), bias = readFile<float>(folder + "/bias", c.d);
	SlaResult result{Floats(count), std::vector<int32_t>(chosenCount(c))};
	if (isReference) {
		sparseLinearReference({c.heads, c.tokens, c.tokens, c.d}, c.blockQueries, c.blockKeys, c.ratio, q.data(), k.data(), v.data(), weight.data(), bias.data(), result.out.data(), result.chosen.data());
	} else {
		result = runSla(c, rounded<Half>(q), rounded<Half>(k), rounded<Half>(v), weight, bias);
	}
	writeFile(folder + "/out", result.out);
	writeFile(folder + "/chosen", result.chosen);
}

} // namespace

/** `w8a8 reference|kernel FOLDER ROWS INPUTS OUTPUTS`, `sla reference|kernel FOLDER HEADS TOKENS HEAD_DIM BLOCK_QUERIES BLOCK_KEYS RATIO`: float32 files in, [heads, tokens, d]. */
int main(int count, char **arguments) {
	const std::vector<std::string> a(arguments + 1, arguments + count);
	const auto number = [&](size_t index) { return atoi(a[index].c_str()); };
	if (!a.empty() && a.size() <= 2 && a[0] == "all") {
		checkAll(a.size() == 2 ? a[1] : "");
		printf("%s\n", failures == 0 ? "Everything agrees." : "Something does not agree.");
		return failures == 0 ? 0 : 1;
	}
	if (a.size() == 1 && a[0] == "time") {
		return timeAll();
	}
	if (a.size() == 6 && a[0] == "w8a8") {
		w8a8Files(a[1] == "reference", a[2], number(3), number(4), number(5));
		return 0;
	}
	if (a.size() == 9 && a[0] == "sla") {
		slaFiles(a[1] == "reference", a[2], {number(3), number(4), number(5), number(6), number(7), atof(a[8].c_str()), true, true});
		return 0;
	}
	fprintf(stderr, "check all [KERNEL] | time | w8a8 reference|kernel FOLDER ROWS INPUTS OUTPUTS | sla reference|kernel FOLDER HEADS TOKENS HEAD_DIM BLOCK_QUERIES BLOCK_KEYS RATIO\n");
	return 2;
}
