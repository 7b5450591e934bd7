/**
 * What the kernels need of a machine, twice: a graphics card (compiled by nvcc), and a sequential emulation of its blocks, warps and
 * threads (compiled by a C++ compiler), so that index arithmetic, layouts, tails and barriers are proven where there is no card.
 *
 * In the emulation every thread of a block is a fibre. A barrier and every operation of a warp (shuffles, matrix products) waits for
 * those who take part. `Emulation` chooses the order in which fibres run and when asynchronous copies arrive: a kernel that forgets a
 * barrier or a wait gives other numbers in another order.
 *
 * Layouts of fragments are those of the PTX ISA, sections "Matrix fragments for mma.m16n8k16 / m16n8k32" and "ldmatrix".
 */
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define ON_BOTH __host__ __device__ __forceinline__
#define ON_DEVICE __device__ __forceinline__
#define KERNEL(threads) __global__ void __launch_bounds__(threads)
#else
#include "emulation.h"
#define ON_BOTH inline
#define ON_DEVICE inline
#define KERNEL(threads) void
#endif

namespace turbocast {

constexpr int WARP = 32;

ON_BOTH float bitsToFloat(uint32_t bits) {
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

ON_BOTH uint32_t floatToBits(float value) {
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

/** IEEE 754 binary16, as bits. */
struct Half {
	uint16_t bits;
};
/** bfloat16, as bits. */
struct Bfloat {
	uint16_t bits;
};

ON_BOTH float toFloat(Bfloat x) { return bitsToFloat(uint32_t(x.bits) << 16); }

ON_BOTH float toFloat(Half x) {
#ifdef __CUDA_ARCH__
	return __half2float(__ushort_as_half(x.bits));
#else
	const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, exponent = (x.bits >> 10) & 31, fraction = x.bits & 0x3ff;
	if (exponent == 31) {
		return bitsToFloat(sign | 0x7f800000 | (fraction << 13));
	}
	if (exponent == 0) {
		const float value = float(fraction) * bitsToFloat(0x33800000); // 2^-24
		return sign ? -value : value;
	}
	return bitsToFloat(sign | ((exponent + 112) << 23) | (fraction << 13));
#endif
}

template <class T> ON_BOTH T fromFloat(float value);

/** To the nearest, ties to even. */
template <> ON_BOTH Bfloat fromFloat<Bfloat>(float value) {
	const uint32_t bits = floatToBits(value);
	if ((bits & 0x7fffffff) > 0x7f800000) {
		return {uint16_t((bits >> 16) | 0x40)};
	}
	return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

template <> ON_BOTH Half fromFloat<Half>(float value) {
#ifdef __CUDA_ARCH__
	return {__half_as_ushort(__float2half_rn(value))};
#else
	const uint32_t bits = floatToBits(value), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000) {
		return {uint16_t(sign | 0x7e00)};
	}
	if (magnitude >= 0x47800000) { // 65536 and more; from 65520 on it rounds there below
		return {uint16_t(sign | 0x7c00)};
	}
	if (magnitude < 0x38800000) { // below 2^-14: whole multiples of 2^-24
		return {uint16_t(sign | uint32_t(nearbyintf(bitsToFloat(magnitude) * 16777216.0f)))};
	}
	return {uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13))};
#endif
}

template <class T> ON_BOTH uint32_t pack(float low, float high) {
	return uint32_t(fromFloat<T>(low).bits) | (uint32_t(fromFloat<T>(high).bits) << 16);
}

template <class T> ON_BOTH float unpackLow(uint32_t word) { return toFloat(T{uint16_t(word)}); }
template <class T> ON_BOTH float unpackHigh(uint32_t word) { return toFloat(T{uint16_t(word >> 16)}); }

/** Product, sum and quotient each rounded by itself: never joined into one operation, never approximate. */
ON_BOTH float multiplyExactly(float a, float b) {
#ifdef __CUDA_ARCH__
	return __fmul_rn(a, b);
#else
	return a * b;
#endif
}
ON_BOTH float addExactly(float a, float b) {
#ifdef __CUDA_ARCH__
	return __fadd_rn(a, b);
#else
	return a + b;
#endif
}
ON_BOTH float divideExactly(float a, float b) {
#ifdef __CUDA_ARCH__
	return __fdiv_rn(a, b);
#else
	return a / b;
#endif
}
/** To the nearest whole number, ties to even. */
ON_BOTH float roundToEven(float x) { return rintf(x); }

/** XOR of 16-byte pieces by row: eight rows that `ldmatrix` reads at once lie in different banks. Byte offset in a tile of `rowBytes`: 64, 128 or 256. */
ON_BOTH int swizzled(int row, int piece, int rowBytes) { return row * rowBytes + ((piece ^ (rowBytes >= 128 ? row & 7 : row / 2 & 3)) << 4); }

#ifdef __CUDACC__

#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#define BARRIER() __syncthreads()

ON_DEVICE float exp2Fast(float x) { return exp2f(x); }
ON_DEVICE float shuffleXor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
ON_DEVICE int barrierCount(bool counts) { return __syncthreads_count(counts); }

ON_DEVICE uint32_t sharedAddress(const void *pointer) { return uint32_t(__cvta_generic_to_shared(pointer)); }

/** 16 bytes from global to shared memory, or zeros. Both are aligned to 16 bytes. */
ON_DEVICE void copyAsync(void *to, const void *from, bool isThere) {
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(sharedAddress(to)), "l"(from), "r"(isThere ? 16 : 0));
}
ON_DEVICE void copyGroup() { asm volatile("cp.async.commit_group;\n" ::); }
/** All groups but the newest `Left` have arrived, as far as this thread issued them. */
template <int Left> ON_DEVICE void copyWait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(Left)); }

