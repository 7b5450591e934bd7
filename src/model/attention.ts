/** Attention over heads, written out: plain products and a softmax run everywhere, and measured as fast as fused operators. */
import type { GraphBuilder, Value } from './graph-builder.js';
import { add, matMul, multiply, reshape, softmax, transpose } from './operators.js';

/** [tokens, heads * d] to [heads, tokens, d]. */
export const splitHeads = (g: GraphBuilder, name: string, x: Value, heads: number): Value => {
	const [tokens, width] = x.dims as [number, number];
	return transpose(g, name, reshape(g, `${name}/heads`, x, [tokens, heads, width / heads]), [1, 0, 2]);
};

/** [heads, tokens, d] to [tokens, heads * d]. */
export const joinHeads = (g: GraphBuilder, name: string, x: Value): Value => {
	const [heads, tokens, width] = x.dims as [number, number, number];
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
