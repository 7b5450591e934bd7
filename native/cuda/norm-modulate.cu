/**
 * The small things between products, each in one pass over memory: layer norm with modulation, and the norm of queries and keys over the whole width with their
 * rotation. All arithmetic is float32; what is written is 16 bits, what is read as well, or, by norm and modulation, the float32 of a residual sum.
 *
 * Versions: 1. a block of 128 threads for a row, two passes for mean and variance.
 */
#include "references.h"
#include "status.h"
#include <vector>

namespace turbocast {

// ---- Reference ---------------------------------------------------------------------------------------------------------------------------------

void normModulateReference(const float *x, const float *scale, const float *shift, float *out, int rows, int dim, int rowsPerTable, float epsilon) {
	for (int row = 0; row < rows; row++) {
		const float *const from = x + size_t(row) * dim;
		const size_t table = size_t(row / rowsPerTable) * dim;
		double mean = 0, variance = 0;
		for (int column = 0; column < dim; column++) {
			mean += double(from[column]) / dim;
		}
		for (int column = 0; column < dim; column++) {
			variance += (from[column] - mean) * (from[column] - mean) / dim;
		}
		for (int column = 0; column < dim; column++) {
			out[size_t(row) * dim + column] = float((from[column] - mean) / sqrt(variance + epsilon) * (1.0 + scale[table + column]) + shift[table + column]);
		}
	}
}

void normRopeReference(float *x, const float *weight, const float *cos, const float *sin, int rows, int heads, int headDim, float epsilon) {
	const int dim = heads * headDim;
	for (int row = 0; row < rows; row++) {
		float *const at = x + size_t(row) * dim;
		double squares = 0;
		for (int column = 0; column < dim; column++) {
			squares += double(at[column]) * at[column] / dim;
		}
		const double norm = weight == nullptr ? 1 : 1 / sqrt(squares + epsilon);
		for (int column = 0; column < dim; column += 2) {
			const int pair = row * (headDim / 2) + column % headDim / 2;
			const double a = at[column] * norm * (weight == nullptr ? 1 : weight[column]), b = at[column + 1] * norm * (weight == nullptr ? 1 : weight[column + 1]);
			at[column] = float(a * cos[pair] - b * sin[pair]);
			at[column + 1] = float(a * sin[pair] + b * cos[pair]);
		}
	}
}

// ---- Kernels -----------------------------------------------------------------------------------------------------------------------------------

constexpr int NORM_THREADS = 128;

/** Over all threads of the block. Shared memory: a word for each warp. */
ON_DEVICE float sumOfBlock(float x, float *sums) {
	for (int mask = WARP / 2; mask > 0; mask /= 2) {
		x += shuffleXor(x, mask);
	}
	BARRIER(); // Everybody has read the sums before.
	if (threadIdx.x % WARP == 0) {
		sums[threadIdx.x / WARP] = x;
	}
	BARRIER();
	float total = 0;
	for (int warp = 0; warp < NORM_THREADS / WARP; warp++) {
		total += sums[warp];
	}
	return total;
}

struct Pair {
	float low, high;
};
template <class X> ON_DEVICE Pair pairOf(const X *row, int pair) {
	const uint32_t word = reinterpret_cast<const uint32_t *>(row)[pair];
	return {unpackLow<X>(word), unpackHigh<X>(word)};
}
template <> ON_DEVICE Pair pairOf<float>(const float *row, int pair) { return {row[2 * pair], row[2 * pair + 1]}; }

/** Block (row). */
template <class X, class T> KERNEL(NORM_THREADS) modulateKernel(const X *x, const float *scale, const float *shift, T *out, int dim, int rowsPerTable, float epsilon) {
	SHARED_MEMORY(memory);
	float *const sums = reinterpret_cast<float *>(memory);
	const X *const from = x + size_t(blockIdx.x) * dim;
	uint32_t *const to = reinterpret_cast<uint32_t *>(out + size_t(blockIdx.x) * dim);
	const size_t table = size_t(blockIdx.x / rowsPerTable) * dim;
	float sum = 0;
	for (int pair = threadIdx.x; pair < dim / 2; pair += NORM_THREADS) {
		const Pair at = pairOf(from, pair);
		sum += at.low + at.high;
	}
	const float mean = sumOfBlock(sum, sums) / float(dim);
	float squares = 0;
	for (int pair = threadIdx.x; pair < dim / 2; pair += NORM_THREADS) {
		const Pair at = pairOf(from, pair);
		squares += (at.low - mean) * (at.low - mean) + (at.high - mean) * (at.high - mean);
	}
	const float norm = rsqrtf(sumOfBlock(squares, sums) / float(dim) + epsilon);
	for (int pair = threadIdx.x; pair < dim / 2; pair += NORM_THREADS) {
		const size_t column = table + 2 * pair;
		const Pair at = pairOf(from, pair);
		to[pair] = pack<T>((at.low - mean) * norm * (1.0f + scale[column]) + shift[column], (at.high - mean) * norm * (1.0f + scale[column + 1]) + shift[column + 1]);
	}
}

/** Block (row). */
template <class T> KERNEL(NORM_THREADS) ropeKernel(T *x, const float *weight, const float *cos, const float *sin, int heads, int headDim, float epsilon) {
	SHARED_MEMORY(memory);
	float *const sums = reinterpret_cast<float *>(memory);
	const int dim = heads * headDim;
	uint32_t *const at = reinterpret_cast<uint32_t *>(x + size_t(blockIdx.x) * dim);
	float norm = 1;
	if (weight != nullptr) {
		float squares = 0;
		for (int pair = threadIdx.x; pair < dim / 2; pair += NORM_THREADS) {
			squares += unpackLow<T>(at[pair]) * unpackLow<T>(at[pair]) + unpackHigh<T>(at[pair]) * unpackHigh<T>(at[pair]);
		}
		norm = rsqrtf(sumOfBlock(squares, sums) / float(dim) + epsilon);
	}
	for (int pair = threadIdx.x; pair < dim / 2; pair += NORM_THREADS) {
		const size_t angle = size_t(blockIdx.x) * (headDim / 2) + pair % (headDim / 2);
		const float a = unpackLow<T>(at[pair]) * norm * (weight == nullptr ? 1.0f : weight[2 * pair]), b = unpackHigh<T>(at[pair]) * norm * (weight == nullptr ? 1.0f : weight[2 * pair + 1]);
		at[pair] = pack<T>(a * cos[angle] - b * sin[angle], a * sin[angle] + b * cos[angle]);
	}
}

template <class X, class T> int modulateAs(const void *x, const float *scale, const float *shift, void *out, int rows, int dim, int rowsPerTable, float epsilon, void *stream) {
	return launched(launch(modulateKernel<X, T>, dim3(rows), NORM_THREADS, NORM_THREADS / WARP * sizeof(float), stream, static_cast<const X *>(x), scale, shift, static_cast<T *>(out), dim, rowsPerTable, epsilon));
}

template <class T> int ropeAs(void *x, const float *weight, const float *cos, const float *sin, int rows, int heads, int headDim, float epsilon, void *stream) {
	return launched(launch(ropeKernel<T>, dim3(rows), NORM_THREADS, NORM_THREADS / WARP * sizeof(float), stream, static_cast<T *>(x), weight, cos, sin, heads, headDim, epsilon));
}

} // namespace turbocast

