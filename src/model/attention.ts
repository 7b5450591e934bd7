/** Attention over heads, written out: plain products and a softmax run everywhere, and measured as fast as fused operators. */
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Dimension } from './graph.js';
import { add, cast, matMul, multiply, reshape, softmax, transpose, unsqueeze } from './operators.js';

/** [tokens, heads * d] to [heads, tokens, d]. */
export const splitHeads = (g: GraphBuilder, name: string, x: Value, heads: number): Value => {
	const [tokens, width] = x.dims as [number, number];
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

/**
 * As `attention` without a bias, with heads joined: q [heads, tokens, d] in float32, k and v in `keyType`; returns float32 [tokens, heads * d]. Queries
 * are scaled before they lose digits, so that no score leaves the range of float16.
 */
export const joinedAttention = (g: GraphBuilder, arithmetic: AttentionArithmetic, inputs: { q: Value; k: Value; v: Value; scale: number }): Value => {
	const { q, k, v, scale } = inputs;
	if (arithmetic === 'float32') {
		return joinHeads(g, 'joined', attention(g, inputs));
	}
	const scaled = cast(g, 'q/float16', multiply(g, 'q/scaled', q, g.float('scale', scale)), 'float16');
	if (arithmetic === 'float16') {
		return cast(g, 'joined/float32', joinHeads(g, 'joined', attention(g, { q: scaled, k, v, scale: 1 })), 'float32');
	}
	const [heads, tokens, width] = q.dims as [number, number, number];
	// Keys and values of another length than the queries' are given per head, [1, heads, keys, d].
	const mixed = g.node({
		op: 'MultiHeadAttention', domain: 'com.microsoft', name: 'fused', type: 'float16', dims: [1, tokens, heads * width], attributes: { num_heads: { int: heads }, scale: { float: 1 } },
		inputs: [reshape(g, 'q/tokens', joinHeads(g, 'q/joined', scaled), [1, tokens, heads * width]), unsqueeze(g, 'k/batch', k), unsqueeze(g, 'v/batch', v)],
	});
	return cast(g, 'joined/float32', reshape(g, 'joined', mixed, [tokens, heads * width]), 'float32');
};
