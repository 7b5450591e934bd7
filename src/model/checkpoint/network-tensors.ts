/**
 * Which tensors a network consists of, and their shapes, from its dimensions: names of the original state dicts. A checkpoint is
 * held against these lists (the denoiser's is in dit-tensors.ts), so that what is missing, too many or of another shape is said before anything is written.
 */
import { isTiled } from '../quant-checkpoint.js';
import { taehvLayout, type TaehvSpec } from '../taehv.js';
import { tilesAcross } from '../w8a8.js';
import { innerWidth, outerWidth, wanVaeLayers, type WanVaePart, type WanVaeSpec } from '../wan-vae-spec.js';

export type Shapes = { readonly [name: string]: readonly number[] };

const biased = (name: string, weight: readonly number[]): Shapes => ({ [`${name}.weight`]: weight, [`${name}.bias`]: [weight[0] ?? 0] });

/** The tensors of a denoiser as a `-quant` file has them: bytes and the scales of their tiles for the weights of its blocks. */
export const quantizedTensors = (shapes: Shapes): Shapes =>
	Object.fromEntries(Object.entries(shapes).flatMap(([name, shape]) => {
		const layer = name.replace(/\.weight$/u, '');
		return isTiled(name, shape) ? [[`${layer}.int8_weight`, shape], [`${layer}.scale`, shape.map(tilesAcross)]] : [[name, shape]];
	}));

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
	const shapes: Record<string, readonly number[]> = { 'token_embedding.weight': [dimensions.vocab_size, dim], 'norm.weight': [dim] };
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
	const shapes: Record<string, readonly number[]> = { ...biased(`${part}.conv1`, [start, inputs, 3, 3, 3]), ...norm(`${part}.head.0`, end), ...biased(`${part}.head.2`, [outputs, end, 3, 3, 3]) };
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
	const shapes: Record<string, readonly number[]> = { ...biased(first, [spec.widths[0] ?? 0, spec.latent_channels, 3, 3]), ...biased(last, [3, spec.widths.at(-1) ?? 0, 3, 3]) };
	for (const { width, nextWidth, grow, blocks, growth, narrow } of levels) {
		for (const block of blocks) {
			Object.assign(shapes, biased(`${block}.conv.0`, [width, 2 * width, 3, 3]), biased(`${block}.conv.2`, [width, width, 3, 3]), biased(`${block}.conv.4`, [width, width, 3, 3]));
		}
		shapes[`${growth}.weight`] = [grow * width, width, 1, 1];
		shapes[`${narrow}.weight`] = [nextWidth, width, 3, 3];
	}
	return shapes;
};
