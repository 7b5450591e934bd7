/**
 * The library's C interface. Every function that computes takes a stream (`cudaStream_t`, null for the default one), queues its work there and returns at
 * once; nothing allocates, waits or keeps state, so calls on different streams may come from different threads. Pointers are of the device unless they say
 * otherwise, aligned to 16 bytes. Nothing is queued when a status other than TC_OK is returned, but after TC_LAUNCH_FAILED.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Grows with every change of a signature or of what a function computes. */
#define TC_VERSION 2

enum {
	TC_OK = 0,
	/** A pointer is null, a size is not positive or a stride too small. */
	TC_BAD_ARGUMENT = 1,
	/** The sizes are valid and no kernel takes them: each function says which it takes. */
	TC_UNSUPPORTED = 2,
	TC_MISALIGNED = 3,
	/** The workspace is smaller than the function that says its size says. */
	TC_WORKSPACE_TOO_SMALL = 4,
	/** The driver refused a kernel; `tc_launch_error` has its code. */
	TC_LAUNCH_FAILED = 5,
};

/** Numbers of inputs and outputs; float32 only where a function says so. */
enum { TC_FLOAT16 = 0, TC_BFLOAT16 = 1, TC_FLOAT32 = 2 };

int tc_version(void);
/** Of ONNX Runtime, for which operators.cpp was compiled: CUDAExecutionProvider, or CPUExecutionProvider for the emulation. */
const char *tc_provider(void);
/** A sentence in English; of the program's lifetime. */
const char *tc_status_text(int status);
/** `cudaError_t` of this thread's last TC_LAUNCH_FAILED. */
int tc_launch_error(void);

/** Times what lies between two points of a stream. `tc_timer_stop` waits for the stream and frees the timer. */
int tc_timer_start(void **timer, void *stream);
int tc_timer_stop(void *timer, void *stream, float *milliseconds);

/**
 * W8A8 linear layers: tiles of 128 x 128, whole-number products, float32 sums (w8a8-linear.cu). `inputs` is a multiple of 16, `outputs` of 8.
 * Quantising: x [rows, columns] in `type` to values [rows, columns] and scales [ceil(rows / 128), ceil(columns / 128)]; columns is a multiple of 8. A tile with an
 * element that is not finite gets the scale NaN.
 */
int tc_w8a8_quantize(int type, const void *x, int rows, int columns, int8_t *values, float *scales, void *stream);
/** y [rows, outputs] in `type` = x [rows, inputs] w^T [outputs, inputs] + bias [outputs] (may be null), bias added after y is rounded. */
int tc_w8a8_linear(int type, const int8_t *x, const float *x_scales, const int8_t *w, const float *w_scales, const void *bias, void *y, int rows, int outputs, int inputs, void *stream);

/** Where head h and token t of a tensor [heads, tokens, head_dim] lie: element h * head + t * token. Both multiples of 8. */
typedef struct {
	int64_t head, token;
} tc_strides;

/**
 * Sparse-linear attention (sparse-linear-attention.cu). q, k, v, out [heads, tokens, head_dim] in `type`, with strides; head_dim 64 or 128, block_queries 64 or
 * 128, block_keys a multiple of 64. `ratio` of the key blocks, rounded down and at least one, is attended to exactly. proj_weight [head_dim, head_dim] and
 * proj_bias [head_dim] in float32 are those of the linear branch; without it both are null. chosen [heads, query blocks, kept] int32 (may be null) receives the
 * blocks, ascending.
 */
typedef struct {
	int type, heads, tokens, head_dim, block_queries, block_keys;
	double ratio;
	tc_strides q_strides, k_strides, v_strides, out_strides;
	const void *q, *k, *v;
	const float *proj_weight, *proj_bias;
	void *out;
	int32_t *chosen;
} tc_sla;
/** Bytes of workspace; 0 where the call would be refused. */
size_t tc_sla_workspace(const tc_sla *call);
int tc_sla_run(const tc_sla *call, void *workspace, size_t workspace_bytes, void *stream);

/**
 * Attention with queries and keys in 8 bits (int8-attention.cu). q, out [heads, queries, head_dim], k, v [heads, keys, head_dim] in `type`, with strides; head_dim 64 or 128.
 */
typedef struct {
	int type, heads, queries, keys, head_dim;
	tc_strides q_strides, k_strides, v_strides, out_strides;
	const void *q, *k, *v;
	void *out;
} tc_int8_attention;
size_t tc_int8_attention_workspace(const tc_int8_attention *call);
int tc_int8_attention_run(const tc_int8_attention *call, void *workspace, size_t workspace_bytes, void *stream);

/**
 * out [rows, dim] = LayerNorm(x [rows, dim]) * (1 + scale) + shift, with scale and shift [rows / rows_per_table, dim] float32 (norm-modulate.cu). dim is a multiple
 * of 8; `out_type` is 16 bits, `x_type` the same or float32.
 */
int tc_norm_modulate(int x_type, int out_type, const void *x, const float *scale, const float *shift, void *out, int rows, int dim, int rows_per_table, float epsilon, void *stream);
/** x [rows, heads * head_dim] in `type`, in place: RMS norm over the whole row with weight [heads * head_dim] float32 (null for none), then each pair (2 j, 2 j + 1) of a head turned by cos, sin [rows, head_dim / 2]. */
int tc_norm_rope(int type, void *x, const float *weight, const float *cos, const float *sin, int rows, int heads, int head_dim, float epsilon, void *stream);

#ifdef __cplusplus
}
#endif
