/** `int8_ranges` for random decoders: the largest value that each activation reaches on random latents. */
import { ReferenceDecoder } from '../../src/engine/backends/reference-decoder.js';
import type { OwnModelSpec, VaeSpec } from '../../src/model/spec.js';
import type { Weights } from '../../src/model/weights.js';
import { memoryShapes } from '../../src/engine/network-sizes.js';
import { randomNormals } from './random-model.js';

export const zeroMemory = (spec: OwnModelSpec, width: number, height: number): Float32Array[] =>
	memoryShapes(spec, width, height).map(({ dims }) => new Float32Array(dims[0] * dims[1] * dims[2]));

export const calibrated = (spec: OwnModelSpec, weights: Weights, size: { readonly width: number; readonly height: number }, latents: number): VaeSpec => {
	const ranges: Record<string, number> = {};
	const decoder = new ReferenceDecoder(spec.vae, weights, (name, values) => {
		ranges[name] = Math.max(ranges[name] ?? 0, ...values.map(Math.abs));
	});
	const { width, height } = size;
	const clip = Array.from({ length: latents }, (_, index) => randomNormals(spec.vae.latent_channels * width * height, 100 + index));
	decoder.decode(clip, height, width, zeroMemory(spec, width, height));
	return { ...spec.vae, int8_ranges: ranges };
};
