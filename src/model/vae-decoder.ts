/**
 * The streaming decoder (docs/model-format.md, group-decoder): one latent to a group of frames. All frames of a level are one batch:
 * what a block remembers of a frame is the block's *input*, so nothing inside a group waits for the frame before it.
 *
 * Letters in shapes: C latent channels, h x w latent size, T frames of a level, W its width.
 */
import { checkedLatent, type DecoderOutput } from './decoder-output.js';
import { GraphBuilder, type Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { toI420, toI420Words } from './i420.js';
import { add, cast, clip, concat, convolution, multiply, pixelShuffle, relu, reshape, slice } from './operators.js';
import type { VaeSpec } from './spec.js';
import { int8Decoder } from './vae-decoder-int8.js';
import type { Weights } from './weights.js';

export type DecoderOptions = DecoderOutput & {
	readonly weights: Weights;
	/** `int8` needs `spec.int8_ranges`; with `float16` the memory is float16, too. */
	readonly arithmetic: 'float32' | 'float16' | 'int8';
	/** Size of a latent. */
	readonly height: number;
	readonly width: number;
};

/** What the arithmetic of a decoder has to offer; `X` is its idea of an activation [T, W, h, w]. */
export type DecoderArithmetic<X> = {
	/** The scaled latent [1, C, h, w] to conv_in with relu. */
	readonly start: (latent: Value) => X;
	/** y = relu(conv4(relu(conv2(relu(conv0(concat[x, previous]))))) + x), where previous is x one frame later than itself. */
	readonly block: (name: string, x: X, width: number, memory: Value) => { y: X; memory: Value };
	/** relu(conv1x1), split into `grow` frames each, twice the resolution. */
	readonly up: (name: string, x: X, width: number, nextWidth: number, grow: number) => X;
	/** conv_out, clamped: [T, 12, h, w] in [0, 1], before the last pixel shuffle. */
	readonly finish: (x: X, width: number) => Value;
};

const floatDecoder = (g: GraphBuilder, spec: VaeSpec, weights: Weights, type: 'float32' | 'float16'): DecoderArithmetic<Value> => {
	const weight = (name: string, shape: readonly number[]): Value => (type === 'float16' ? weights.half(g, name, shape) : weights.value(g, name, shape));
	const conv = (name: string, x: Value, outputs: number, inputs: number, kernel: number): Value =>
		convolution(g, name, x, weight(`${name}.weight`, [outputs, inputs, kernel, kernel]), weight(`${name}.bias`, [outputs]));
	const as = (name: string, x: Value, wanted: 'float32' | 'float16'): Value => (x.type === wanted ? x : cast(g, `${name}/${wanted}`, x, wanted));
	return {
		start: (latent) => relu(g, 'conv_in/relu', conv('conv_in', as('latent', latent, type), spec.widths[0] ?? 0, spec.latent_channels, 3)),
		block: (name, x, width, memory) => {
			const [frames, , height, columns] = x.dims as [number, number, number, number];
			const first = reshape(g, `${name}/memory`, memory, [1, width, height, columns]);
			const previous = frames === 1 ? first : concat(g, `${name}/previous`, [first, slice(g, `${name}/earlier`, x, 0, 0, frames - 1)], 0);
			const y0 = relu(g, `${name}/relu0`, conv(`${name}.conv0`, concat(g, `${name}/in`, [x, previous], 1), width, 2 * width, 3));
			const y2 = relu(g, `${name}/relu2`, conv(`${name}.conv2`, y0, width, width, 3));
			const y = relu(g, `${name}/relu4`, add(g, `${name}/sum`, conv(`${name}.conv4`, y2, width, width, 3), x));
			const last = frames === 1 ? x : slice(g, `${name}/last`, x, 0, frames - 1, frames);
			return { y, memory: reshape(g, `${name}/kept`, last, [width, height, columns]) };
		},
		up: (name, x, width, nextWidth, grow) => {
			const [frames, , height, columns] = x.dims as [number, number, number, number];
			const grown = relu(g, `${name}/relu`, conv(name, x, grow * 4 * nextWidth, width, 1));
			return pixelShuffle(g, `${name}/shuffled`, reshape(g, `${name}/frames`, grown, [frames * grow, 4 * nextWidth, height, columns]));
		},
		// The picture has more levels than float16 has numbers between a half and one.
		finish: (x, width) => clip(g, 'clamped', as('conv_out', conv('conv_out', x, 12, width, 3), 'float32'), 0, 1),
	};
};

const run = <X>(g: GraphBuilder, spec: VaeSpec, options: DecoderOptions, arithmetic: DecoderArithmetic<X>): Value => {
	const { height, width } = options;
	const channels = spec.latent_channels;
	const given = g.input('latent', 'float32', [channels, height, width]);
	checkedLatent(g, given, channels * height * width, options);
	const normalised = reshape(g, 'latent/batch', given, [1, channels, height, width]);
	const perChannel = (name: string, values: readonly number[]): Value => g.floats(name, [1, channels, 1, 1], values);
	const latent = add(g, 'latent/shifted', multiply(g, 'latent/scaled', normalised, perChannel('std', spec.latent_std)), perChannel('mean', spec.latent_mean));
	let x = arithmetic.start(latent);
	for (const [level, levelWidth] of spec.widths.entries()) {
		for (let block = 0; block < (spec.blocks[level] ?? 0); block++) {
			const memory = g.input(`memory.${level}.${block}`, options.arithmetic === 'float16' ? 'float16' : 'float32', [levelWidth, height << level, width << level]);
			const result = arithmetic.block(`levels.${level}.blocks.${block}`, x, levelWidth, memory);
			g.output(`memory_out.${level}.${block}`, result.memory);
			x = result.y;
		}
		if (level < spec.widths.length - 1) {
			x = arithmetic.up(`levels.${level}.up`, x, levelWidth, spec.widths[level + 1] ?? 0, spec.grow[level] ?? 1);
		}
	}
	return arithmetic.finish(x, spec.widths.at(-1) ?? 0);
};

/**
 * Inputs: `latent` [C, h, w], normalised; `memory.L.B` [widths[L], h * 2^L, w * 2^L]. Outputs: `frames` uint8 [frames_per_latent, H * 3 / 2, W]
 * (I420, see i420.ts), int32 words of the same, or float32 RGB [frames_per_latent, 3, H, W]; `memory_out.L.B`. Throws `model_invalid`.
 */
export const decoderGraph = (spec: VaeSpec, options: DecoderOptions): Graph => {
	const g = new GraphBuilder('vae-decoder');
	const blocks = options.arithmetic === 'int8'
		? run(g, spec, options, int8Decoder(g, spec, options.weights))
		: run(g, spec, options, floatDecoder(g, spec, options.weights, options.arithmetic));
	g.output('frames', options.output === 'rgb' ? pixelShuffle(g, 'rgb', blocks) : (options.output === 'i420 words' ? toI420Words : toI420)(g.at('i420'), blocks));
	return g.finish();
};
