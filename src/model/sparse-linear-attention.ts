/**
 * Sparse-linear attention (SLA, as TurboDiffusion runs it): exact attention over the few blocks of keys that score best for a
 * block of queries, plus a linear branch over all keys. The blocks that are not chosen are skipped, not masked: keys and values of
 * the chosen ones are gathered. The branches are in float32 where the original rounds to bfloat16 on the way.
 *
 * Letters in shapes: N heads, L tokens, d = head size; NQ and NK blocks of bq queries and bk keys (the last ones may be shorter),
 * n kept blocks.
 */
import type { GraphBuilder, Value } from './graph-builder.js';
import { add, concat, divide, gather, largest, matMul, multiply, padEnd, reshape, slice, softmax, split, subtract, sum, transpose } from './operators.js';

export type SparseShape = {
	/** Share of the key blocks that a block of queries looks at exactly, above 0 and at most 1. */
	readonly ratio: number;
	/** Queries and keys of a block. The original's differ from GPU to GPU and from training; they change the result. */
	readonly blockQueries: number;
	readonly blockKeys: number;
};

/** Keeps the denominator of the linear branch from 0. */
const LINEAR_EPSILON = 1e-5;
/** Gathered keys of one piece of work, in elements: bounds the memory that long sequences take. */
const PIECE_ELEMENTS = 2 ** 24;

/** Key blocks kept of a sequence. At least one always: rounding down would leave short sequences a softmax over nothing. */
export const keptBlocks = (shape: SparseShape, tokens: number): { kept: number; blocks: number; isRaised: boolean } => {
	const blocks = Math.ceil(tokens / shape.blockKeys);
	const rounded = Math.min(blocks, Math.floor(shape.ratio * blocks));
	return { kept: Math.max(1, rounded), blocks, isRaised: rounded < 1 };
};

/**
 * Of so few kept blocks one is a large part of what attention sees, and the rounding of 8-bit layers before it makes another choice now and then (docs/golden.md has how often).
 */
const FEW_BLOCKS = 8;

/** Whether blocks are chosen, and each choice matters so much that what leads to it must be exact. */
export const isChoiceDelicate = (shape: SparseShape, tokens: number): boolean => {
	const { kept, blocks } = keptBlocks(shape, tokens);
	return kept < blocks && kept < FEW_BLOCKS;
};

/** How many of each block's tokens are there: all, but for the last. */
const blockLengths = (tokens: number, block: number): number[] =>
	Array.from({ length: Math.ceil(tokens / block) }, (_, index) => Math.min(block, tokens - index * block));

/** Means over the blocks: x [N, blocks, block, d], padded with zeros, to [N, blocks, d]. */
const blockMeans = (g: GraphBuilder, name: string, x: Value, lengths: readonly number[]): Value => {
	const [heads, blocks, , d] = x.dims as [number, number, number, number];
	const sums = reshape(g, `${name}/sums`, sum(g, `${name}/sum`, x, 2), [heads, blocks, d]);
	return divide(g, name, sums, g.floats(`${name}/lengths`, [1, blocks, 1], lengths));
};

/** Which key blocks each query block keeps, as rows of the keys [N * NK, bk, d]: int64 [N, NQ, n]. */
const chooseBlocks = (g: GraphBuilder, q: Value, k: Value, tokens: number, kept: number): Value => {
	const [heads, , blockQueries] = q.dims as [number, number, number, number];
	const [, keyBlocks, blockKeys, d] = k.dims as [number, number, number, number];
	const qMeans = blockMeans(g, 'q/mean', q, blockLengths(tokens, blockQueries));
	// Less the mean over all keys: it moves every score of a row alike, but keeps rounding small beside the differences.
	const total = sum(g, 'k/total', sum(g, 'k/totals', k, 2), 1); // [N, 1, 1, d]
	const mean = divide(g, 'k/all', reshape(g, 'k/total/row', total, [heads, 1, d]), g.float('k/tokens', tokens));
	const kMeans = subtract(g, 'k/centred', blockMeans(g, 'k/mean', k, blockLengths(tokens, blockKeys)), mean);
	const scores = matMul(g, 'scores', qMeans, transpose(g, 'k/mean^t', kMeans, [0, 2, 1])); // [N, NQ, NK]
	const firstRows = g.constant('rows/first', 'int64', [heads, 1, 1], BigInt64Array.from({ length: heads }, (_, head) => BigInt(head * keyBlocks)));
	return add(g, 'rows', largest(g, 'chosen', scores, kept), firstRows);
};

/** Softmax attention of each row of q [R, bq, d] over the blocks that its row of `rows` [R, n] names, of k and v [N * NK, bk, d]. */
const attendToBlocks = (g: GraphBuilder, inputs: { q: Value; k: Value; v: Value; rows: Value; hidden: Value | undefined }): Value => {
	const { q, k, v, rows, hidden } = inputs;
	const [count, , d] = q.dims as [number, number, number];
	const keys = (rows.dims[1] as number) * (k.dims[1] as number);
	const chosen = (name: string, x: Value): Value => reshape(g, `${name}/chosen`, gather(g, `${name}/blocks`, x, rows), [count, keys, d]);
	const scores = matMul(g, 'qk', q, transpose(g, 'k^t', chosen('k', k), [0, 2, 1])); // [R, bq, n * bk]
	const seen = hidden === undefined ? scores : add(g, 'seen', scores, reshape(g, 'hidden/keys', gather(g, 'hidden', hidden, rows), [count, 1, keys]));
	return matMul(g, 'pv', softmax(g, 'softmax', seen), chosen('v', v));
};

