/** The text encoder (umT5) in plain loops; see reference.ts. */
import type { TextSpec } from '../../model/spec.js';
import type { Weights } from '../../model/weights.js';
import { attention, gelu, linear, map, rmsNorm, sum } from './reference-math.js';

/** T5's buckets, from the description: exact up to a quarter, then logarithmic up to the largest distance, upper half for later keys. */
const bucket = (spec: TextSpec, query: number, key: number): number => {
	const perSide = spec.num_buckets / 2;
	const exact = perSide / 2;
	const distance = Math.abs(key - query);
	const later = key > query ? perSide : 0;
	if (distance < exact) {
		return later + distance;
	}
	// The small number stands for the float32 rounding of the original, which lands exactly on whole buckets.
	const growth = (Math.log(distance / exact) / Math.log(spec.max_dist / exact)) * (perSide - exact) + 1e-6;
	return later + Math.min(perSide - 1, exact + Math.floor(growth));
};

/** Returns `context` [text_len, dim]; rows of padding are zero. */
export const encodeText = (spec: TextSpec, weights: Weights, ids: readonly number[], mask: readonly number[]): Float32Array => {
	const { dim, dim_attn: inner, dim_ffn: hidden, num_heads: heads } = spec;
	const table = weights.floats('token_embedding.weight', [spec.vocab_size, dim]);
	let x: Float64Array = Float64Array.from(ids.flatMap((id) => [...table.subarray(id * dim, (id + 1) * dim)]));
	for (let block = 0; block < spec.num_layers; block++) {
		const weight = (name: string, ...shape: number[]): Float32Array => weights.floats(`blocks.${block}.${name}.weight`, shape);
		const project = (input: Float64Array, name: string, outputs: number, inputs: number): Float64Array => linear(input, weight(name, outputs, inputs), undefined, outputs);
		const positions = weight('pos_embedding.embedding', spec.num_buckets, heads);
		const normal = rmsNorm(x, weight('norm1', dim), spec.eps);
		const attended = attention({
			q: project(normal, 'attn.q', inner, dim), k: project(normal, 'attn.k', inner, dim), v: project(normal, 'attn.v', inner, dim),
			heads, width: inner, scale: 1,
			bias: (head, query, key) => (mask[key] === 1 ? (positions[bucket(spec, query, key) * heads + head] ?? Number.NaN) : -Infinity),
		});
		x = sum(x, project(attended, 'attn.o', dim, inner));
		const second = rmsNorm(x, weight('norm2', dim), spec.eps);
		const gate = project(second, 'ffn.gate.0', hidden, dim);
		const up = project(second, 'ffn.fc1', hidden, dim);
		x = sum(x, project(map(up, (value, index) => value * gelu(gate[index] ?? Number.NaN)), 'ffn.fc2', dim, hidden));
	}
	const normal = rmsNorm(x, weights.floats('norm.weight', [dim]), spec.eps);
	return Float32Array.from(normal, (value, index) => (mask[Math.floor(index / dim)] === 1 ? value : 0));
};
