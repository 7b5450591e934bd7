/**
 * TurboDiffusion's 8-bit linear layer: weights and activations in tiles of 128 x 128 with one float32 scale each. The reference below is
 * src/model/w8a8.ts in C++; the kernels give the same bits (products are whole numbers, and every float32 operation is rounded by itself).
 *
 * Versions: 1. a block makes 128 x 128 of the output with 8 warps of 64 x 32, int8 tensor cores, three stages of asynchronous copies; one stage is
 * one K tile, so that all its products share one scale.
 */
#include "references.h"
#include "status.h"

namespace turbocast {

constexpr int TILE = 128;

// ---- Reference ---------------------------------------------------------------------------------------------------------------------------------

void quantizeReference(const float *x, int rows, int columns, int8_t *values, float *scales) {
	const int across = ceilDivide(columns, TILE);
	for (int top = 0; top < rows; top += TILE) {
		for (int left = 0; left < columns; left += TILE) {
			float largest = 1e-8f;
			bool isFinite = true;
			const int bottom = top + TILE < rows ? top + TILE : rows, right = left + TILE < columns ? left + TILE : columns;
			for (int row = top; row < bottom; row++) {
				for (int column = left; column < right; column++) {
					const float magnitude = fabsf(x[size_t(row) * columns + column]);
					isFinite = isFinite && magnitude <= 3.402823466e38f;
					largest = fmaxf(largest, magnitude);
				}
			}
			scales[top / TILE * across + left / TILE] = isFinite ? largest / 128.0f : NAN;
			const float factor = 128.0f / largest;
			for (int row = top; row < bottom; row++) {
				for (int column = left; column < right; column++) {
					const float scaled = roundToEven(x[size_t(row) * columns + column] * factor);
					values[size_t(row) * columns + column] = isFinite ? int8_t(fminf(127.0f, fmaxf(-128.0f, scaled))) : 0;
				}
			}
		}
	}
}

template <class T>
void linearReference(const int8_t *x, const float *xScales, const int8_t *w, const float *wScales, const T *bias, T *y, int rows, int outputs, int inputs) {
	const int across = ceilDivide(inputs, TILE);
	for (int row = 0; row < rows; row++) {
		for (int output = 0; output < outputs; output++) {
			float total = 0;
			for (int tile = 0; tile < across; tile++) {
				int dot = 0;
				for (int input = tile * TILE; input < inputs && input < (tile + 1) * TILE; input++) {
					dot += int(x[size_t(row) * inputs + input]) * int(w[size_t(output) * inputs + input]);
				}
				total += float(dot) * (xScales[row / TILE * across + tile] * wScales[output / TILE * across + tile]);
			}
			T &out = y[size_t(row) * outputs + output];
			out = fromFloat<T>(total);
			if (bias != nullptr) {
				out = fromFloat<T>(toFloat(out) + toFloat(bias[output]));
			}
		}
	}
}

template void linearReference<Half>(const int8_t *, const float *, const int8_t *, const float *, const Half *, Half *, int, int, int);
template void linearReference<Bfloat>(const int8_t *, const float *, const int8_t *, const float *, const Bfloat *, Bfloat *, int, int, int);

// ---- Kernels -----------------------------------------------------------------------------------------------------------------------------------

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int STAGES = 3, STAGE_BYTES = 2 * TILE * TILE;
/** A number of 23 bits with its least one worth 1: small whole numbers added to its bits are added to it. */
constexpr uint32_t MAGIC_BITS = 0x4b400000;

/** Block (column tile, row tile): x [rows, columns] to values and a scale. */
template <class T> KERNEL(THREADS) quantizeKernel(const T *x, int rows, int columns, int8_t *values, float *scales) {
	SHARED_MEMORY(memory);
	float *const largestOf = reinterpret_cast<float *>(memory); // [WARPS]
	const int left = blockIdx.x * TILE, top = blockIdx.y * TILE;
	// Eight elements, 16 bytes, of a row: 16 pieces a row, 16 rows at once.
	const int column = left + int(threadIdx.x % 16) * 8;
	uint32_t words[TILE / 16][4];
	float largest = 1e-8f;
	bool isFinite = true;
	for (int part = 0; part < TILE / 16; part++) {
		const int row = top + part * 16 + int(threadIdx.x / 16);
		for (int word = 0; word < 4; word++) {
			words[part][word] = row < rows && column < columns ? reinterpret_cast<const uint32_t *>(x + size_t(row) * columns + column)[word] : 0;
			const float low = fabsf(unpackLow<T>(words[part][word])), high = fabsf(unpackHigh<T>(words[part][word]));
			isFinite = isFinite && low <= 3.402823466e38f && high <= 3.402823466e38f;
			largest = fmaxf(largest, fmaxf(low, high));
		}
	}
	for (int mask = 16; mask > 0; mask /= 2) {
		largest = fmaxf(largest, shuffleXor(largest, mask));
	}
	if (threadIdx.x % WARP == 0) {
		largestOf[threadIdx.x / WARP] = largest;
	}
	isFinite = barrierCount(!isFinite) == 0;
	for (int warp = 0; warp < WARPS; warp++) {
		largest = fmaxf(largest, largestOf[warp]);
	}
	if (threadIdx.x == 0) {
		scales[blockIdx.y * gridDim.x + blockIdx.x] = isFinite ? divideExactly(largest, 128.0f) : bitsToFloat(0x7fc00000);
	}
	const float factor = divideExactly(128.0f, largest);
	for (int part = 0; part < TILE / 16; part++) {
		const int row = top + part * 16 + int(threadIdx.x / 16);
		if (row >= rows || column >= columns) {
			continue;
		}
		for (int half = 0; half < 2; half++) {
			uint32_t packed = 0;
			for (int index = 0; index < 4; index++) {
				const uint32_t word = words[part][2 * half + index / 2];
				const float value = index % 2 ? unpackHigh<T>(word) : unpackLow<T>(word);
				const float scaled = fminf(127.0f, fmaxf(-128.0f, roundToEven(multiplyExactly(value, factor))));
				packed |= uint32_t(uint8_t(int8_t(isFinite ? int(scaled) : 0))) << (8 * index);
			}
			reinterpret_cast<uint32_t *>(values + size_t(row) * columns + column)[half] = packed;
		}
	}
}

/** Block (output tile, row tile). Shared memory: STAGES times x [128, 128] and w [128, 128], swizzled. */
template <class T>
KERNEL(THREADS) linearKernel(const int8_t *x, const float *xScales, const int8_t *w, const float *wScales, const T *bias, T *y, int rows, int outputs, int inputs) {
	SHARED_MEMORY(memory);
	const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
	const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
	const int warpRow = warp / 4 * 64, warpColumn = warp % 4 * 32;
	const int across = (inputs + TILE - 1) / TILE;

	auto fetch = [&](int tile) {
		if (tile < across) {
			unsigned char *const stage = memory + tile % STAGES * STAGE_BYTES;
			for (int index = thread; index < TILE * 8; index += THREADS) {
				const int row = index / 8, piece = index % 8, input = tile * TILE + piece * 16;
				const bool isInput = input < inputs, isRow = isInput && top + row < rows, isOutput = isInput && left + row < outputs;
				copyAsync(stage + swizzled(row, piece, TILE), isRow ? x + size_t(top + row) * inputs + input : x, isRow);
				copyAsync(stage + TILE * TILE + swizzled(row, piece, TILE), isOutput ? w + size_t(left + row) * inputs + input : w, isOutput);
			}
		}
		copyGroup(); // One for every tile, there or not, so that the count of groups is the count of tiles.
	};

	float sums[4][4][4] = {};
	for (int tile = 0; tile < STAGES - 1; tile++) {
		fetch(tile);
	}
	for (int tile = 0; tile < across; tile++) {
		copyWait<STAGES - 2>();
		BARRIER(); // Everybody's copies are there, and everybody has left the stage that is filled next.
		fetch(tile + STAGES - 1);
		const unsigned char *const xs = memory + tile % STAGES * STAGE_BYTES, *const ws = xs + TILE * TILE;
		int dots[4][4][4];
#pragma unroll
		for (int i = 0; i < 4 * 4 * 4; i++) {
			dots[i / 16][i / 4 % 4][i % 4] = int(MAGIC_BITS);
		}
#pragma unroll
		for (int step = 0; step < TILE / 32; step++) {
			uint32_t a[4][4], b[2][4];
#pragma unroll
			for (int m = 0; m < 4; m++) {
				// Matrices: rows 0-7 and 8-15 of the first 16 bytes, then of the second.
				loadMatrices(a[m], xs + swizzled(warpRow + 16 * m + lane % 16, 2 * step + lane / 16, TILE));
			}
#pragma unroll
			for (int n = 0; n < 2; n++) {
				// Matrices: the two 16-byte halves of outputs 0-7, then of outputs 8-15.
				loadMatrices(b[n], ws + swizzled(warpColumn + 16 * n + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2, TILE));
			}
#pragma unroll
			for (int m = 0; m < 4; m++) {
#pragma unroll
				for (int n = 0; n < 4; n++) {
					multiplyInt8(dots[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
				}
			}
		}
		const float scale = multiplyExactly(xScales[blockIdx.y * across + tile], wScales[blockIdx.x * across + tile]);
#pragma unroll
		for (int i = 0; i < 4 * 4 * 4; i++) {
			const float dot = addExactly(bitsToFloat(uint32_t(dots[i / 16][i / 4 % 4][i % 4])), -bitsToFloat(MAGIC_BITS));
			float &sum = sums[i / 16][i / 4 % 4][i % 4];
			sum = addExactly(sum, multiplyExactly(dot, scale));
		}
	}

#pragma unroll
	for (int m = 0; m < 4; m++) {
#pragma unroll
		for (int n = 0; n < 4; n++) {
			const int column = left + warpColumn + 8 * n + 2 * (lane % 4);
			if (column >= outputs) {
				continue;
			}
			const uint32_t biases = bias == nullptr ? 0 : *reinterpret_cast<const uint32_t *>(bias + column);
			for (int half = 0; half < 2; half++) {
				const int row = top + warpRow + 16 * m + lane / 4 + 8 * half;
				if (row < rows) {
					uint32_t word = pack<T>(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
					if (bias != nullptr) {
						word = pack<T>(addExactly(unpackLow<T>(word), unpackLow<T>(biases)), addExactly(unpackHigh<T>(word), unpackHigh<T>(biases)));
					}
					*reinterpret_cast<uint32_t *>(y + size_t(row) * outputs + column) = word;
				}
			}
		}
	}
}

template <class T> int quantizeAs(const void *x, int rows, int columns, int8_t *values, float *scales, void *stream) {
	return launched(launch(quantizeKernel<T>, dim3(ceilDivide(columns, TILE), ceilDivide(rows, TILE)), THREADS, WARPS * sizeof(float), stream, static_cast<const T *>(x), rows, columns, values, scales));
}

template <class T>
int linearAs(const int8_t *x, const float *xScales, const int8_t *w, const float *wScales, const void *bias, void *y, int rows, int outputs, int inputs, void *stream) {
	return launched(launch(linearKernel<T>, dim3(ceilDivide(outputs, TILE), ceilDivide(rows, TILE)), THREADS, STAGES * STAGE_BYTES, stream,
		x, xScales, w, wScales, static_cast<const T *>(bias), static_cast<T *>(y), rows, outputs, inputs));
}

/** Rows of blocks that a grid may have. */
constexpr int MOST_TILES = 65535;

} // namespace turbocast

using namespace turbocast;

extern "C" int tc_w8a8_quantize(int type, const void *x, int rows, int columns, int8_t *values, float *scales, void *stream) {
	if (x == nullptr || values == nullptr || scales == nullptr || rows <= 0 || columns <= 0) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(type) || columns % 8 != 0 || rows > MOST_TILES * TILE) {
		return TC_UNSUPPORTED;
	}
	if (!isAligned(x) || !isAligned(values)) {
		return TC_MISALIGNED;
	}
	return type == TC_FLOAT16 ? quantizeAs<Half>(x, rows, columns, values, scales, stream) : quantizeAs<Bfloat>(x, rows, columns, values, scales, stream);
}

extern "C" int tc_w8a8_linear(int type, const int8_t *x, const float *xScales, const int8_t *w, const float *wScales, const void *bias, void *y, int rows, int outputs, int inputs, void *stream) {
	if (x == nullptr || xScales == nullptr || w == nullptr || wScales == nullptr || y == nullptr || rows <= 0 || outputs <= 0 || inputs <= 0) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(type) || inputs % 16 != 0 || outputs % 8 != 0 || rows > MOST_TILES * TILE) {
		return TC_UNSUPPORTED;
	}
	if (!isAligned(x) || !isAligned(w) || !isAligned(y) || (bias != nullptr && !isAligned(bias))) {
		return TC_MISALIGNED;
	}
	return type == TC_FLOAT16 ? linearAs<Half>(x, xScales, w, wScales, bias, y, rows, outputs, inputs, stream)
		: linearAs<Bfloat>(x, xScales, w, wScales, bias, y, rows, outputs, inputs, stream);
}
