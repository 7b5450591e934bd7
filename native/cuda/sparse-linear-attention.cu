/**
 * Sparse-linear attention as TurboDiffusion runs it: each block of queries looks exactly at the key blocks that score best, and at all keys through a
 * linear branch whose features are softmax over channels. The reference is src/model/sparse-linear-attention.ts in C++.
 *
 * Numbers: blocks are chosen in float32; both branches multiply in 16 bits and add in float32; probabilities, features and the linear branch's sum over keys
 * are rounded to 16 bits (the sum divided by the number of tokens before, so that float16 holds it).
 *
 * Versions: 1. one warp for 16 queries, tiles of 64 keys, two stages of asynchronous copies; the linear branch is added where the exact one ends, while the
 * queries are still in registers.
 */
#include "attention-tiles.h"
#include "references.h"
#include "status.h"
#include <vector>

namespace turbocast {

constexpr float LINEAR_EPSILON = 1e-5f;

/** At least one always: rounding down would leave short sequences a softmax over nothing. */
static int keptBlocks(double ratio, int blocks) {
	const int rounded = int(ratio * blocks);
	return rounded < 1 ? 1 : rounded < blocks ? rounded : blocks;
}

// ---- Reference ---------------------------------------------------------------------------------------------------------------------------------

namespace {

/** Means of the blocks of x [tokens, d]. */
std::vector<double> blockMeans(const float *x, int tokens, int d, int size) {
	const int blocks = ceilDivide(tokens, size);
	std::vector<double> means(size_t(blocks) * d, 0);
	for (int token = 0; token < tokens; token++) {
		const int block = token / size, length = block + 1 < blocks ? size : tokens - block * size;
		for (int channel = 0; channel < d; channel++) {
			means[size_t(block) * d + channel] += double(x[size_t(token) * d + channel]) / length;
		}
	}
	return means;
}

std::vector<double> softmaxOf(const std::vector<double> &x) {
	double largest = x[0], total = 0;
	for (const double value : x) {
		largest = value > largest ? value : largest;
	}
	std::vector<double> shares;
	for (const double value : x) {
		shares.push_back(exp(value - largest));
		total += shares.back();
	}
	for (double &share : shares) {
		share /= total;
	}
	return shares;
}

std::vector<double> rowOf(const float *x, int row, int d) { return std::vector<double>(x + size_t(row) * d, x + size_t(row + 1) * d); }

/** The indices of the largest, ascending; of equal ones the first. */
std::vector<int> largestOf(const std::vector<double> &scores, int count) {
	std::vector<bool> isTaken(scores.size());
	for (int taken = 0; taken < count; taken++) {
		int best = -1;
		for (int index = 0; index < int(scores.size()); index++) {
			best = !isTaken[index] && (best < 0 || scores[index] > scores[best]) ? index : best;
		}
		isTaken[best] = true;
	}
	std::vector<int> indices;
	for (int index = 0; index < int(scores.size()); index++) {
		if (isTaken[index]) {
			indices.push_back(index);
		}
	}
	return indices;
}

} // namespace

void sparseLinearReference(const AttentionSizes &sizes, int blockQueries, int blockKeys, double ratio, const float *q, const float *k, const float *v, const float *weight, const float *bias, float *out, int32_t *chosen) {
	const int tokens = sizes.queries, d = sizes.headDim;
	const int queryBlocks = ceilDivide(tokens, blockQueries), keyBlocks = ceilDivide(tokens, blockKeys), kept = keptBlocks(ratio, keyBlocks);
	for (int head = 0; head < sizes.heads; head++, q += size_t(tokens) * d, k += size_t(tokens) * d, v += size_t(tokens) * d, out += size_t(tokens) * d) {
		const std::vector<double> qMeans = blockMeans(q, tokens, d, blockQueries), mean = blockMeans(k, tokens, d, tokens);
		std::vector<double> kMeans = blockMeans(k, tokens, d, blockKeys);
		for (size_t index = 0; index < kMeans.size(); index++) {
			kMeans[index] -= mean[index % d];
		}
		std::vector<std::vector<int>> blocks;
		for (int block = 0; block < queryBlocks; block++) {
			std::vector<double> scores(keyBlocks, 0);
			for (int other = 0; other < keyBlocks; other++) {
				for (int channel = 0; channel < d; channel++) {
					scores[other] += qMeans[size_t(block) * d + channel] * kMeans[size_t(other) * d + channel];
				}
			}
			blocks.push_back(largestOf(scores, kept));
			for (int index = 0; index < kept; index++) {
				chosen[(size_t(head) * queryBlocks + block) * kept + index] = blocks.back()[index];
			}
		}
		std::vector<double> keySum(d, 0), mixed(size_t(d) * d, 0);
		for (int key = 0; weight != nullptr && key < tokens; key++) {
			const std::vector<double> features = softmaxOf(rowOf(k, key, d));
			for (int i = 0; i < d; i++) {
				keySum[i] += features[i];
				for (int j = 0; j < d; j++) {
					mixed[size_t(i) * d + j] += features[i] * v[size_t(key) * d + j];
				}
			}
		}
		for (int query = 0; query < tokens; query++) {
			std::vector<int> keys;
			std::vector<double> scores;
			for (const int block : blocks[query / blockQueries]) {
				for (int key = block * blockKeys; key < tokens && key < (block + 1) * blockKeys; key++) {
					double score = 0;
					for (int channel = 0; channel < d; channel++) {
						score += double(q[size_t(query) * d + channel]) * k[size_t(key) * d + channel];
					}
					keys.push_back(key);
					scores.push_back(score / sqrt(double(d)));
				}
			}
			const std::vector<double> shares = softmaxOf(scores);
			std::vector<double> sum(d, 0), linear(d, 0);
			for (size_t index = 0; index < keys.size(); index++) {
				for (int channel = 0; channel < d; channel++) {
					sum[channel] += shares[index] * v[size_t(keys[index]) * d + channel];
				}
			}
			if (weight != nullptr) {
				const std::vector<double> features = softmaxOf(rowOf(q, query, d));
				double total = LINEAR_EPSILON;
				for (int i = 0; i < d; i++) {
					total += features[i] * keySum[i];
					for (int j = 0; j < d; j++) {
						linear[j] += features[i] * mixed[size_t(i) * d + j];
					}
				}
				for (int o = 0; o < d; o++) {
					sum[o] += bias[o];
					for (int j = 0; j < d; j++) {
						sum[o] += weight[o * d + j] * linear[j] / total;
					}
				}
			}
			for (int channel = 0; channel < d; channel++) {
				out[size_t(query) * d + channel] = float(sum[channel]);
			}
		}
	}
}

// ---- Kernels -----------------------------------------------------------------------------------------------------------------------------------

constexpr int CHOOSE_THREADS = 128, MIX_THREADS = 128;
/** Blocks of keys that a choice holds in shared memory: two million tokens. */
constexpr int MOST_KEY_BLOCKS = 16384;
/** Parts that the sum over keys is made in. */
constexpr int MOST_PARTS = 16, LEAST_TILES = 4;

/** A number whose order as an unsigned integer is that of the float. */
ON_DEVICE uint32_t ordered(float x) {
	const uint32_t bits = floatToBits(x);
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/** Block (query block, head): the `kept` best key blocks, ascending; of equal ones the first. Shared memory: blocks + D + 2 CHOOSE_THREADS words. */
template <int D> KERNEL(CHOOSE_THREADS) chooseKernel(const float *qMeans, const float *kMeans, const float *kMean, int blocks, int kept, int32_t *chosen) {
	SHARED_MEMORY(memory);
	uint32_t *const scores = reinterpret_cast<uint32_t *>(memory); // [blocks]
	float *const query = reinterpret_cast<float *>(scores + blocks); // [D]
	int *const counts = reinterpret_cast<int *>(query + D); // [2, CHOOSE_THREADS]
	const int thread = threadIdx.x;
	const size_t row = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
	for (int channel = thread; channel < D; channel += CHOOSE_THREADS) {
		query[channel] = qMeans[row * D + channel];
	}
	BARRIER();
	for (int block = thread; block < blocks; block += CHOOSE_THREADS) {
		const float *const key = kMeans + (size_t(blockIdx.y) * blocks + block) * D, *const mean = kMean + size_t(blockIdx.y) * D;
		float score = 0;
		for (int channel = 0; channel < D; channel++) {
			score += query[channel] * (key[channel] - mean[channel]); // Less the mean: it moves all scores alike, but keeps rounding small beside the differences.
		}
		scores[block] = ordered(score);
	}
	BARRIER();
	/** How many scores are at least `least`. */
	auto countFrom = [&](uint32_t least) {
		int count = 0;
		for (int first = 0; first < blocks; first += CHOOSE_THREADS) {
			count += barrierCount(first + thread < blocks && scores[first + thread] >= least);
		}
		return count;
	};
	// The score of the last that is kept, bit by bit from the top.
	uint32_t last = 0;
	for (int bit = 31; bit >= 0; bit--) {
		const uint32_t candidate = last | (1u << bit);
		last = countFrom(candidate) >= kept ? candidate : last;
	}
	const int share = (blocks + CHOOSE_THREADS - 1) / CHOOSE_THREADS, from = thread * share, end = from + share < blocks ? from + share : blocks;
	int above = 0, equal = 0;
	for (int block = from; block < end; block++) {
		above += scores[block] > last;
		equal += scores[block] == last;
	}
	counts[thread] = above;
	counts[CHOOSE_THREADS + thread] = equal;
	BARRIER();
	int aboveBefore = 0, equalBefore = 0, allAbove = 0;
	for (int other = 0; other < CHOOSE_THREADS; other++) {
		aboveBefore += other < thread ? counts[other] : 0;
		equalBefore += other < thread ? counts[CHOOSE_THREADS + other] : 0;
		allAbove += counts[other];
	}
	const int room = kept - allAbove;
	for (int block = from; block < end; block++) {
		const bool isAbove = scores[block] > last, isEqual = scores[block] == last;
		if (isAbove || (isEqual && equalBefore < room)) {
			chosen[row * kept + aboveBefore + (equalBefore < room ? equalBefore : room)] = block;
		}
		aboveBefore += isAbove;
		equalBefore += isEqual;
	}
}

/** Block (part, head): sums over a part of the keys of features times values [D, D] and of features [D]. Shared memory: keys and values [64, D]. */
template <class T, int D>
KERNEL(MIX_THREADS) mixKernel(const T *k, tc_strides kStrides, const T *v, tc_strides vStrides, int tokens, int tilesAPart, float *mixed, float *featureSums) {
	SHARED_MEMORY(memory);
	constexpr int BYTES = D * 2, FEATURES = D / 4 / 16; // of a warp, in sixteens
	unsigned char *const keys = memory, *const values = memory + KEYS * BYTES;
	const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
	const T *const kHead = k + blockIdx.y * kStrides.head, *const vHead = v + blockIdx.y * vStrides.head;
	float sums[FEATURES][D / 8][4] = {};
	float featureSum = 0;
	for (int tile = blockIdx.x * tilesAPart; tile < int(blockIdx.x + 1) * tilesAPart && tile * KEYS < tokens; tile++) {
		BARRIER(); // Everybody has left the tile before.
		fetchTile<BYTES, KEYS>(keys, kHead, kStrides.token * 2, tile * KEYS, tokens, thread, MIX_THREADS);
		fetchTile<BYTES, KEYS>(values, vHead, vStrides.token * 2, tile * KEYS, tokens, thread, MIX_THREADS);
		copyGroup();
		copyWait<0>();
		BARRIER();
		// Features in place of keys: two threads a key.
		const int row = thread / 2, firstPiece = thread % 2 * (D / 16);
		float largest = -INFINITY, total = 0;
		for (int word = 0; word < D / 4; word++) {
			const uint32_t pair = reinterpret_cast<const uint32_t *>(keys + swizzled(row, firstPiece + word / 4, BYTES))[word % 4];
			largest = fmaxf(largest, fmaxf(unpackLow<T>(pair), unpackHigh<T>(pair)));
		}
		largest = fmaxf(largest, shuffleXor(largest, 1));
		for (int word = 0; word < D / 4; word++) {
			const uint32_t pair = reinterpret_cast<const uint32_t *>(keys + swizzled(row, firstPiece + word / 4, BYTES))[word % 4];
			total += exp2Fast((unpackLow<T>(pair) - largest) * LOG2_E) + exp2Fast((unpackHigh<T>(pair) - largest) * LOG2_E);
		}
		total += shuffleXor(total, 1);
		const float share = tile * KEYS + row < tokens ? 1.0f / total : 0.0f;
		for (int word = 0; word < D / 4; word++) {
			uint32_t &pair = reinterpret_cast<uint32_t *>(keys + swizzled(row, firstPiece + word / 4, BYTES))[word % 4];
			pair = pack<T>(exp2Fast((unpackLow<T>(pair) - largest) * LOG2_E) * share, exp2Fast((unpackHigh<T>(pair) - largest) * LOG2_E) * share);
		}
		BARRIER();
		if (thread < D) {
			for (int key = 0; key < KEYS; key++) {
				featureSum += toFloat(reinterpret_cast<const T *>(keys + swizzled(key, thread / 8, BYTES))[thread % 8]);
			}
		}
#pragma unroll
		for (int step = 0; step < KEYS / 16; step++) {
			uint32_t a[FEATURES][4];
#pragma unroll
			for (int m = 0; m < FEATURES; m++) {
				// Matrices: features 0-7 and 8-15 of keys 0-7, then of keys 8-15.
				loadMatricesTransposed(a[m], keys + swizzled(16 * step + lane % 8 + lane / 16 * 8, 2 * (warp * FEATURES + m) + lane / 8 % 2, BYTES));
			}
#pragma unroll
			for (int pair = 0; pair < D / 16; pair++) {
				uint32_t b[4];
				loadRightTransposed(b, values, 16 * step, pair, BYTES, lane);
#pragma unroll
				for (int m = 0; m < FEATURES; m++) {
					multiply16<T>(sums[m][2 * pair], a[m], b[0], b[1]);
					multiply16<T>(sums[m][2 * pair + 1], a[m], b[2], b[3]);
				}
			}
		}
	}
	const size_t part = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
	if (thread < D) {
		featureSums[part * D + thread] = featureSum;
	}
#pragma unroll
	for (int m = 0; m < FEATURES; m++) {
#pragma unroll
		for (int i = 0; i < D / 8 * 4; i++) {
			const int feature = (warp * FEATURES + m) * 16 + lane / 4 + i % 4 / 2 * 8, channel = i / 4 * 8 + 2 * (lane % 4) + i % 2;
			mixed[(part * D + feature) * D + channel] = sums[m][i / 4][i % 4];
		}
	}
}

/** Block (feature, head), D threads: the parts joined, times the projection, divided by the number of tokens. Shared memory: D words. */
template <class T, int D> KERNEL(D) foldKernel(const float *mixed, const float *featureSums, const float *weight, int tokens, int parts, T *folded, float *featureMeans) {
	SHARED_MEMORY(memory);
	float *const row = reinterpret_cast<float *>(memory); // [D]
	const int thread = threadIdx.x, feature = blockIdx.x;
	float sum = 0, features = 0;
	for (int part = 0; part < parts; part++) {
		const size_t index = size_t(blockIdx.y) * parts + part;
		sum += mixed[(index * D + feature) * D + thread];
		features += featureSums[index * D + feature];
	}
	row[thread] = sum / float(tokens);
	BARRIER();
	float projected = 0;
	for (int channel = 0; channel < D; channel++) {
		projected += row[channel] * weight[thread * D + channel];
	}
	folded[(size_t(blockIdx.y) * D + feature) * D + thread] = fromFloat<T>(projected);
	if (thread == 0) {
		featureMeans[size_t(blockIdx.y) * D + feature] = features / float(tokens);
	}
}

/**
 * Block (query block, head), a warp for 16 queries. Shared memory: two stages of keys and values [64, D] each; before them the queries lie there, after them
 * the linear branch's matrix and sums.
 */
template <class T, int D, int WARPS>
KERNEL(WARPS *WARP) sparseKernel(tc_sla call, const int32_t *chosen, int kept, const T *folded, const float *featureMeans) {
	SHARED_MEMORY(memory);
	constexpr int BYTES = D * 2, TILE_BYTES = KEYS * BYTES, THREADS = WARPS * WARP, QUERIES = WARPS * ROWS;
	const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
	const int head = blockIdx.y, firstQuery = blockIdx.x * QUERIES;
	const T *const q = static_cast<const T *>(call.q) + head * call.q_strides.head, *const k = static_cast<const T *>(call.k) + head * call.k_strides.head,
		*const v = static_cast<const T *>(call.v) + head * call.v_strides.head;
	const int32_t *const blocks = chosen + (size_t(head) * gridDim.x + blockIdx.x) * kept;

	uint32_t queries[D / 16][4];
	fetchTile<BYTES, QUERIES>(memory, q, call.q_strides.token * 2, firstQuery, call.tokens, thread, THREADS);
	copyGroup();
	copyWait<0>();
	BARRIER();
#pragma unroll
	for (int step = 0; step < D / 16; step++) {
		loadLeft(queries[step], memory, warp * ROWS, step, BYTES, lane);
	}
	BARRIER();

	const int tilesABlock = call.block_keys / KEYS, tiles = kept * tilesABlock;
	auto firstKey = [&](int tile) { return (blocks[tile / tilesABlock] * tilesABlock + tile % tilesABlock) * KEYS; };
	auto fetch = [&](int tile) {
		if (tile < tiles) {
			unsigned char *const stage = memory + tile % 2 * 2 * TILE_BYTES;
			fetchTile<BYTES, KEYS>(stage, k, call.k_strides.token * 2, firstKey(tile), call.tokens, thread, THREADS);
			fetchTile<BYTES, KEYS>(stage + TILE_BYTES, v, call.v_strides.token * 2, firstKey(tile), call.tokens, thread, THREADS);
		}
		copyGroup();
	};
	const float scale = LOG2_E * rsqrtf(float(D));
	OnlineSoftmax<D> softmax;
	fetch(0);
	for (int tile = 0; tile < tiles; tile++) {
		copyWait<0>();
		BARRIER(); // The tile is there for all, and all have left the one before.
		fetch(tile + 1);
		const unsigned char *const keys = memory + tile % 2 * 2 * TILE_BYTES;
		const int there = call.tokens - firstKey(tile);
		if (there <= 0) {
			continue; // The last block may end before its last tile begins.
		}
		float scores[KEYS / 8][4] = {};
#pragma unroll
		for (int step = 0; step < D / 16; step++) {
#pragma unroll
			for (int pair = 0; pair < KEYS / 16; pair++) {
				uint32_t b[4];
				loadRight(b, keys, 16 * pair, step, BYTES, lane);
				multiply16<T>(scores[2 * pair], queries[step], b[0], b[1]);
				multiply16<T>(scores[2 * pair + 1], queries[step], b[2], b[3]);
			}
		}
#pragma unroll
		for (int i = 0; i < KEYS / 8 * 4; i++) {
			scores[i / 4][i % 4] *= scale;
		}
		softmax.template add<T>(scores, keys + TILE_BYTES, there, lane);
	}
	softmax.finish();

	T *const out = static_cast<T *>(call.out) + head * call.out_strides.head;
	const int row = firstQuery + warp * ROWS + lane / 4;
	float divisor[2] = {1, 1};
	if (folded != nullptr) {
		float *const means = reinterpret_cast<float *>(memory + D * BYTES); // [D]
		copyWait<0>();
		BARRIER();
		fetchTile<BYTES, D>(memory, folded + size_t(head) * D * D, BYTES, 0, D, thread, THREADS);
		copyGroup();
		for (int channel = thread; channel < D; channel += THREADS) {
			means[channel] = featureMeans[size_t(head) * D + channel];
		}
		copyWait<0>();
		BARRIER();
		// Features in place of queries.
#pragma unroll
		for (int half = 0; half < 2; half++) {
			float largest = -INFINITY, total = 0, seen = 0;
#pragma unroll
			for (int i = 0; i < D / 8; i++) {
				const uint32_t pair = queries[i / 2][half + i % 2 * 2];
				largest = fmaxf(largest, fmaxf(unpackLow<T>(pair), unpackHigh<T>(pair)));
			}
			largest = largestOfRow(largest);
#pragma unroll
			for (int i = 0; i < D / 8; i++) {
				const uint32_t pair = queries[i / 2][half + i % 2 * 2];
				total += exp2Fast((unpackLow<T>(pair) - largest) * LOG2_E) + exp2Fast((unpackHigh<T>(pair) - largest) * LOG2_E);
			}
			const float share = 1.0f / sumOfRow(total);
#pragma unroll
			for (int i = 0; i < D / 8; i++) {
				uint32_t &pair = queries[i / 2][half + i % 2 * 2];
				pair = pack<T>(exp2Fast((unpackLow<T>(pair) - largest) * LOG2_E) * share, exp2Fast((unpackHigh<T>(pair) - largest) * LOG2_E) * share);
				const int channel = i / 2 * 16 + i % 2 * 8 + 2 * (lane % 4);
				seen += unpackLow<T>(pair) * means[channel] + unpackHigh<T>(pair) * means[channel + 1];
			}
			divisor[half] = 1.0f / (LINEAR_EPSILON / float(call.tokens) + sumOfRow(seen));
		}
	}
#pragma unroll
	for (int pair = 0; pair < D / 16; pair++) {
		float linear[2][4] = {};
		if (folded != nullptr) {
#pragma unroll
			for (int step = 0; step < D / 16; step++) {
				uint32_t b[4];
				loadRightTransposed(b, memory, 16 * step, pair, BYTES, lane);
				multiply16<T>(linear[0], queries[step], b[0], b[1]);
				multiply16<T>(linear[1], queries[step], b[2], b[3]);
			}
		}
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const int side = i / 2, half = i % 2, channel = 16 * pair + 8 * side + 2 * (lane % 4), token = row + 8 * half;
			if (token < call.tokens) {
				float low = softmax.out[2 * pair + side][2 * half], high = softmax.out[2 * pair + side][2 * half + 1];
				if (folded != nullptr) {
					low += linear[side][2 * half] * divisor[half] + call.proj_bias[channel];
					high += linear[side][2 * half + 1] * divisor[half] + call.proj_bias[channel + 1];
				}
				*reinterpret_cast<uint32_t *>(out + token * call.out_strides.token + channel) = pack<T>(low, high);
			}
		}
	}
}

// ---- Entry points ------------------------------------------------------------------------------------------------------------------------------

namespace {

/** Where everything lies in the workspace, and how much there is of it. */
struct Plan {
	int queryBlocks, keyBlocks, kept, parts, tilesAPart;
	size_t qMeans, kMeans, kMean, chosen, mixed, featureSums, folded, featureMeans, bytes;
};

int planOf(const tc_sla *call, Plan &plan) {
	if (call == nullptr || call->heads <= 0 || call->tokens <= 0 || call->head_dim <= 0 || call->block_queries <= 0 || call->block_keys <= 0 || !(call->ratio > 0 && call->ratio <= 1)) {
		return TC_BAD_ARGUMENT;
	}
	if (!isType(call->type) || (call->head_dim != 64 && call->head_dim != 128) || (call->block_queries != 64 && call->block_queries != 128) || call->block_keys % KEYS != 0
		|| call->heads > 65535 || ceilDivide(call->tokens, call->block_keys) > MOST_KEY_BLOCKS) {
		return TC_UNSUPPORTED;
	}
	const size_t heads = call->heads, d = call->head_dim, word = sizeof(float);
	plan.queryBlocks = ceilDivide(call->tokens, call->block_queries);
	plan.keyBlocks = ceilDivide(call->tokens, call->block_keys);
	plan.kept = keptBlocks(call->ratio, plan.keyBlocks);
	const int tiles = ceilDivide(call->tokens, KEYS), parts = ceilDivide(tiles, LEAST_TILES);
	plan.tilesAPart = ceilDivide(tiles, parts < MOST_PARTS ? parts : MOST_PARTS);
	plan.parts = ceilDivide(tiles, plan.tilesAPart);
	size_t bytes = 0;
	auto place = [&](size_t size) {
		const size_t at = bytes;
		bytes += roundUp(size);
		return at;
	};
	plan.qMeans = place(heads * plan.queryBlocks * d * word);
	plan.kMeans = place(heads * plan.keyBlocks * d * word);
	plan.kMean = place(heads * d * word);
	plan.chosen = place(heads * plan.queryBlocks * plan.kept * sizeof(int32_t));
	plan.mixed = place(heads * plan.parts * d * d * word);
	plan.featureSums = place(heads * plan.parts * d * word);
	plan.folded = place(heads * d * d * 2);
	plan.featureMeans = place(heads * d * word);
	plan.bytes = bytes;
	return TC_OK;
}

template <class T, int D> int runAs(const tc_sla &call, const Plan &plan, unsigned char *workspace, void *stream) {
	auto floats = [&](size_t at) { return reinterpret_cast<float *>(workspace + at); };
	const T *const q = static_cast<const T *>(call.q), *const k = static_cast<const T *>(call.k), *const v = static_cast<const T *>(call.v);
	T *const folded = call.proj_weight == nullptr ? nullptr : reinterpret_cast<T *>(workspace + plan.folded);
	int32_t *const chosen = call.chosen != nullptr ? call.chosen : reinterpret_cast<int32_t *>(workspace + plan.chosen);
	const size_t tileBytes = KEYS * D * 2;
	TC_CHECK(launched(launch(meansKernel<T, D>, dim3(plan.queryBlocks, call.heads), D, 0, stream, q, call.q_strides, call.tokens, call.block_queries, floats(plan.qMeans))));
	TC_CHECK(launched(launch(meansKernel<T, D>, dim3(plan.keyBlocks, call.heads), D, 0, stream, k, call.k_strides, call.tokens, call.block_keys, floats(plan.kMeans))));
	TC_CHECK(launched(launch(meanOfMeansKernel<D>, dim3(call.heads), D, 0, stream, floats(plan.kMeans), call.tokens, call.block_keys, plan.keyBlocks, floats(plan.kMean))));
	TC_CHECK(launched(launch(chooseKernel<D>, dim3(plan.queryBlocks, call.heads), CHOOSE_THREADS, (plan.keyBlocks + D + 2 * CHOOSE_THREADS) * sizeof(float), stream,
		floats(plan.qMeans), floats(plan.kMeans), floats(plan.kMean), plan.keyBlocks, plan.kept, chosen)));
	if (folded != nullptr) {
		TC_CHECK(launched(launch(mixKernel<T, D>, dim3(plan.parts, call.heads), MIX_THREADS, 2 * tileBytes, stream,
			k, call.k_strides, v, call.v_strides, call.tokens, plan.tilesAPart, floats(plan.mixed), floats(plan.featureSums))));
		TC_CHECK(launched(launch(foldKernel<T, D>, dim3(D, call.heads), D, D * sizeof(float), stream,
			floats(plan.mixed), floats(plan.featureSums), call.proj_weight, call.tokens, plan.parts, folded, floats(plan.featureMeans))));
	}
	const dim3 grid(plan.queryBlocks, call.heads);
	return call.block_queries == 128
		? launched(launch(sparseKernel<T, D, 8>, grid, 8 * WARP, 4 * tileBytes, stream, call, chosen, plan.kept, folded, floats(plan.featureMeans)))
		: launched(launch(sparseKernel<T, D, 4>, grid, 4 * WARP, 4 * tileBytes, stream, call, chosen, plan.kept, folded, floats(plan.featureMeans)));
}

} // namespace

} // namespace turbocast

using namespace turbocast;

extern "C" size_t tc_sla_workspace(const tc_sla *call) {
	Plan plan;
	return planOf(call, plan) == TC_OK ? plan.bytes : 0;
}

extern "C" int tc_sla_run(const tc_sla *call, void *workspace, size_t bytes, void *stream) {
	Plan plan;
	TC_CHECK(planOf(call, plan));
	if ((call->proj_weight == nullptr) != (call->proj_bias == nullptr)) {
		return TC_BAD_ARGUMENT;
	}
	TC_CHECK(checkTensors(*call, workspace, bytes, plan.bytes));
	unsigned char *const memory = static_cast<unsigned char *>(workspace);
	if (call->head_dim == 128) {
		return call->type == TC_FLOAT16 ? runAs<Half, 128>(*call, plan, memory, stream) : runAs<Bfloat, 128>(*call, plan, memory, stream);
	}
	return call->type == TC_FLOAT16 ? runAs<Half, 64>(*call, plan, memory, stream) : runAs<Bfloat, 64>(*call, plan, memory, stream);
}
