/**
 * What the attention kernels share. A warp has 16 queries, a tile 64 keys; scores, probabilities and outputs stay in registers in the layout of the
 * accumulators of mma.m16n8: a thread has columns 2 t and 2 t + 1 (t = lane % 4) of rows g and g + 8 (g = lane / 4).
 */
#pragma once
#include "machine.h"
#include "turbocast_cuda.h"

namespace turbocast {

constexpr int KEYS = 64, ROWS = 16;
constexpr float LOG2_E = 1.4426950408889634f;

/** Queues the copy of rows [first, first + COUNT) of a matrix with BYTES a row to shared memory, swizzled; zeros from row `rows` on. `stride` in bytes. */
template <int BYTES, int COUNT> ON_DEVICE void fetchTile(unsigned char *to, const void *from, int64_t stride, int first, int rows, int thread, int threads) {
	constexpr int PIECES = BYTES / 16;
	for (int index = thread; index < COUNT * PIECES; index += threads) {
		const int row = index / PIECES, piece = index % PIECES;
		const bool isThere = first + row < rows;
		copyAsync(to + swizzled(row, piece, BYTES), static_cast<const unsigned char *>(from) + (isThere ? (first + row) * stride + piece * 16 : 0), isThere);
	}
}

/** Of the fragments of 16 rows from `row` on. `step` counts 32 bytes. */
ON_DEVICE void loadLeft(uint32_t (&a)[4], const unsigned char *tile, int row, int step, int rowBytes, int lane) {
	loadMatrices(a, tile + swizzled(row + lane % 16, 2 * step + lane / 16, rowBytes));
}
/** Of 16 columns from `column` on, each a row of the tile: a[0], a[1] are the operand of the first eight. */
ON_DEVICE void loadRight(uint32_t (&b)[4], const unsigned char *tile, int column, int step, int rowBytes, int lane) {
	loadMatrices(b, tile + swizzled(column + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2, rowBytes));
}
/** The same of a tile whose rows are those that are summed over, 16 from `row` on; `pair` counts 16 columns. */
ON_DEVICE void loadRightTransposed(uint32_t (&b)[4], const unsigned char *tile, int row, int pair, int rowBytes, int lane) {
	loadMatricesTransposed(b, tile + swizzled(row + lane % 16, 2 * pair + lane / 16, rowBytes));
}

/** Over the four threads that share a row. */
ON_DEVICE float largestOfRow(float x) {
	x = fmaxf(x, shuffleXor(x, 1));
	return fmaxf(x, shuffleXor(x, 2));
}
ON_DEVICE float sumOfRow(float x) {
	x += shuffleXor(x, 1);
	return x + shuffleXor(x, 2);
}

/** Softmax of the tiles seen so far, times their values, of rows g and g + 8. */
template <int D> struct OnlineSoftmax {
	float out[D / 8][4] = {};
	float largest[2] = {-INFINITY, -INFINITY};
	/** Of this thread's columns alone. */
	float total[2] = {};

	/** `scores` in units of log 2, of 64 keys of which `there` (at least one) exist; `values` their tile [64, D] of T. */
	template <class T> ON_DEVICE void add(float (&scores)[KEYS / 8][4], const unsigned char *values, int there, int lane) {
		if (there < KEYS) {
#pragma unroll
			for (int i = 0; i < KEYS / 8 * 4; i++) {
				if (i / 4 * 8 + 2 * (lane % 4) + i % 2 >= there) {
					scores[i / 4][i % 4] = -INFINITY;
				}
			}
		}
#pragma unroll
		for (int half = 0; half < 2; half++) {
			float peak = largest[half];
#pragma unroll
			for (int n = 0; n < KEYS / 8; n++) {
				peak = fmaxf(peak, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
			}
			peak = largestOfRow(peak);
			const float shrunk = exp2Fast(largest[half] - peak);
			largest[half] = peak;
			total[half] *= shrunk;
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				out[n][2 * half] *= shrunk;
				out[n][2 * half + 1] *= shrunk;
			}
#pragma unroll
			for (int i = 0; i < KEYS / 8 * 2; i++) {
				float &score = scores[i / 2][2 * half + i % 2];
				score = exp2Fast(score - peak);
				total[half] += score;
			}
		}
#pragma unroll
		for (int step = 0; step < KEYS / 16; step++) {
			// Accumulators of two neighbouring 16 x 8 products are the left operand of the next.
			const float(&low)[4] = scores[2 * step], (&high)[4] = scores[2 * step + 1];
			const uint32_t shares[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]), pack<T>(high[0], high[1]), pack<T>(high[2], high[3])};
#pragma unroll
			for (int pair = 0; pair < D / 16; pair++) {
				uint32_t b[4];
				loadRightTransposed(b, values, 16 * step, pair, D * 2, lane);
				multiply16<T>(out[2 * pair], shares, b[0], b[1]);
				multiply16<T>(out[2 * pair + 1], shares, b[2], b[3]);
			}
		}
	}

	ON_DEVICE void finish() {
#pragma unroll
		for (int half = 0; half < 2; half++) {
			const float share = 1.0f / sumOfRow(total[half]);
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				out[n][2 * half] *= share;
				out[n][2 * half + 1] *= share;
			}
		}
	}
};

/** Block (block of tokens, head), D threads: the mean of each channel over `size` tokens (fewer in the last block), [heads, blocks, D]. */
template <class T, int D> KERNEL(D) meansKernel(const T *x, tc_strides strides, int tokens, int size, float *means) {
	const int channel = threadIdx.x, first = blockIdx.x * size, end = first + size < tokens ? first + size : tokens;
	const T *const from = x + blockIdx.y * strides.head + channel;
	float sum = 0;
	for (int token = first; token < end; token++) {
		sum += toFloat(from[token * strides.token]);
	}
	means[(size_t(blockIdx.y) * gridDim.x + blockIdx.x) * D + channel] = sum / float(end - first);
}

/** Block (head), D threads: from the means of blocks that over all tokens, [heads, D]. */
template <int D> KERNEL(D) meanOfMeansKernel(const float *means, int tokens, int size, int blocks, float *mean) {
	const int channel = threadIdx.x;
	float sum = 0;
	for (int block = 0; block < blocks; block++) {
		const int length = block + 1 < blocks ? size : tokens - block * size;
		sum += means[(size_t(blockIdx.x) * blocks + block) * D + channel] * float(length);
	}
	mean[size_t(blockIdx.x) * D + channel] = sum / float(tokens);
}

} // namespace turbocast
