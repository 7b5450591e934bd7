/** The dimensions of a network from the shapes of its tensors, under their original names. */
import { TurbocastError } from '../../protocol/errors.js';
import { parseTaehvSpec, taehvLayout, type TaehvSpec } from '../taehv.js';
import { parseWanVaeSpec, WAN_LATENT_MEAN, WAN_LATENT_STD, type WanVaeSpec } from '../wan-vae-spec.js';
import { LINEAR_BRANCH } from '../linear-branch.js';
import type { DitDimensions } from '../spec.js';
import type { TextDimensions } from './network-tensors.js';

export type ShapesByName = ReadonlyMap<string, readonly number[]>;

/** Wan's own, at every size; the weights do not tell it. */
export const WAN_HEAD_DIM = 128;
/** Tokens of a prompt; this and what follows is the same in every published Wan, and the weights do not tell it either. */
export const WAN_TEXT_LENGTH = 512;
const WAN_CONSTANTS = { text_len: WAN_TEXT_LENGTH, eps: 1e-6, rope_theta: 10_000, control_dim: 0, pooled_text: false } as const;
const PATCH = [1, 2, 2] as const;
const PATCH_SIZE = 4;
const MAX_LAYERS = 1024;

const dimensionOf = (shapes: ShapesByName, name: string, axis: number): number =>
	shapes.get(name)?.[axis] ?? refuse(`the tensor ${name}, which tells the dimensions, is missing or has too few axes`);

const refuse = (sentence: string): never => {
	throw new TurbocastError('model_invalid', `The checkpoint cannot be imported: ${sentence}.`);
};

const layersOf = (shapes: ShapesByName): number => {
	const numbers = [...shapes.keys()].map((name) => Number(/^blocks\.(\d{1,6})\./u.exec(name)?.[1] ?? -1));
	const layers = 1 + numbers.reduce((largest, number) => Math.max(largest, number), -1);
	return layers > MAX_LAYERS ? refuse(`it has a block ${layers - 1}; more than ${MAX_LAYERS} blocks are not read`) : layers;
};

export type DitFacts = { readonly dimensions: DitDimensions; readonly isSparse: boolean; readonly isQuantized: boolean };

/** `headDim`: what the caller says of the width of a head; otherwise that of `proj_l`, or Wan's. */
export const ditDimensions = (shapes: ShapesByName, headDim?: number): DitFacts => {
	const dim = dimensionOf(shapes, 'text_embedding.0.weight', 0);
	const projection = shapes.get(`blocks.0.self_attn.${LINEAR_BRANCH}.weight`);
	const head = projection?.[0] ?? headDim ?? WAN_HEAD_DIM;
	if (headDim !== undefined && headDim !== head) {
		refuse(`its proj_l is made for heads of ${head} channels, not ${headDim}`);
	}
	if (dim % head !== 0) {
		refuse(`${dim} channels do not divide into heads of ${head}; say --head-dim N`);
	}
	const isQuantized = shapes.has('blocks.0.ffn.0.int8_weight');
	const names = [...shapes.keys()];
	const patch = shapes.get('patch_embedding.weight') ?? [];
	const inputs = dimensionOf(shapes, 'patch_embedding.weight', 1);
	const dimensions = {
		dim, num_heads: dim / head, num_layers: layersOf(shapes),
		ffn_dim: dimensionOf(shapes, `blocks.0.ffn.0.${isQuantized ? 'int8_weight' : 'weight'}`, 0),
		// TurboDiffusion's patch embedding is a matrix over (channel, row, column), the same numbers in the same order.
		in_dim: patch.length === 2 ? inputs / PATCH_SIZE : inputs,
		out_dim: dimensionOf(shapes, 'head.head.weight', 0) / PATCH_SIZE,
		patch_size: [...(patch.length === 5 ? patch.slice(2) : PATCH)],
		freq_dim: dimensionOf(shapes, 'time_embedding.0.weight', 1), text_dim: dimensionOf(shapes, 'text_embedding.0.weight', 1),
		// Where one block has such a norm, all must; a single one that is missing is a mistake and not another network.
		qk_norm: names.some((name) => /_attn\.norm_[qk]\./u.test(name)), cross_attn_norm: names.some((name) => name.includes('.norm3.')),
		...WAN_CONSTANTS,
	};
	return { dimensions, isSparse: projection !== undefined, isQuantized };
};

export const textDimensions = (shapes: ShapesByName): TextDimensions => ({
	vocab_size: dimensionOf(shapes, 'token_embedding.weight', 0), dim: dimensionOf(shapes, 'token_embedding.weight', 1), num_layers: layersOf(shapes),
	dim_attn: dimensionOf(shapes, 'blocks.0.attn.q.weight', 0), dim_ffn: dimensionOf(shapes, 'blocks.0.ffn.fc1.weight', 0),
	num_buckets: dimensionOf(shapes, 'blocks.0.pos_embedding.embedding.weight', 0), num_heads: dimensionOf(shapes, 'blocks.0.pos_embedding.embedding.weight', 1),
});

/** Walks the encoder's list of layers: residual blocks up to a resampling are a level. */
export const wanVaeDimensions = (shapes: ShapesByName): WanVaeSpec => {
	const dim = dimensionOf(shapes, 'encoder.conv1.weight', 0);
	const [multiples, isTemporal]: [number[], boolean[]] = [[], []];
	let [blocks, width, firstBlocks] = [0, dim, 0];
	for (let index = 0; index < MAX_LAYERS; index++) {
		const at = `encoder.downsamples.${index}`;
		const residual = shapes.get(`${at}.residual.6.weight`);
		if (residual !== undefined) {
			blocks += 1;
			width = residual[0] ?? 0;
			continue;
		}
		multiples.push(width / dim);
		firstBlocks ||= blocks;
		if (!shapes.has(`${at}.resample.1.weight`)) {
			break;
		}
		isTemporal.push(shapes.has(`${at}.time_conv.weight`));
	}
	const channels = dimensionOf(shapes, 'conv2.weight', 0);
	const normalisation = channels === WAN_LATENT_MEAN.length ? { latent_mean: WAN_LATENT_MEAN, latent_std: WAN_LATENT_STD } : {};
	return parseWanVaeSpec({ ...normalisation, dim, z_dim: channels, dim_mult: multiples, num_res_blocks: firstBlocks, attn_scales: [], temperal_downsample: isTemporal });
};

/** Levels of three blocks, as every published TAEHV has them. */
export const taehvDimensions = (shapes: ShapesByName): TaehvSpec => {
	const widths = [dimensionOf(shapes, 'decoder.1.weight', 0)];
	const grow: number[] = [];
	for (let level = 0; level < 7; level++) {
		// Of three levels, the third's block would stand where the picture's convolution does; that has a weight of its own.
		const { levels } = taehvLayout(parseTaehvSpec({ widths: Array.from({ length: level + 2 }, () => 1), latent_channels: 1 }));
		const { growth = '', narrow = '' } = levels[level] ?? {};
		const outputs = shapes.get(`${narrow}.weight`)?.[0];
		if (outputs === undefined || !shapes.has(`${growth}.weight`)) {
			break;
		}
		grow.push(Math.floor(dimensionOf(shapes, `${growth}.weight`, 0) / (widths.at(-1) ?? 1)));
		widths.push(outputs);
	}
	return parseTaehvSpec({ widths, latent_channels: dimensionOf(shapes, 'decoder.1.weight', 1), grow });
};
