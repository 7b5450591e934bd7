/**
 * Which tensors a network consists of, and their shapes, from its dimensions: names of the original state dicts. A checkpoint is
 * held against these lists, so that what is missing, too many or of another shape is said before anything is written.
 */
import { taehvLayout, type TaehvSpec } from '../taehv.js';
import { innerWidth, outerWidth, wanVaeLayers, type WanVaePart, type WanVaeSpec } from '../wan-vae-spec.js';

export type Shapes = { [name: string]: readonly number[] };

const biased = (name: string, weight: readonly number[]): Shapes => ({ [`${name}.weight`]: weight, [`${name}.bias`]: [weight[0] ?? 0] });

export type DitDimensions = {
	readonly dim: number;
	readonly ffn_dim: number;
	readonly num_heads: number;
	readonly num_layers: number;
	readonly in_dim: number;
	readonly out_dim: number;
	readonly patch_size: readonly number[];
	readonly freq_dim: number;
	readonly text_dim: number;
};

/** The linear layers of block N that TurboDiffusion's `-quant` files hold in 8 bits. */
export const blockLinears = ({ dim, ffn_dim: hidden }: DitDimensions, block: number): { readonly name: string; readonly outputs: number; readonly inputs: number }[] => [
	...['self_attn', 'cross_attn'].flatMap((attention) => ['q', 'k', 'v', 'o'].map((part) => ({ name: `blocks.${block}.${attention}.${part}`, outputs: dim, inputs: dim }))),
	{ name: `blocks.${block}.ffn.0`, outputs: hidden, inputs: dim },
	{ name: `blocks.${block}.ffn.2`, outputs: dim, inputs: hidden },
];

/** Tiles of TurboDiffusion's 8-bit weights have this many rows and columns. */
export const QUANT_TILE = 128;

/** The Wan DiT; `hasProjection`: TurboDiffusion's `proj_l`; `isQuantized`: its 8-bit linear layers. */
export const ditTensors = (dimensions: DitDimensions, extras: { readonly hasProjection: boolean; readonly isQuantized: boolean }): Shapes => {
	const { dim, in_dim: inputs, out_dim: outputs, patch_size: patch, freq_dim: frequencies, text_dim: text, num_heads: heads } = dimensions;
	const patchSize = patch.reduce((product, size) => product * size, 1);
	const shapes: Shapes = {
		...biased('patch_embedding', [dim, inputs, ...patch]),
		...biased('text_embedding.0', [dim, text]), ...biased('text_embedding.2', [dim, dim]),
		...biased('time_embedding.0', [dim, frequencies]), ...biased('time_embedding.2', [dim, dim]),
		...biased('time_projection.1', [6 * dim, dim]), ...biased('head.head', [patchSize * outputs, dim]), 'head.modulation': [1, 2, dim],
	};
	for (let block = 0; block < dimensions.num_layers; block++) {
		const at = `blocks.${block}`;
		shapes[`${at}.modulation`] = [1, 6, dim];
		Object.assign(shapes, biased(`${at}.norm3`, [dim]));
		for (const attention of ['self_attn', 'cross_attn']) {
			shapes[`${at}.${attention}.norm_q.weight`] = [dim];
			shapes[`${at}.${attention}.norm_k.weight`] = [dim];
		}
		for (const { name, outputs: rows, inputs: columns } of blockLinears(dimensions, block)) {
			Object.assign(shapes, extras.isQuantized
				? { [`${name}.int8_weight`]: [rows, columns], [`${name}.scale`]: [Math.ceil(rows / QUANT_TILE), Math.ceil(columns / QUANT_TILE)], [`${name}.bias`]: [rows] }
				: biased(name, [rows, columns]));
		}
		if (extras.hasProjection) {
			Object.assign(shapes, biased(`${at}.self_attn.attn_op.local_attn.proj_l`, [dim / heads, dim / heads]));
		}
	}
	return shapes;
};

export type TextDimensions = {
	readonly vocab_size: number;
	readonly dim: number;
	readonly dim_attn: number;
	readonly dim_ffn: number;
	readonly num_heads: number;
	readonly num_layers: number;
	readonly num_buckets: number;
};

