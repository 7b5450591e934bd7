/**
 * TAEHV, the tiny decoder of Wan's latents (`taew2_1` layout, docs/model-format.md), as a stream: what a block remembers of a frame is its
 * input, so all frames of a level are one batch. Letters in shapes: T frames of a level, W its width.
 */
import { TurbocastError } from '../protocol/errors.js';
import { type Infer, integer, list, object, withDefault } from '../protocol/schema.js';
import { checkedLatent, type DecoderOutput, packedFrames } from './decoder-output.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { add, clip, concat, multiply, relu, reshape, slice } from './operators.js';
import { doubled, frameConvolution } from './video-layers.js';
import type { Weights } from './weights.js';

const dimension = integer({ min: 1, max: 1_000_000 });

export const TAEHV_SPEC = object({
	/** Width of each level; the last is that of the picture. One less of them double the resolution. */
	widths: list(dimension, { min: 2, max: 8 }),
	latent_channels: dimension,
	/** Frames that each doubling makes of one; the last doublings double time too, as in taew2_1. */
	grow: withDefault(list(integer({ min: 1, max: 8 }), { max: 7 }), []),
	/** Blocks of a level. */
	blocks: withDefault(integer({ min: 1, max: 16 }), 3),
});

export type TaehvSpec = Infer<typeof TAEHV_SPEC>;

export const parseTaehvSpec = (value: unknown): TaehvSpec => {
	let spec: TaehvSpec;
	try {
		spec = TAEHV_SPEC.parse(value);
	} catch (error) {
		throw new TurbocastError('model_invalid', `The configuration of TAEHV: ${TurbocastError.from(error).message}`, { cause: error });
	}
	const levels = spec.widths.length - 1;
	if (spec.grow.length === 0) {
		return { ...spec, grow: Array.from({ length: levels }, (_, level) => (level === 0 ? 1 : 2)) };
	}
	if (spec.grow.length !== levels) {
		throw new TurbocastError('model_invalid', `The configuration of TAEHV: grow needs ${levels} numbers, one less than widths.`);
	}
	return spec;
};

export type TaehvLevel = {
	readonly width: number;
	readonly nextWidth: number;
	readonly grow: number;
	/** Names of its blocks, of the convolution that makes frames, and of the one after the doubling. */
	readonly blocks: readonly string[];
	readonly growth: string;
	readonly narrow: string;
};

/** Names are places in the original's list of layers, which counts activations and doublings too. */
export const taehvLayout = (spec: TaehvSpec): { readonly first: string; readonly levels: readonly TaehvLevel[]; readonly last: string } => {
	const period = spec.blocks + 3;
	const levels = spec.grow.map((grow, level): TaehvLevel => {
		const start = 3 + level * period;
		return {
			width: spec.widths[level] ?? 0, nextWidth: spec.widths[level + 1] ?? 0, grow,
			blocks: Array.from({ length: spec.blocks }, (_, block) => `decoder.${start + block}`),
			growth: `decoder.${start + spec.blocks + 1}.conv`, narrow: `decoder.${start + spec.blocks + 2}`,
		};
	});
	return { first: 'decoder.1', levels, last: `decoder.${3 + levels.length * period + 1}` };
};

/** Frames of a latent, and one more than the frames at the start of a clip that show nothing yet and are dropped. */
export const taehvFramesPerLatent = (spec: TaehvSpec): number => spec.grow.reduce((product, factor) => product * factor, 1);

const memoryBlock = (g: GraphBuilder, weights: Weights, name: string, x: Value): Value => {
	const [frames, width, height, columns] = x.dims as [number, number, number, number];
	const inner = g.at(name);
	const memory = g.input(`memory.${name}`, 'float32', [1, width, height, columns]);
	const all = concat(inner, 'remembered', [memory, x], 0);
	g.output(`memory_out.${name}`, slice(inner, 'kept', all, 0, frames, frames + 1));
	const both = concat(inner, 'in', [x, slice(inner, 'previous', all, 0, 0, frames)], 1);
	const conv = (index: number, input: Value): Value =>
		frameConvolution(g, weights, `${name}.conv.${index}`, input, { outputs: width, inputs: input.dims[1] as number, kernel: 3 });
	const y = conv(4, relu(inner, 'relu2', conv(2, relu(inner, 'relu0', conv(0, both)))));
	return relu(inner, 'relu4', add(inner, 'sum', y, x));
};