/** -Infinity for the keys [N * NK, bk] that only fill up the last block; `undefined` when nothing has to be filled up. */
const fillers = (g: GraphBuilder, heads: number, tokens: number, block: number): Value | undefined => {
	const lengths = blockLengths(tokens, block);
	const isWhole = tokens % block === 0;
	return isWhole ? undefined : g.floats('fillers', [heads * lengths.length, block],
		Float32Array.from({ length: heads * lengths.length * block }, (_, index) => (index % block < (lengths[Math.floor(index / block) % lengths.length] ?? 0) ? 0 : -Infinity)));
};

/**
 * The exact branch: q, k, v [N, L, d] to [N, L, d]. `rows` [N, NQ, n] are the chosen blocks; block m of head h is row h * NK + m.
 * The work is done in pieces of at most `pieceElements` gathered keys. Throws `model_invalid`.
 */
export const sparseBranch = (
	g: GraphBuilder, inputs: { q: Value; k: Value; v: Value }, shape: SparseShape, pieceElements = PIECE_ELEMENTS,
): { out: Value; rows: Value } => {
	const [heads, tokens, d] = inputs.q.dims as [number, number, number];
	const { blockQueries, blockKeys } = shape;
	const queryBlocks = Math.ceil(tokens / blockQueries);
	const { kept, blocks: keyBlocks } = keptBlocks(shape, tokens);
	const blocked = (name: string, x: Value, blocks: number, block: number): Value =>
		reshape(g, `${name}/blocked`, padEnd(g, `${name}/padded`, x, 1, blocks * block), [heads, blocks, block, d]);
	const k = blocked('k', inputs.k, keyBlocks, blockKeys);
	const q = blocked('q', inputs.q, queryBlocks, blockQueries);
	const rows = chooseBlocks(g.at('choice'), q, k, tokens, kept);

	const rowCount = heads * queryBlocks;
	const scaled = multiply(g, 'q/scaled', reshape(g, 'q/rows', q, [rowCount, blockQueries, d]), g.float('scale', 1 / Math.sqrt(d)));
	const shared = {
		k: reshape(g, 'k/rows', k, [heads * keyBlocks, blockKeys, d]),
		v: reshape(g, 'v/rows', blocked('v', inputs.v, keyBlocks, blockKeys), [heads * keyBlocks, blockKeys, d]),
		hidden: fillers(g, heads, tokens, blockKeys),
	};
	const flatRows = reshape(g, 'rows', rows, [rowCount, kept]);
	const perPiece = Math.max(1, Math.floor(pieceElements / (kept * blockKeys * d)));
	const sizes = Array.from({ length: Math.ceil(rowCount / perPiece) }, (_, piece) => Math.min(perPiece, rowCount - piece * perPiece));
	const pieces = (name: string, x: Value): Value[] => (sizes.length === 1 ? [x] : split(g, name, x, 0, sizes));
	const rowPieces = pieces('rows/pieces', flatRows);
	const outputs = pieces('q/pieces', scaled).map((piece, index) =>
		attendToBlocks(g.at(`piece${index}`), { ...shared, q: piece, rows: rowPieces[index] as Value }));
	const joined = outputs.length === 1 ? outputs[0] as Value : concat(g, 'joined', outputs, 0); // [N * NQ, bq, d]
	const padded = reshape(g, 'out/padded', joined, [heads, queryBlocks * blockQueries, d]);
	return { out: slice(g, 'out', padded, 1, 0, tokens), rows };
};

/**
 * The linear branch over all keys: q, k, v [N, L, d] to [N, L, d], the features being softmax over channels. `weight` [d, d] and
 * `bias` [d] are `proj_l`, shared by the heads; the weight is folded into the sum over keys: (f(q) S) W^T = f(q) (S W^T).
 */
export const linearBranch = (g: GraphBuilder, inputs: { q: Value; k: Value; v: Value }, proj: { weight: Value; bias: Value }): Value => {
	const [qFeatures, kFeatures] = [softmax(g, 'q/features', inputs.q), softmax(g, 'k/features', inputs.k)];
	const mixed = matMul(g, 'kv', transpose(g, 'k^t', kFeatures, [0, 2, 1]), inputs.v); // [N, d, d]
	const projected = matMul(g, 'kv/projected', mixed, transpose(g, 'proj^t', proj.weight, [1, 0]));
	const total = transpose(g, 'k/total^t', sum(g, 'k/total', kFeatures, 1), [0, 2, 1]); // [N, d, 1]
	const divisor = add(g, 'divisor', matMul(g, 'weights', qFeatures, total), g.float('epsilon', LINEAR_EPSILON)); // [N, L, 1]
	return add(g, 'biased', divide(g, 'mean', matMul(g, 'numerator', qFeatures, projected), divisor), proj.bias);
};

/** Both branches: q, k, v [N, L, d] to [N, L, d]. */
export const sparseLinearAttention = (g: GraphBuilder, inputs: { q: Value; k: Value; v: Value }, shape: SparseShape, proj: { weight: Value; bias: Value }): Value =>
	add(g, 'out', sparseBranch(g.at('sparse'), inputs, shape).out, linearBranch(g.at('linear'), inputs, proj));
