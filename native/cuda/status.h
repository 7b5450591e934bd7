/** Checks of arguments, and what a launch gave, for the entry points. */
#pragma once
#include "machine.h"
#include "turbocast_cuda.h"

namespace turbocast {

/** Keeps the driver's code for `tc_launch_error`. */
int launched(int driverError);

inline bool isAligned(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
inline bool isType(int type) { return type == TC_FLOAT16 || type == TC_BFLOAT16; }
inline int ceilDivide(int a, int b) { return (a + b - 1) / b; }
inline size_t roundUp(size_t bytes) { return (bytes + 255) / 256 * 256; }

/** Of a tensor [heads, tokens, headDim]: tokens apart by at least a row, everything in whole pieces of 16 bytes. */
inline int checkStrides(const tc_strides &strides, int headDim) {
	if (strides.token < headDim || strides.head < 0) {
		return TC_BAD_ARGUMENT;
	}
	return strides.token % 8 == 0 && strides.head % 8 == 0 ? TC_OK : TC_MISALIGNED;
}

/** Returns the first status that is not TC_OK. */
#define TC_CHECK(expression)                       \
	do {                                           \
		const int checked_status = (expression);   \
		if (checked_status != TC_OK) {             \
			return checked_status;                 \
		}                                          \
	} while (false)

/** Of the tensors of an attention call, and of the `needed` bytes of its workspace. */
template <class Call> int checkTensors(const Call &call, const void *workspace, size_t bytes, size_t needed) {
	if (call.q == nullptr || call.k == nullptr || call.v == nullptr || call.out == nullptr || workspace == nullptr) {
		return TC_BAD_ARGUMENT;
	}
	for (const tc_strides *strides : {&call.q_strides, &call.k_strides, &call.v_strides, &call.out_strides}) {
		TC_CHECK(checkStrides(*strides, call.head_dim));
	}
	if (!isAligned(call.q) || !isAligned(call.k) || !isAligned(call.v) || !isAligned(call.out) || !isAligned(workspace)) {
		return TC_MISALIGNED;
	}
	return bytes < needed ? TC_WORKSPACE_TOO_SMALL : TC_OK;
}

} // namespace turbocast