/** Four 8 x 8 matrices of 16-bit elements; lanes 8 i to 8 i + 7 name the rows of matrix i. */
ON_DEVICE void loadMatrices(uint32_t (&to)[4], const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(sharedAddress(row)));
}
ON_DEVICE void loadMatricesTransposed(uint32_t (&to)[4], const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(sharedAddress(row)));
}

/** c += a b, 16 x 8 x 32 of int8 into int32. */
ON_DEVICE void multiplyInt8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
		: "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/** c += a b, 16 x 8 x 16 of 16-bit floats into float32. */
template <class T> ON_DEVICE void multiply16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> ON_DEVICE void multiply16<Half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> ON_DEVICE void multiply16<Bfloat>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
		: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/** Starts the kernel; what the driver says of it, 0 for nothing. */
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t sharedBytes, void *stream, Arguments... arguments) {
	if (sharedBytes > 48 * 1024) {
		const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(sharedBytes));
		if (error != cudaSuccess) {
			cudaGetLastError();
			return int(error);
		}
	}
	kernel<<<grid, threads, sharedBytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
	return int(cudaGetLastError());
}

#else

#define SHARED_MEMORY(name) unsigned char *const name = emulation::sharedMemory()
#define BARRIER() emulation::barrier()

inline float exp2Fast(float x) { return exp2f(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float shuffleXor(float value, int mask) {
	uint32_t bits = floatToBits(value);
	return bitsToFloat(emulation::shuffle(bits, mask));
}
inline int barrierCount(bool counts) { return emulation::barrierCount(counts); }
inline void copyAsync(void *to, const void *from, bool isThere) { emulation::copyAsync(to, from, isThere); }
inline void copyGroup() { emulation::copyGroup(); }
template <int Left> inline void copyWait() { emulation::copyWait(Left); }

namespace {

inline void loadMatricesAs(uint32_t (&to)[4], const void *row, bool isTransposed) {
	const void *rows[WARP];
	emulation::exchange(row, rows);
	const int lane = emulation::lane();
	for (int matrix = 0; matrix < 4; matrix++) {
		uint16_t pair[2];
		for (int half = 0; half < 2; half++) {
			const int line = isTransposed ? 2 * (lane % 4) + half : lane / 4, column = isTransposed ? lane / 4 : 2 * (lane % 4) + half;
			memcpy(&pair[half], static_cast<const uint16_t *>(rows[8 * matrix + line]) + column, 2);
		}
		to[matrix] = uint32_t(pair[0]) | (uint32_t(pair[1]) << 16);
	}
	emulation::warpBarrier(); // Nobody writes there before all have read.
}

/** Fragments of all lanes of a warp. */
struct Operands {
	uint32_t a[4], b[2];
};

inline int8_t byteOf(uint32_t word, int index) { return int8_t(word >> (8 * index)); }

} // namespace

inline void loadMatrices(uint32_t (&to)[4], const void *row) { loadMatricesAs(to, row, false); }
inline void loadMatricesTransposed(uint32_t (&to)[4], const void *row) { loadMatricesAs(to, row, true); }

inline void multiplyInt8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	Operands all[WARP];
	emulation::exchange(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, all);
	const int lane = emulation::lane();
	for (int element = 0; element < 4; element++) {
		const int row = lane / 4 + 8 * (element / 2), column = 2 * (lane % 4) + element % 2;
		for (int k = 0; k < 32; k++) {
			const int8_t left = byteOf(all[4 * (row % 8) + (k % 16) / 4].a[row / 8 + 2 * (k / 16)], k % 4);
			const int8_t right = byteOf(all[4 * column + (k % 16) / 4].b[k / 16], k % 4);
			c[element] += int(left) * int(right);
		}
	}
}

template <class T> inline void multiply16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
	Operands all[WARP];
	emulation::exchange(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, all);
	const int lane = emulation::lane();
	for (int element = 0; element < 4; element++) {
		const int row = lane / 4 + 8 * (element / 2), column = 2 * (lane % 4) + element % 2;
		float sum = 0;
		for (int k = 0; k < 16; k++) {
			const uint32_t left = all[4 * (row % 8) + (k % 8) / 2].a[row / 8 + 2 * (k / 8)], right = all[4 * column + (k % 8) / 2].b[k / 8];
			sum += (k % 2 ? unpackHigh<T>(left) : unpackLow<T>(left)) * (k % 2 ? unpackHigh<T>(right) : unpackLow<T>(right));
		}
		c[element] += sum;
	}
}

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t sharedBytes, void *, Arguments... arguments) {
	return emulation::run(grid, threads, sharedBytes, [&] { kernel(arguments...); });
}

#endif

} // namespace turbocast
