/** The references: the same numbers in plain loops, for tensors [heads, tokens, head_dim] in one piece. Slow, obvious, and kept. */
#pragma once
#include <cstdint>

namespace turbocast {

void quantizeReference(const float *x, int rows, int columns, int8_t *values, float *scales);
template <class T>
void linearReference(const int8_t *x, const float *xScales, const int8_t *w, const float *wScales, const T *bias, T *y, int rows, int outputs, int inputs);

struct AttentionSizes {
	int heads, queries, keys, headDim;
};

/** `chosen` [heads, query blocks, kept], ascending; `weight` [d, d] and `bias` [d] null for the exact branch alone. */
void sparseLinearReference(const AttentionSizes &sizes, int blockQueries, int blockKeys, double ratio, const float *q, const float *k, const float *v, const float *weight, const float *bias, float *out, int32_t *chosen);

/** Exact attention, and the same with queries and keys in 8 bits. */
void attentionReference(const AttentionSizes &sizes, const float *q, const float *k, const float *v, float *out);
void int8AttentionReference(const AttentionSizes &sizes, const float *q, const float *k, const float *v, float *out);

void normModulateReference(const float *x, const float *scale, const float *shift, float *out, int rows, int dim, int rowsPerTable, float epsilon);
void normRopeReference(float *x, const float *weight, const float *cos, const float *sin, int rows, int heads, int headDim, float epsilon);

} // namespace turbocast
