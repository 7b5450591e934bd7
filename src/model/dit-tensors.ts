/** Every tensor that a denoiser of given dimensions consists of, under the names of Wan 2.1 and TurboDiffusion, and what a file lacks of them. */
import { TurbocastError } from '../protocol/errors.js';
import { LINEAR_BRANCH } from './linear-branch.js';
import type { DitDimensions } from './spec.js';
import type { Weights } from './weights.js';

type Shapes = { readonly [name: string]: readonly number[] };

const layer = (name: string, outputs: number, inputs: number): Shapes => ({ [`${name}.weight`]: [outputs, inputs], [`${name}.bias`]: [outputs] });

const attentionShapes = (spec: DitDimensions, at: string): Shapes => ({
	...Object.fromEntries(['q', 'k', 'v', 'o'].flatMap((part) => Object.entries(layer(`${at}.${part}`, spec.dim, spec.dim)))),
	...(spec.qk_norm ? { [`${at}.norm_q.weight`]: [spec.dim], [`${at}.norm_k.weight`]: [spec.dim] } : {}),
});

const blockShapes = (spec: DitDimensions, at: string, isSparse: boolean): Shapes => {
	const { dim, ffn_dim: hidden, num_heads: heads } = spec;
	return {
		[`${at}.modulation`]: [1, 6, dim],
		...attentionShapes(spec, `${at}.self_attn`), ...attentionShapes(spec, `${at}.cross_attn`),
		...(isSparse ? layer(`${at}.self_attn.${LINEAR_BRANCH}`, dim / heads, dim / heads) : {}),
		...(spec.cross_attn_norm ? { [`${at}.norm3.weight`]: [dim], [`${at}.norm3.bias`]: [dim] } : {}),
		...layer(`${at}.ffn.0`, hidden, dim), ...layer(`${at}.ffn.2`, dim, hidden),
	};
};

/** Names and shapes; `isSparse` is of checkpoints for sparse-linear attention. The patches are given as Wan's convolution. */
export const ditTensors = (spec: DitDimensions, isSparse: boolean): Shapes => {
	const { dim } = spec;
	const patch = spec.patch_size.reduce((product, side) => product * side, 1);
	return {
		'patch_embedding.weight': [dim, spec.in_dim, ...spec.patch_size], 'patch_embedding.bias': [dim],
		...layer('text_embedding.0', dim, spec.text_dim), ...layer('text_embedding.2', dim, dim),
		...layer('time_embedding.0', dim, spec.freq_dim), ...layer('time_embedding.2', dim, dim), ...layer('time_projection.1', 6 * dim, dim),
		...(spec.control_dim > 0 ? { ...layer('control_embedding.0', dim, spec.control_dim), ...layer('control_embedding.2', dim, dim) } : {}),
		...(spec.pooled_text ? layer('pooled_embedding', dim, spec.text_dim) : {}),
		...(spec.position_grid === undefined ? {} : { position_embedding: [spec.position_grid.reduce((product, side) => product * side, 1), dim] }),
		...Object.fromEntries(Array.from({ length: spec.num_layers }, (_, block) => Object.entries(blockShapes(spec, `blocks.${block}`, isSparse))).flat()),
		...layer('head.head', spec.out_dim * patch, dim), 'head.modulation': [1, 2, dim],
	};
};

const isSame = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((size, axis) => size === b[axis]);

/** A matrix of patches is as good as a convolution of them: [dim, C * pt * ph * pw] for [dim, C, pt, ph, pw]. */
const fits = (name: string, shape: readonly number[], expected: readonly number[]): boolean =>
	isSame(shape, expected)
	|| (name === 'patch_embedding.weight' && isSame(shape, [expected[0] ?? 0, expected.slice(1).reduce((product, size) => product * size, 1)]));

/** Throws `model_invalid` with all tensors that are missing, superfluous or of another shape. */
export const checkDitTensors = (weights: Weights, spec: DitDimensions, isSparse: boolean): void => {
	const expected = ditTensors(spec, isSparse);
	const found = weights.shapes;
	const missing = Object.keys(expected).filter((name) => !found.has(name));
	const extra = [...found.keys()].filter((name) => !Object.hasOwn(expected, name));
	const misshapen = Object.entries(expected).flatMap(([name, shape]) => {
		const actual = found.get(name);
		return actual === undefined || fits(name, actual, shape) ? [] : [`${name} is [${actual.join(', ')}] and not [${shape.join(', ')}]`];
	});
	const complaints = [
		...(missing.length === 0 ? [] : [`missing: ${missing.join(', ')}`]),
		...(extra.length === 0 ? [] : [`not known: ${extra.join(', ')}`]),
		...(misshapen.length === 0 ? [] : [`of another shape: ${misshapen.join(', ')}`]),
	];
	if (complaints.length > 0) {
		const advice = extra.some((name) => name.includes(LINEAR_BRANCH)) ? ' The file was made for sparse-linear attention, the configuration asks for dense.'
			: missing.some((name) => name.includes(LINEAR_BRANCH)) ? ' The configuration asks for sparse-linear attention, which this file was not made for.' : '';
		throw new TurbocastError('model_invalid', `${weights.label} does not hold the network that the configuration describes. ${complaints.join('; ')}.${advice}`);
	}
};
