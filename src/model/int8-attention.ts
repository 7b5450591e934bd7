/**
 * Attention in 8 bits in the manner of SageAttention (Zhang et al. 2024, arXiv 2410.02367): keys less their mean, which softmax does not
 * feel but which takes most of their range; queries and keys with a scale for each block of tokens, values with one for each
 * channel; probabilities with one for each row, so that the largest of a row fills 8 bits. Whole-number products, all else in float32.
 *
 * Operands are unsigned with their zero at 128. Signed ones next to unsigned saturate in the 16-bit sums of processors without
 * VNNI: measured, 181 of 200 products of random bytes were wrong there.
 *
 * Letters in shapes: N heads, L tokens, d = head size, R rows of one piece of work.
 */
import type { GraphBuilder, Value } from './graph-builder.js';
import { absolute, add, concat, divide, maximum, multiply, padEnd, reshape, slice, softmax, split, subtract, sum, transpose } from './operators.js';

export type Int8AttentionShape = {
	/** Tokens that share a scale. */
	readonly blockQueries: number;
	readonly blockKeys: number;
};

/** SageAttention's own blocks. */
export const SAGE_BLOCKS: Int8AttentionShape = { blockQueries: 128, blockKeys: 64 };

const [MAX_INT8, MAX_UINT8, ZERO] = [127, 255, 128];
/** Keeps the scale of a block of zeros above 0. */
const SMALLEST_SCALE = 1e-7;
/** Scores of one piece of work: 8 MB, so that the passes over them find them in the cache. */
const PIECE_ELEMENTS = 2 ** 21;

const zeroPoint = (g: GraphBuilder, name: string, zero: number): Value => g.constant(name, 'uint8', [], Uint8Array.of(zero));

/** x divided by `scale`, to the nearest whole number, plus 128. */
const toBytes = (g: GraphBuilder, name: string, x: Value, scale: Value): Value => g.node({
	op: 'QuantizeLinear', name, inputs: [divide(g, `${name}/divided`, x, scale), g.float(`${name}/one`, 1), zeroPoint(g, `${name}/zero`, ZERO)], type: 'uint8', dims: x.dims,
});

/** Largest magnitude of [N, B, b, d] over the axes given, as a scale. */
const scaleOver = (g: GraphBuilder, name: string, x: Value, axes: readonly number[]): Value => {
	const largest = axes.reduce((value, axis) => maximum(g, `${name}/largest${axis}`, value, axis), absolute(g, `${name}/magnitude`, x));
	return add(g, name, divide(g, `${name}/range`, largest, g.float(`${name}/steps`, MAX_INT8)), g.float(`${name}/least`, SMALLEST_SCALE));
};

/** x [N, L, d] to bytes of the same shape and the scale of each token [N, L], one for a block. */
const quantizeBlocks = (g: GraphBuilder, name: string, x: Value, block: number): { bytes: Value; scales: Value } => {
	const [heads, tokens, d] = x.dims as [number, number, number];
	const blocks = Math.ceil(tokens / block);
	const blocked = reshape(g, `${name}/blocked`, padEnd(g, `${name}/padded`, x, 1, blocks * block), [heads, blocks, block, d]);
	const scale = scaleOver(g, `${name}/scale`, blocked, [3, 2]); // [N, B, 1, 1]
	const bytes = reshape(g, `${name}/flat`, toBytes(g, `${name}/bytes`, blocked, scale), [heads, blocks * block, d]);
	const each = multiply(g, `${name}/scales`, reshape(g, `${name}/scale/flat`, scale, [heads, blocks, 1]), g.floats(`${name}/ones`, [1, 1, block], new Float32Array(block).fill(1)));
	const scales = reshape(g, `${name}/scales/flat`, each, [heads, blocks * block]);
	return { bytes: slice(g, `${name}/kept`, bytes, 1, 0, tokens), scales: slice(g, `${name}/scales/kept`, scales, 1, 0, tokens) };
};

/** a [m, k] times b [k, n] of bytes: whole-number sums, times `scale` and the scale of each column [n]. */
const byteProduct = (g: GraphBuilder, name: string, a: Value, b: Value, options: { scale: number; columnScales: Value; zero: number }): Value => {
	const [rows, inner] = a.dims as [number, number];
	const [same, columns] = b.dims as [number, number];
	if (a.type !== 'uint8' || b.type !== 'uint8' || inner !== same || options.columnScales.dims[0] !== columns) {
		g.fail(name, `[${a.dims.join(', ')}] and [${b.dims.join(', ')}] cannot be multiplied in bytes`);
	}
	return g.node({
		op: 'MatMulIntegerToFloat', domain: 'com.microsoft', name, type: 'float32', dims: [rows, columns],
		inputs: [a, b, g.float(`${name}/scale`, options.scale), options.columnScales, zeroPoint(g, `${name}/a/zero`, options.zero), zeroPoint(g, `${name}/b/zero`, ZERO)],
	});
};

