/**
 * The decoder in 8 bits with static ranges. Every activation after a relu is unsigned with zero at 0, so that saturation *is* the
 * relu. The residual of a block is added in 8 bits too: of conv4 only what lies in [-in, out] can matter, because x lies in [0, in] and
 * the sum in [0, out], so saturating it to that range loses nothing but steps.
 */
import { TurbocastError } from '../protocol/errors.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import { concat, pixelShuffle, reshape, slice } from './operators.js';
import { type ConvolutionWeights, dequantize, quantize, type Quantized, quantizedAdd, quantizedConvolution, stepsOver } from './quantized-operators.js';
import type { VaeSpec } from './spec.js';
import type { DecoderArithmetic } from './vae-decoder.js';
import type { Weights } from './weights.js';

const carrying = (x: Quantized, value: Value): Quantized => ({ ...x, value });

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
			const input = quantize(g, 'latent/int8', latent, stepsOver(rangeOf('input'), rangeOf('input')));
			return quantizedConvolution(g, 'conv_in', input, load('conv_in', spec.widths[0] ?? 0, spec.latent_channels, 3), stepsOver(0, rangeOf('conv_in')));
		},
		block: (name, x, width, memory) => {
			const [frames, , height, columns] = x.value.dims as [number, number, number, number];
			// The memory is the last frame of an earlier x: it has the same steps, so it survives the way out and in unchanged.
			const first = quantize(g, `${name}/memory/int8`, reshape(g, `${name}/memory`, memory, [1, width, height, columns]), x).value;
			const previous = frames === 1 ? first : concat(g, `${name}/previous`, [first, slice(g, `${name}/earlier`, x.value, 0, 0, frames - 1)], 0);
			const both = carrying(x, concat(g, `${name}/in`, [x.value, previous], 1));
			const y0 = quantizedConvolution(g, `${name}.conv0`, both, load(`${name}.conv0`, width, 2 * width, 3), stepsOver(0, rangeOf(`${name}.conv0`)));
			const y2 = quantizedConvolution(g, `${name}.conv2`, y0, load(`${name}.conv2`, width, width, 3), stepsOver(0, rangeOf(`${name}.conv2`)));
			const out = rangeOf(`${name}.out`);
			const y4 = quantizedConvolution(g, `${name}.conv4`, y2, load(`${name}.conv4`, width, width, 3), stepsOver(range(x), out));
			const last = carrying(x, frames === 1 ? x.value : slice(g, `${name}/last`, x.value, 0, frames - 1, frames));
			return {
				y: quantizedAdd(g, `${name}/sum`, y4, x, stepsOver(0, out)),
				memory: reshape(g, `${name}/kept`, dequantize(g, `${name}/kept/float32`, last), [width, height, columns]),
			};
		},
		up: (name, x, width, nextWidth, grow) => {
			const [frames, , height, columns] = x.value.dims as [number, number, number, number];
			const grown = quantizedConvolution(g, name, x, load(name, grow * 4 * nextWidth, width, 1), stepsOver(0, rangeOf(name)));
			return carrying(grown, pixelShuffle(g, `${name}/shuffled`, reshape(g, `${name}/frames`, grown.value, [frames * grow, 4 * nextWidth, height, columns])));
		},
		// Pictures have 8 bits anyway: steps of 1/255 from 0 to 1 saturate exactly like the clamp.
		finish: (x, width) => dequantize(g, 'clamped', quantizedConvolution(g, 'conv_out', x, load('conv_out', 12, width, 3), stepsOver(0, 1))),
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