using namespace turbocast;

extern "C" int tc_norm_modulate(int xType, int outType, const void *x, const float *scale, const float *shift, void *out, int rows, int dim, int rowsPerTable, float epsilon, void *stream) {
	if (x == nullptr || scale == nullptr || shift == nullptr || out == nullptr || rows <= 0 || dim <= 0 || rowsPerTable <= 0 || !(epsilon >= 0)) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(outType) || (xType != outType && xType != TC_FLOAT32) || dim % 8 != 0) {
		return TC_UNSUPPORTED;
	}
	if (!isAligned(x) || !isAligned(out)) {
		return TC_MISALIGNED;
	}
	if (xType == TC_FLOAT32) {
		return outType == TC_FLOAT16 ? modulateAs<float, Half>(x, scale, shift, out, rows, dim, rowsPerTable, epsilon, stream) : modulateAs<float, Bfloat>(x, scale, shift, out, rows, dim, rowsPerTable, epsilon, stream);
	}
	return outType == TC_FLOAT16 ? modulateAs<Half, Half>(x, scale, shift, out, rows, dim, rowsPerTable, epsilon, stream) : modulateAs<Bfloat, Bfloat>(x, scale, shift, out, rows, dim, rowsPerTable, epsilon, stream);
}

extern "C" int tc_norm_rope(int type, void *x, const float *weight, const float *cos, const float *sin, int rows, int heads, int headDim, float epsilon, void *stream) {
	if (x == nullptr || cos == nullptr || sin == nullptr || rows <= 0 || heads <= 0 || headDim <= 0 || !(epsilon >= 0)) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(type) || headDim % 8 != 0) {
		return TC_UNSUPPORTED;
	}
	if (!isAligned(x)) {
		return TC_MISALIGNED;
	}
	return type == TC_FLOAT16 ? ropeAs<Half>(x, weight, cos, sin, rows, heads, headDim, epsilon, stream) : ropeAs<Bfloat>(x, weight, cos, sin, rows, heads, headDim, epsilon, stream);
}