export const textTensors = (dimensions: TextDimensions): Shapes => {
	const { dim, dim_attn: inner, dim_ffn: hidden } = dimensions;
	const shapes: Shapes = { 'token_embedding.weight': [dimensions.vocab_size, dim], 'norm.weight': [dim] };
	for (let block = 0; block < dimensions.num_layers; block++) {
		const at = `blocks.${block}`;
		Object.assign(shapes, {
			[`${at}.norm1.weight`]: [dim], [`${at}.norm2.weight`]: [dim],
			[`${at}.attn.q.weight`]: [inner, dim], [`${at}.attn.k.weight`]: [inner, dim], [`${at}.attn.v.weight`]: [inner, dim], [`${at}.attn.o.weight`]: [dim, inner],
			[`${at}.ffn.gate.0.weight`]: [hidden, dim], [`${at}.ffn.fc1.weight`]: [hidden, dim], [`${at}.ffn.fc2.weight`]: [dim, hidden],
			[`${at}.pos_embedding.embedding.weight`]: [dimensions.num_buckets, dimensions.num_heads],
		});
	}
	return shapes;
};

const wanVaePart = (spec: WanVaeSpec, part: WanVaePart): Shapes => {
	const norm = (name: string, width: number, dims = 3): Shapes => ({ [`${name}.gamma`]: [width, ...Array.from({ length: dims }, () => 1)] });
	const [start, end] = part === 'encoder' ? [spec.dim, innerWidth(spec)] : [innerWidth(spec), outerWidth(spec)];
	const [inputs, outputs] = part === 'encoder' ? [3, 2 * spec.z_dim] : [spec.z_dim, 3];
	const shapes: Shapes = { ...biased(`${part}.conv1`, [start, inputs, 3, 3, 3]), ...norm(`${part}.head.0`, end), ...biased(`${part}.head.2`, [outputs, end, 3, 3, 3]) };
	for (const layer of wanVaeLayers(spec, part)) {
		const at = layer.name;
		switch (layer.kind) {
			case 'residual':
				Object.assign(shapes, norm(`${at}.residual.0`, layer.inputs), biased(`${at}.residual.2`, [layer.outputs, layer.inputs, 3, 3, 3]));
				Object.assign(shapes, norm(`${at}.residual.3`, layer.outputs), biased(`${at}.residual.6`, [layer.outputs, layer.outputs, 3, 3, 3]));
				Object.assign(shapes, layer.inputs === layer.outputs ? {} : biased(`${at}.shortcut`, [layer.outputs, layer.inputs, 1, 1, 1]));
				break;
			case 'attention':
				Object.assign(shapes, norm(`${at}.norm`, layer.width, 2), biased(`${at}.to_qkv`, [3 * layer.width, layer.width, 1, 1]), biased(`${at}.proj`, [layer.width, layer.width, 1, 1]));
				break;
			case 'resample':
				Object.assign(shapes, biased(`${at}.resample.1`, [layer.outputs, layer.inputs, 3, 3]));
				Object.assign(shapes, layer.isTemporal ? biased(`${at}.time_conv`, [(part === 'decoder' ? 2 : 1) * layer.inputs, layer.inputs, 3, 1, 1]) : {});
				break;
		}
	}
	return shapes;
};

export const wanVaeTensors = (spec: WanVaeSpec): Shapes => ({
	...wanVaePart(spec, 'encoder'), ...biased('conv1', [2 * spec.z_dim, 2 * spec.z_dim, 1, 1, 1]),
	...biased('conv2', [spec.z_dim, spec.z_dim, 1, 1, 1]), ...wanVaePart(spec, 'decoder'),
});

/** The decoder; an encoder that a file may hold as well is of no use here. */
export const taehvTensors = (spec: TaehvSpec): Shapes => {
	const { first, levels, last } = taehvLayout(spec);
	const shapes: Shapes = { ...biased(first, [spec.widths[0] ?? 0, spec.latent_channels, 3, 3]), ...biased(last, [3, spec.widths.at(-1) ?? 0, 3, 3]) };
	for (const { width, nextWidth, grow, blocks, growth, narrow } of levels) {
		for (const block of blocks) {
			Object.assign(shapes, biased(`${block}.conv.0`, [width, 2 * width, 3, 3]), biased(`${block}.conv.2`, [width, width, 3, 3]), biased(`${block}.conv.4`, [width, width, 3, 3]));
		}
		shapes[`${growth}.weight`] = [grow * width, width, 1, 1];
		shapes[`${narrow}.weight`] = [nextWidth, width, 3, 3];
	}
	return shapes;
};