type Head = { readonly k: Value; readonly kScales: Value; readonly v: Value; readonly vScales: Value };

/** q [R, d] in bytes with its scales [R]; k [d, L], v [L, d] in bytes. Returns [R, d]. */
const attendInBytes = (g: GraphBuilder, q: Value, qScales: Value, { k, kScales, v, vScales }: Head): Value => {
	const [rows, d] = q.dims as [number, number];
	const keys = k.dims[1] as number;
	const scores = byteProduct(g, 'qk', q, k, { scale: 1 / Math.sqrt(d), columnScales: kScales, zero: ZERO });
	const shares = softmax(g, 'softmax', multiply(g, 'scores', scores, reshape(g, 'q/scales', qScales, [rows, 1]))); // [R, L]
	const steps = divide(g, 'step', maximum(g, 'largest', shares, 1), g.float('steps', MAX_UINT8)); // [R, 1]
	const bytes = g.node({ op: 'QuantizeLinear', name: 'shares', inputs: [shares, reshape(g, 'step/rows', steps, [rows])], attributes: { axis: { int: 0 } }, type: 'uint8', dims: [rows, keys] });
	return multiply(g, 'out', byteProduct(g, 'pv', bytes, v, { scale: 1, columnScales: vScales, zero: 0 }), steps);
};

/**
 * softmax(q k^T / sqrt(d)) v: q, k, v [N, L, d] to [N, L, d], with as many keys as queries. The work is done in pieces of at most
 * `pieceElements` scores. Throws `model_invalid`.
 */
export const int8Attention = (g: GraphBuilder, inputs: { q: Value; k: Value; v: Value }, shape: Int8AttentionShape = SAGE_BLOCKS, pieceElements = PIECE_ELEMENTS): Value => {
	const [heads, tokens, d] = inputs.q.dims as [number, number, number];
	const mean = divide(g, 'k/mean', sum(g, 'k/sum', inputs.k, 1), g.float('k/tokens', tokens)); // [N, 1, d]
	const q = quantizeBlocks(g, 'q', inputs.q, shape.blockQueries);
	const k = quantizeBlocks(g, 'k', subtract(g, 'k/smooth', inputs.k, mean), shape.blockKeys);
	const vScale = scaleOver(g, 'v/scale', inputs.v, [1]); // [N, 1, d]
	const v = toBytes(g, 'v/bytes', inputs.v, vScale);
	const columns = transpose(g, 'k/columns', k.bytes, [0, 2, 1]); // [N, d, L]

	const perHead = (name: string, x: Value, dims: readonly number[]): Value[] => {
		const parts = heads === 1 ? [x] : split(g, `${name}/heads`, x, 0, new Array<number>(heads).fill(1));
		return parts.map((part, head) => reshape(g, `${name}/head${head}`, part, dims));
	};
	const [qs, qScales] = [perHead('q', q.bytes, [tokens, d]), perHead('q/scales', q.scales, [tokens])];
	const [ks, kScales] = [perHead('k', columns, [d, tokens]), perHead('k/scales', k.scales, [tokens])];
	const [vs, vScales] = [perHead('v', v, [tokens, d]), perHead('v/scales', vScale, [d])];
	const rows = Math.min(tokens, Math.max(1, Math.floor(pieceElements / tokens)));
	const sizes = Array.from({ length: Math.ceil(tokens / rows) }, (_, piece) => Math.min(rows, tokens - piece * rows));
	const outputs = qs.flatMap((headQ, head) => {
		const shared = { k: ks[head] as Value, kScales: kScales[head] as Value, v: vs[head] as Value, vScales: vScales[head] as Value };
		const pieces = (name: string, x: Value): Value[] => (sizes.length === 1 ? [x] : split(g, `${name}/pieces${head}`, x, 0, sizes));
		const scales = pieces('q/scales', qScales[head] as Value);
		return pieces('q', headQ).map((piece, index) => attendInBytes(g.at(`head${head}/piece${index}`), piece, scales[index] as Value, shared));
	});
	const joined = outputs.length === 1 ? outputs[0] as Value : concat(g, 'joined', outputs, 0); // [N * L, d]
	return reshape(g, 'out', joined, [heads, tokens, d]);
};
