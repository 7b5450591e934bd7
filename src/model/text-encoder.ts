/** The text encoder (umT5, docs/model-format.md): RMS norms, no biases, no 1/sqrt(d), relative positions in each layer. */
import { attention, joinHeads, splitHeads } from './attention.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { floatLinears, type LinearLayers } from './linear-layers.js';
import { add, gather, geluTanh, multiply, reshape, rmsNorm, subtract, transpose } from './operators.js';
import type { TextSpec } from './spec.js';
import type { Weights } from './weights.js';

/** Added to the scores of padding keys; large enough that exp() of it is 0, small enough not to overflow. */
const MASKED = 1e30;

/**
 * The bucket of a key relative to a query (T5, bidirectional): half of the buckets for keys after the query, in each half one
 * for every distance below a quarter of the buckets, logarithmic ones beyond it up to `maxDistance`.
 */
export const relativeBucket = (keyMinusQuery: number, buckets: number, maxDistance: number): number => {
	const half = Math.floor(buckets / 2);
	const exact = Math.floor(half / 2);
	const distance = Math.abs(keyMinusQuery);
	const side = keyMinusQuery > 0 ? half : 0;
	if (distance < exact) {
		return side + distance;
	}
	// In float32 like the original: log(2) / log(16) * 8 must come out as 2 and not just below it.
	const ratio = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / Math.fround(Math.log(maxDistance / exact)));
	return side + Math.min(half - 1, exact + Math.trunc(Math.fround(ratio * (half - exact))));
};

/** The position bias of a layer, [heads, T, T]; a constant by the time the graph has been loaded. */
const positionBias = (g: GraphBuilder, name: string, spec: TextSpec, table: Value): Value => {
	const { text_len: length, num_heads: heads, num_buckets: buckets, max_dist: maxDistance } = spec;
	const indices = Array.from({ length: length * length }, (_, index) => relativeBucket((index % length) - Math.floor(index / length), buckets, maxDistance));
	const rows = gather(g, `${name}/rows`, table, g.integers(`${name}/buckets`, indices)); // [T * T, heads]
	return transpose(g, name, reshape(g, `${name}/square`, rows, [length, length, heads]), [2, 0, 1]);
};

const encoderBlock = (root: GraphBuilder, spec: TextSpec, weights: Weights, dense: LinearLayers, block: number, x: Value, keyMask: Value): Value => {
	const g = root.at(`blk${block}`);
	const at = `blocks.${block}`;
	const { dim, dim_attn: inner, dim_ffn: hidden, num_heads: heads } = spec;
	const norm = (name: string, value: Value): Value => rmsNorm(g, name, value, weights.value(g, `${at}.${name}.weight`, [dim]), spec.eps);

	const parts = dense(g, norm('norm1', x), ['q', 'k', 'v'].map((part) => ({ name: `${at}.attn.${part}`, outputs: inner, inputs: dim })));
	const [q, k, v] = parts.map((part, index) => splitHeads(g, `heads${index}`, part, heads)) as [Value, Value, Value];
	const position = positionBias(g, 'position', spec, weights.value(g, `${at}.pos_embedding.embedding.weight`, [spec.num_buckets, heads]));
	const attended = joinHeads(g, 'joined', attention(g.at('attn'), { q, k, v, scale: 1, bias: add(g, 'bias', position, keyMask) }));
	const x1 = add(g, 'x1', x, dense(g, attended, [{ name: `${at}.attn.o`, outputs: dim, inputs: inner }])[0] as Value);

	const [gate, up] = dense(g, norm('norm2', x1), ['gate.0', 'fc1'].map((part) => ({ name: `${at}.ffn.${part}`, outputs: hidden, inputs: dim }))) as [Value, Value];
	const gated = multiply(g, 'gated', up, geluTanh(g, 'gelu', gate));
	return add(g, 'x2', x1, dense(g, gated, [{ name: `${at}.ffn.fc2`, outputs: dim, inputs: hidden }])[0] as Value);
};

/** Inputs: `ids` int64 [1, T]; `mask` [1, T], 1 for a token. Output: `context` [T, dim], rows of padding zero. Throws `model_invalid`. */
export const textEncoderGraph = (spec: TextSpec, weights: Weights): Graph => {
	const g = weights.graph('text-encoder');
	const { text_len: length, dim } = spec;
	const ids = reshape(g, 'ids/flat', g.input('ids', 'int64', [1, length]), [length]);
	const mask = g.input('mask', 'float32', [1, length]);
	// 0 for tokens, -1e30 for padding: [1, 1, T] over keys.
	const keyMask = reshape(g, 'mask/keys', multiply(g, 'mask/large', subtract(g, 'mask/less', mask, g.float('one', 1)), g.float('masked', MASKED)), [1, 1, length]);
	const dense = floatLinears(weights, 'no bias');
	let x = weights.rows(g, 'token_embedding.weight', [spec.vocab_size, dim], ids);
	for (let block = 0; block < spec.num_layers; block++) {
		x = encoderBlock(g, spec, weights, dense, block, x, keyMask);
	}
	const normal = rmsNorm(g, 'norm', x, weights.value(g, 'norm.weight', [dim]), spec.eps);
	g.output('context', multiply(g, 'masked_rows', normal, reshape(g, 'mask/rows', mask, [length, 1])));
	return g.finish();
};
