/**
 * The decoder in 8 bits with static ranges. Every activation after a relu is unsigned with zero at 0, so that saturation *is* the
 * relu. The residual of a block is added in 8 bits too: of conv4 only what lies in [-in, out] can matter, because x lies in [0, in] and
 * the sum in [0, out], so saturating it to that range loses nothing but steps.
 */
import { TurbocastError } from '../protocol/errors.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import { concat, reshape, slice, transpose } from './operators.js';
import { type ConvolutionWeights, dequantize, quantize, type Quantized, quantizedAdd, quantizedConvolution, stepsOver } from './quantized-operators.js';
import type { VaeSpec } from './spec.js';
import type { DecoderArithmetic } from './vae-decoder.js';
import type { Weights } from './weights.js';

const carrying = (x: Quantized, value: Value): Quantized => ({ ...x, value });

/**
 * The outputs of an `up` layer from (frame, channel, dy, dx), PyTorch's order, to (frame, dy, dx, channel): the pixel shuffle then moves
 * whole pixels and not single bytes (measured with channels last: 10.0 instead of 11.6 ms per latent of 128x128).
 */
const shuffledFirst = (layer: ConvolutionWeights, grow: number, channels: number): ConvolutionWeights => {
	const { inputs } = layer;
	const [weight, bias] = [new Float32Array(layer.weight.length), new Float32Array(layer.bias.length)];
	for (let target = 0; target < layer.outputs; target++) {
		const [frame, pixel, channel] = [Math.floor(target / (4 * channels)), Math.floor(target / channels) % 4, target % channels];
		const source = (frame * channels + channel) * 4 + pixel;
		weight.set(layer.weight.subarray(source * inputs, (source + 1) * inputs), target * inputs);
		bias[target] = layer.bias[source] ?? Number.NaN;
	}
	if (grow * 4 * channels !== layer.outputs) {
		throw new TurbocastError('internal', `${layer.outputs} outputs are not ${grow} frames of ${channels} channels.`);
	}
	return { ...layer, weight, bias };
};

export const int8Decoder = (g: GraphBuilder, spec: VaeSpec, weights: Weights): DecoderArithmetic<Quantized> => {
	const rangeOf = (name: string): number => {
		const range = spec.int8_ranges[name];
		if (range === undefined) {
			throw new TurbocastError('model_invalid', `model.json: vae.int8_ranges has no entry ${name}; leave int8_ranges empty to decode in float32.`);
		}
		return range;
	};
	const load = (name: string, outputs: number, inputs: number, kernel: number): ConvolutionWeights => ({
		weight: weights.floats(`${name}.weight`, [outputs, inputs, kernel, kernel]), bias: weights.floats(`${name}.bias`, [outputs]), outputs, inputs, kernel,
	});
	const range = (x: Quantized): number => x.scale * (255 - x.zero);
	return {
		start: (latent) => {
			const channelsLast = transpose(g, 'latent/channels_last', latent, [0, 2, 3, 1]);
			const input = quantize(g, 'latent/int8', channelsLast, stepsOver(rangeOf('input'), rangeOf('input')));
			return quantizedConvolution(g, 'conv_in', input, load('conv_in', spec.widths[0] ?? 0, spec.latent_channels, 3), stepsOver(0, rangeOf('conv_in')));
		},
		block: (name, x, width, memory) => {
			const [frames, height, columns] = x.value.dims as [number, number, number, number];
			// The memory is the last frame of an earlier x: it has the same steps, so it survives the way out and in unchanged.
			const bytes = quantize(g, `${name}/memory/int8`, memory, x).value;
			const first = reshape(g, `${name}/memory`, transpose(g, `${name}/memory/channels_last`, bytes, [1, 2, 0]), [1, height, columns, width]);
			const previous = frames === 1 ? first : concat(g, `${name}/previous`, [first, slice(g, `${name}/earlier`, x.value, 0, 0, frames - 1)], 0);
			const both = carrying(x, concat(g, `${name}/in`, [x.value, previous], 3));
			const y0 = quantizedConvolution(g, `${name}.conv0`, both, load(`${name}.conv0`, width, 2 * width, 3), stepsOver(0, rangeOf(`${name}.conv0`)));
			const y2 = quantizedConvolution(g, `${name}.conv2`, y0, load(`${name}.conv2`, width, width, 3), stepsOver(0, rangeOf(`${name}.conv2`)));
			const out = rangeOf(`${name}.out`);
			const y4 = quantizedConvolution(g, `${name}.conv4`, y2, load(`${name}.conv4`, width, width, 3), stepsOver(range(x), out));
			const last = frames === 1 ? x.value : slice(g, `${name}/last`, x.value, 0, frames - 1, frames);
			const kept = transpose(g, `${name}/kept/channels_first`, reshape(g, `${name}/kept/int8`, last, [height, columns, width]), [2, 0, 1]);
			return { y: quantizedAdd(g, `${name}/sum`, y4, x, stepsOver(0, out)), memory: dequantize(g, `${name}/kept`, carrying(x, kept)) };
		},
		up: (name, x, width, nextWidth, grow) => {
			const [frames, height, columns] = x.value.dims as [number, number, number, number];
			const outputs = grow * 4 * nextWidth;
			const grown = quantizedConvolution(g, name, x, shuffledFirst(load(name, outputs, width, 1), grow, nextWidth), stepsOver(0, rangeOf(name)));
			const parts = reshape(g, `${name}/parts`, grown.value, [frames, height, columns, grow, 2, 2, nextWidth]);
			const ordered = transpose(g, `${name}/ordered`, parts, [0, 3, 1, 4, 2, 5, 6]); // [T, grow, h, 2, w, 2, W]
			return carrying(grown, reshape(g, `${name}/frames`, ordered, [frames * grow, 2 * height, 2 * columns, nextWidth]));
		},
		// Pictures have 8 bits anyway: steps of 1/255 from 0 to 1 saturate exactly like the clamp.
		finish: (x, width) => {
			const out = quantizedConvolution(g, 'conv_out', x, load('conv_out', 12, width, 3), stepsOver(0, 1));
			return dequantize(g, 'clamped', carrying(out, transpose(g, 'clamped/channels_first', out.value, [0, 3, 1, 2])));
		},
	};
};

/** The names in `int8_ranges` that the 8-bit decoder needs. */
export const activationNames = (spec: VaeSpec): string[] => [
	'input', 'conv_in',
	...spec.widths.flatMap((_, level) => [
		...Array.from({ length: spec.blocks[level] ?? 0 }, (__, block) => ['conv0', 'conv2', 'out'].map((part) => `levels.${level}.blocks.${block}.${part}`)).flat(),
		...(level < spec.widths.length - 1 ? [`levels.${level}.up`] : []),
	]),
];