/** A convolution of single pixels whose channels are `grow` frames, one after the other. */
const growFrames = (g: GraphBuilder, weights: Weights, level: TaehvLevel, x: Value): Value => {
	const { growth: name, width, grow } = level;
	const [frames, , height, columns] = x.dims as [number, number, number, number];
	const stored = weights.value(g, `${name}.weight`, [grow * width, width, 1, 1]);
	const grown = g.node({ op: 'Conv', name, inputs: [x, stored], attributes: { kernel_shape: { ints: [1, 1] } }, type: 'float32', dims: [frames, grow * width, height, columns] });
	return reshape(g, `${name}/frames`, grown, [frames * grow, width, height, columns]);
};

/** What the blocks remember, in the order of the blocks, of a latent of height x width: names and shapes [1, W, h, w] of inputs and outputs. */
export const taehvMemories = (spec: TaehvSpec, height: number, width: number): { readonly name: string; readonly dims: readonly number[] }[] =>
	taehvLayout(spec).levels.flatMap(({ blocks, width: levelWidth }, level) => blocks.map((name) => ({ name, dims: [1, levelWidth, height << level, width << level] })));

export type TaehvOptions = DecoderOutput & {
	readonly weights: Weights;
	/** Size of a latent. */
	readonly height: number;
	readonly width: number;
};

/**
 * Inputs: `latent` [C, h, w], as the denoiser has it (no mean, no deviation); `memory.NAME` [1, W, height, width]. Outputs: `frames` [T, 3, H, W]
 * RGB in [0, 1], or packed (decoder-output.ts); `memory_out.NAME`. The first T - 1 frames of a clip are not part of it. Throws `model_invalid`.
 */
export const taehvGraph = (spec: TaehvSpec, options: TaehvOptions): Graph => {
	const { weights, height, width, output = 'rgb' } = options;
	const g = weights.graph('taehv-decoder');
	const layout = taehvLayout(spec);
	const given = g.input('latent', 'float32', [spec.latent_channels, height, width]);
	checkedLatent(g, given, spec.latent_channels * height * width, options);
	const latent = reshape(g, 'latent/frame', given, [1, spec.latent_channels, height, width]);
	const third = multiply(g, 'latent/third', latent, g.float('1/3', 1 / 3));
	const soft = multiply(g, 'latent/clamped', g.node({ op: 'Tanh', name: 'latent/tanh', inputs: [third], type: 'float32', dims: third.dims }), g.float('3', 3));
	let x = relu(g, 'start', frameConvolution(g, weights, layout.first, soft, { outputs: spec.widths[0] ?? 0, inputs: spec.latent_channels, kernel: 3 }));
	for (const level of layout.levels) {
		for (const block of level.blocks) {
			x = memoryBlock(g, weights, block, x);
		}
		// A convolution of single pixels commutes with the doubling; before it, it is a quarter of the work.
		const grown = doubled(g, `${level.growth}/doubled`, growFrames(g, weights, level, x));
		x = frameConvolution(g, weights, level.narrow, grown, { outputs: level.nextWidth, inputs: level.width, kernel: 3, hasBias: false });
	}
	const rgb = frameConvolution(g, weights, layout.last, relu(g, 'end', x), { outputs: 3, inputs: spec.widths.at(-1) ?? 0, kernel: 3 });
	const clamped = clip(g, 'clamped', rgb, 0, 1);
	g.output('frames', output === 'rgb' ? clamped : packedFrames(g, clamped, output));
	return g.finish();
};
