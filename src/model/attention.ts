/** Attention over heads, written out: plain products and a softmax run everywhere, and measured as fast as fused operators. */
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Dimension } from './graph.js';
import { add, cast, matMul, multiply, reshape, softmax, transpose, unsqueeze } from './operators.js';

/** [tokens, heads * d] to [heads, tokens, d]; the number of tokens may be symbolic. */
export const splitHeads = (g: GraphBuilder, name: string, x: Value, heads: number): Value => {
	const [tokens, width] = x.dims as [Dimension, number];
	return transpose(g, name, reshape(g, `${name}/heads`, x, [tokens, heads, width / heads]), [1, 0, 2]);
};

/** [heads, tokens, d] to [tokens, heads * d]; the number of tokens may be symbolic. */
export const joinHeads = (g: GraphBuilder, name: string, x: Value): Value => {
	const [heads, tokens, width] = x.dims as [number, Dimension, number];
	return reshape(g, name, transpose(g, `${name}/tokens`, x, [1, 0, 2]), [tokens, heads * width]);
};

/**
 * softmax(q k^T * scale + bias) v. q [heads, tokens, d], k and v [heads, keys, d]; the number of keys may be symbolic.
 * Returns [heads, tokens, d].
 */
export const attention = (g: GraphBuilder, inputs: { q: Value; k: Value; v: Value; scale: number; bias?: Value }): Value => {
	const { q, k, v, scale, bias } = inputs;
	const scores = matMul(g, 'qk', q, transpose(g, 'k^t', k, [0, 2, 1]));
	const scaled = scale === 1 ? scores : multiply(g, 'scaled', scores, g.float('scale', scale));
	return matMul(g, 'pv', softmax(g, 'softmax', bias === undefined ? scaled : add(g, 'biased', scaled, bias)), v);
};

/** In which numbers attention multiplies: `fused float16` leaves softmax and both products to one operator of the library. */
export const ATTENTION_ARITHMETICS = ['float32', 'float16', 'fused float16'] as const;
export type AttentionArithmetic = (typeof ATTENTION_ARITHMETICS)[number];

/** The numbers that keys and values have, those of the past too. */
export const keyType = (arithmetic: AttentionArithmetic): 'float32' | 'float16' => (arithmetic === 'float32' ? 'float32' : 'float16');

const halfQueries = (g: GraphBuilder, q: Value, scale: number): Value => cast(g, 'q/float16', multiply(g, 'q/scaled', q, g.float('scale', scale)), 'float16');

/** q [tokens, heads * d] in float16, scaled; k and v [heads, keys, d] or [keys, heads * d]. Returns float32 [tokens, heads * d]. */
const fusedAttention = (g: GraphBuilder, { q, k, v }: { q: Value; k: Value; v: Value }, heads: number): Value => {
	const mixed = g.node({
		op: 'MultiHeadAttention', domain: 'com.microsoft', name: 'fused', type: 'float16', dims: [1, ...q.dims], attributes: { num_heads: { int: heads }, scale: { float: 1 } },
		inputs: [unsqueeze(g, 'q/tokens', q), unsqueeze(g, 'k/batch', k), unsqueeze(g, 'v/batch', v)],
	});
	return cast(g, 'joined/float32', reshape(g, 'joined', mixed, q.dims), 'float32');
};

/**
 * As `attention` without a bias, with heads joined: q [heads, tokens, d] in float32, k and v in `keyType`; returns float32 [tokens, heads * d]. Queries
 * are scaled before they lose digits, so that no score leaves the range of float16.
 */
export const joinedAttention = (g: GraphBuilder, arithmetic: AttentionArithmetic, inputs: { q: Value; k: Value; v: Value; scale: number }): Value => {
	const { q, k, v, scale } = inputs;
	if (arithmetic === 'float32') {
		return joinHeads(g, 'joined', attention(g, inputs));
	}
	const scaled = halfQueries(g, q, scale);
	if (arithmetic === 'float16') {
		return cast(g, 'joined/float32', joinHeads(g, 'joined', attention(g, { q: scaled, k, v, scale: 1 })), 'float32');
	}
	// Keys and values of another length than the queries' are given per head, [1, heads, keys, d].
	return fusedAttention(g, { q: joinHeads(g, 'q/joined', scaled), k, v }, q.dims[0] as number);
};

/** The same of tokens with their heads side by side: q float32 [tokens, heads * d], k and v [keys, heads * d] in `keyType`. */
export const tokenAttention = (g: GraphBuilder, arithmetic: AttentionArithmetic, inputs: { q: Value; k: Value; v: Value; scale: number }, heads: number): Value => {
	const { q, k, v, scale } = inputs;
	return arithmetic === 'fused float16'
		? fusedAttention(g, { q: halfQueries(g, q, scale), k, v }, heads)
		: joinedAttention(g, arithmetic, { q: splitHeads(g, 'q', q, heads), k: splitHeads(g, 'keys/split', k, heads), v: splitHeads(g, 'values/split', v, heads), scale });
};
