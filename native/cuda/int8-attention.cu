/**
 * Attention with queries and keys in 8 bits, in the manner of SageAttention (Zhang et al. 2024, arXiv 2410.02367): keys less their mean over all tokens, which
 * softmax does not feel but which takes most of their range; a scale for each 128 queries and each 64 keys; whole-number scores. Probabilities and values stay
 * in 16 bits, as on the cards of sm_80 in the original. The number of keys need not be that of the queries.
 *
 * Versions: 1. the tiles of sparse-linear-attention.cu with int8 scores, every tile of keys in turn.
 */
#include "attention-tiles.h"
#include "references.h"
#include "status.h"
#include <vector>

namespace turbocast {

constexpr int BLOCK_QUERIES = 128, BLOCK_KEYS = KEYS;
/** Keeps the scale of a block of zeros above 0. */
constexpr float SMALLEST_SCALE = 1e-7f;

// ---- Reference ---------------------------------------------------------------------------------------------------------------------------------

namespace {

void attend(const AttentionSizes &sizes, const std::vector<double> &q, const std::vector<double> &k, const float *v, float *out) {
	const int d = sizes.headDim;
	for (int query = 0; query < sizes.queries; query++) {
		std::vector<double> shares(sizes.keys);
		double largest = -INFINITY, total = 0;
		for (int key = 0; key < sizes.keys; key++) {
			double score = 0;
			for (int channel = 0; channel < d; channel++) {
				score += q[size_t(query) * d + channel] * k[size_t(key) * d + channel];
			}
			shares[key] = score / sqrt(double(d));
			largest = shares[key] > largest ? shares[key] : largest;
		}
		for (double &share : shares) {
			share = exp(share - largest);
			total += share;
		}
		for (int channel = 0; channel < d; channel++) {
			double sum = 0;
			for (int key = 0; key < sizes.keys; key++) {
				sum += shares[key] * v[size_t(key) * d + channel];
			}
			out[size_t(query) * d + channel] = float(sum / total);
		}
	}
}

/** x [tokens, d] less its mean if asked for, as 8 bits with a scale for each block say it. */
std::vector<double> inInt8(const float *x, int tokens, int d, int block, bool isCentred) {
	std::vector<double> mean(d, 0), result(size_t(tokens) * d);
	for (int token = 0; isCentred && token < tokens; token++) {
		for (int channel = 0; channel < d; channel++) {
			mean[channel] += double(x[size_t(token) * d + channel]) / tokens;
		}
	}
	for (int first = 0; first < tokens; first += block) {
		const size_t from = size_t(first) * d, end = size_t(first + block < tokens ? first + block : tokens) * d;
		double largest = 0;
		for (size_t index = from; index < end; index++) {
			result[index] = x[index] - mean[index % d];
			largest = fmax(largest, fabs(result[index]));
		}
		const double scale = largest / 127 + SMALLEST_SCALE;
		for (size_t index = from; index < end; index++) {
			result[index] = round(result[index] / scale) * scale;
		}
	}
	return result;
}

} // namespace

void attentionReference(const AttentionSizes &sizes, const float *q, const float *k, const float *v, float *out) {
	const size_t queries = size_t(sizes.queries) * sizes.headDim, keys = size_t(sizes.keys) * sizes.headDim;
	for (int head = 0; head < sizes.heads; head++, q += queries, k += keys, v += keys, out += queries) {
		attend(sizes, std::vector<double>(q, q + queries), std::vector<double>(k, k + keys), v, out);
	}
}

void int8AttentionReference(const AttentionSizes &sizes, const float *q, const float *k, const float *v, float *out) {
	const int d = sizes.headDim;
	const size_t queries = size_t(sizes.queries) * d, keys = size_t(sizes.keys) * d;
	for (int head = 0; head < sizes.heads; head++, q += queries, k += keys, v += keys, out += queries) {
		attend(sizes, inInt8(q, sizes.queries, d, BLOCK_QUERIES, false), inInt8(k, sizes.keys, d, BLOCK_KEYS, true), v, out);
	}
}

// ---- Kernels -----------------------------------------------------------------------------------------------------------------------------------

constexpr int QUANTIZE_THREADS = 128, WARPS = BLOCK_QUERIES / ROWS;

/**
 * Block (block of `size` tokens, head): x less `mean` [heads, D] (null for nothing), in 8 bits [heads, padded, D] with a scale [heads, blocks]; zeros from
 * `tokens` on. Shared memory: a word for each warp.
 */
template <class T, int D>
KERNEL(QUANTIZE_THREADS) quantizeBlockKernel(const T *x, tc_strides strides, const float *mean, int tokens, int size, int8_t *values, float *scales) {
	SHARED_MEMORY(memory);
	float *const largestOf = reinterpret_cast<float *>(memory);
	const int thread = threadIdx.x, first = blockIdx.x * size;
	const T *const from = x + blockIdx.y * strides.head;
	const float *const middle = mean == nullptr ? nullptr : mean + size_t(blockIdx.y) * D;
	auto at = [&](int token, int channel) {
		return token < tokens ? toFloat(from[token * strides.token + channel]) - (middle == nullptr ? 0.0f : middle[channel]) : 0.0f;
	};
	float largest = 0;
	for (int index = thread; index < size * D; index += QUANTIZE_THREADS) {
		largest = fmaxf(largest, fabsf(at(first + index / D, index % D)));
	}
	for (int mask = WARP / 2; mask > 0; mask /= 2) {
		largest = fmaxf(largest, shuffleXor(largest, mask));
	}
	if (thread % WARP == 0) {
		largestOf[thread / WARP] = largest;
	}
	BARRIER();
	for (int warp = 0; warp < QUANTIZE_THREADS / WARP; warp++) {
		largest = fmaxf(largest, largestOf[warp]);
	}
	const float scale = largest / 127.0f + SMALLEST_SCALE;
	const size_t block = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
	if (thread == 0) {
		scales[block] = scale;
	}
	for (int index = thread; index < size * D; index += QUANTIZE_THREADS) {
		values[block * size * D + index] = int8_t(fminf(127.0f, fmaxf(-127.0f, roundf(at(first + index / D, index % D) / scale))));
	}
}

/** What the last kernel needs besides the call. */
struct Int8Operands {
	/** [heads, padded, D] and [heads, blocks] of queries, the same of keys. */
	const int8_t *q;
	const float *qScales;
	const int8_t *k;
	const float *kScales;
};

/** Block (128 queries, head), a warp for 16 queries. Shared memory: two stages of keys in 8 bits and values in 16, [64, D] each; before them the queries. */
template <class T, int D> KERNEL(WARPS *WARP) int8Kernel(tc_int8_attention call, Int8Operands operands) {
	SHARED_MEMORY(memory);
	constexpr int KEY_BYTES = KEYS * D, STAGE_BYTES = KEY_BYTES * 3, THREADS = WARPS * WARP;
	const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
	const int head = blockIdx.y, tiles = (call.keys + KEYS - 1) / KEYS, paddedKeys = tiles * KEYS, paddedQueries = gridDim.x * BLOCK_QUERIES;
	const int8_t *const k = operands.k + size_t(head) * paddedKeys * D;
	const T *const v = static_cast<const T *>(call.v) + head * call.v_strides.head;

	uint32_t queries[D / 32][4];
	fetchTile<D, BLOCK_QUERIES>(memory, operands.q + size_t(head) * paddedQueries * D, D, blockIdx.x * BLOCK_QUERIES, paddedQueries, thread, THREADS);
	copyGroup();
	copyWait<0>();
	BARRIER();
#pragma unroll
	for (int step = 0; step < D / 32; step++) {
		loadLeft(queries[step], memory, warp * ROWS, step, D, lane);
	}
	BARRIER();

	auto fetch = [&](int tile) {
		if (tile < tiles) {
			unsigned char *const stage = memory + tile % 2 * STAGE_BYTES;
			fetchTile<D, KEYS>(stage, k, D, tile * KEYS, paddedKeys, thread, THREADS);
			fetchTile<D * 2, KEYS>(stage + KEY_BYTES, v, call.v_strides.token * 2, tile * KEYS, call.keys, thread, THREADS);
		}
		copyGroup();
	};
	const float scale = operands.qScales[head * gridDim.x + blockIdx.x] * LOG2_E * rsqrtf(float(D));
	OnlineSoftmax<D> softmax;
	fetch(0);
	for (int tile = 0; tile < tiles; tile++) {
		copyWait<0>();
		BARRIER(); // The tile is there for all, and all have left the one before.
		fetch(tile + 1);
		const unsigned char *const keys = memory + tile % 2 * STAGE_BYTES;
		int dots[KEYS / 8][4] = {};
#pragma unroll
		for (int step = 0; step < D / 32; step++) {
#pragma unroll
			for (int pair = 0; pair < KEYS / 16; pair++) {
				uint32_t b[4];
				loadRight(b, keys, 16 * pair, step, D, lane);
				multiplyInt8(dots[2 * pair], queries[step], b[0], b[1]);
				multiplyInt8(dots[2 * pair + 1], queries[step], b[2], b[3]);
			}
		}
		const float unit = scale * operands.kScales[size_t(head) * tiles + tile];
		float scores[KEYS / 8][4];
#pragma unroll
		for (int i = 0; i < KEYS / 8 * 4; i++) {
			scores[i / 4][i % 4] = float(dots[i / 4][i % 4]) * unit;
		}
		softmax.template add<T>(scores, keys + KEY_BYTES, call.keys - tile * KEYS, lane);
	}
	softmax.finish();

	T *const out = static_cast<T *>(call.out) + head * call.out_strides.head;
#pragma unroll
	for (int i = 0; i < D / 8 * 2; i++) {
		const int half = i % 2, token = blockIdx.x * BLOCK_QUERIES + warp * ROWS + lane / 4 + 8 * half, channel = i / 2 * 8 + 2 * (lane % 4);
		if (token < call.queries) {
			*reinterpret_cast<uint32_t *>(out + token * call.out_strides.token + channel) = pack<T>(softmax.out[i / 2][2 * half], softmax.out[i / 2][2 * half + 1]);
		}
	}
}

// ---- Entry points ------------------------------------------------------------------------------------------------------------------------------

namespace {

struct Int8Plan {
	int queryBlocks, keyBlocks;
	size_t means, mean, q, qScales, k, kScales, bytes;
};

int planOf(const tc_int8_attention *call, Int8Plan &plan) {
	if (call == nullptr || call->heads <= 0 || call->queries <= 0 || call->keys <= 0 || call->head_dim <= 0) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(call->type) || (call->head_dim != 64 && call->head_dim != 128) || call->heads > 65535) {
		return TC_UNSUPPORTED;
	}
	const size_t heads = call->heads, d = call->head_dim;
	plan.queryBlocks = ceilDivide(call->queries, BLOCK_QUERIES);
	plan.keyBlocks = ceilDivide(call->keys, BLOCK_KEYS);
	size_t bytes = 0;
	auto place = [&](size_t size) {
		const size_t at = bytes;
		bytes += roundUp(size);
		return at;
	};
	plan.means = place(heads * plan.keyBlocks * d * sizeof(float));
	plan.mean = place(heads * d * sizeof(float));
	plan.q = place(heads * plan.queryBlocks * BLOCK_QUERIES * d);
	plan.qScales = place(heads * plan.queryBlocks * sizeof(float));
	plan.k = place(heads * plan.keyBlocks * BLOCK_KEYS * d);
	plan.kScales = place(heads * plan.keyBlocks * sizeof(float));
	plan.bytes = bytes;
	return TC_OK;
}

template <class T, int D> int runAs(const tc_int8_attention &call, const Int8Plan &plan, unsigned char *workspace, void *stream) {
	auto floats = [&](size_t at) { return reinterpret_cast<float *>(workspace + at); };
	int8_t *const q = reinterpret_cast<int8_t *>(workspace + plan.q), *const k = reinterpret_cast<int8_t *>(workspace + plan.k);
	const T *const keys = static_cast<const T *>(call.k);
	const size_t words = QUANTIZE_THREADS / WARP * sizeof(float);
	TC_CHECK(launched(launch(meansKernel<T, D>, dim3(plan.keyBlocks, call.heads), D, 0, stream, keys, call.k_strides, call.keys, BLOCK_KEYS, floats(plan.means))));
	TC_CHECK(launched(launch(meanOfMeansKernel<D>, dim3(call.heads), D, 0, stream, floats(plan.means), call.keys, BLOCK_KEYS, plan.keyBlocks, floats(plan.mean))));
	TC_CHECK(launched(launch(quantizeBlockKernel<T, D>, dim3(plan.queryBlocks, call.heads), QUANTIZE_THREADS, words, stream,
		static_cast<const T *>(call.q), call.q_strides, static_cast<const float *>(nullptr), call.queries, BLOCK_QUERIES, q, floats(plan.qScales))));
	TC_CHECK(launched(launch(quantizeBlockKernel<T, D>, dim3(plan.keyBlocks, call.heads), QUANTIZE_THREADS, words, stream,
		keys, call.k_strides, static_cast<const float *>(floats(plan.mean)), call.keys, BLOCK_KEYS, k, floats(plan.kScales))));
	return launched(launch(int8Kernel<T, D>, dim3(plan.queryBlocks, call.heads), WARPS * WARP, 2 * 3 * KEYS * D, stream, call, Int8Operands{q, floats(plan.qScales), k, floats(plan.kScales)}));
}

} // namespace

} // namespace turbocast

using namespace turbocast;

extern "C" size_t tc_int8_attention_workspace(const tc_int8_attention *call) {
	Int8Plan plan;
	return planOf(call, plan) == TC_OK ? plan.bytes : 0;
}

extern "C" int tc_int8_attention_run(const tc_int8_attention *call, void *workspace, size_t bytes, void *stream) {
	Int8Plan plan;
	TC_CHECK(planOf(call, plan));
	TC_CHECK(checkTensors(*call, workspace, bytes, plan.bytes));
	unsigned char *const memory = static_cast<unsigned char *>(workspace);
	if (call->head_dim == 128) {
		return call->type == TC_FLOAT16 ? runAs<Half, 128>(*call, plan, memory, stream) : runAs<Bfloat, 128>(*call, plan, memory, stream);
	}
	return call->type == TC_FLOAT16 ? runAs<Half, 64>(*call, plan, memory, stream) : runAs<Bfloat, 64>(*call, plan, memory, stream);
}
