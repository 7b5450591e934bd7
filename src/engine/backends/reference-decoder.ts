/** The streaming decoder in plain loops; see reference.ts. */
import type { VaeSpec } from '../../model/spec.js';
import type { Weights } from '../../model/weights.js';
import { convolution, map, pixelShuffle, type Planes, relu } from './reference-math.js';

/** Called with the name (docs/model-format.md, `int8_ranges`) and values of each activation. */
export type Watch = (name: string, values: Float64Array | Float32Array) => void;

/** Decodes one latent after another, remembering what a stream remembers. Frames are RGB [3, H, W] in [0, 1]. */
export class ReferenceDecoder {
	readonly #spec: VaeSpec;
	readonly #weights: Weights;
	readonly #watch: Watch;

	constructor(spec: VaeSpec, weights: Weights, watch: Watch = () => undefined) {
		this.#spec = spec;
		this.#weights = weights;
		this.#watch = watch;
	}

	#convolution(x: Planes, name: string, outputs: number, kernel: number): Planes {
		const weight = this.#weights.floats(`${name}.weight`, [outputs, x.channels, kernel, kernel]);
		return convolution(x, weight, this.#weights.floats(`${name}.bias`, [outputs]), kernel);
	}

	#watched(name: string, x: Planes): Planes {
		this.#watch(name, x.data);
		return x;
	}

	#relu(name: string, x: Planes): Planes {
		return this.#watched(name, { ...x, data: map(x.data, relu) });
	}

	/** y = relu(conv4(relu(conv2(relu(conv0(x and previous, channels joined))))) + x). */
	#block(at: string, x: Planes, previous: Planes): Planes {
		const both = { ...x, channels: 2 * x.channels, data: Float64Array.from([...x.data, ...previous.data]) };
		const y0 = this.#relu(`${at}.conv0`, this.#convolution(both, `${at}.conv0`, x.channels, 3));
		const y2 = this.#relu(`${at}.conv2`, this.#convolution(y0, `${at}.conv2`, x.channels, 3));
		const y4 = this.#convolution(y2, `${at}.conv4`, x.channels, 3);
		return this.#relu(`${at}.out`, { ...y4, data: map(y4.data, (value, index) => value + (x.data[index] ?? Number.NaN)) });
	}

	/**
	 * Decodes one latent [C, h, w] (normalised), or several of a clip at once, level by level. `memory` is one [widths[L], h * 2^L, w * 2^L]
	 * per block, replaced in place.
	 */
	decode(latents: readonly Float32Array[], height: number, width: number, memory: Float32Array[]): Planes[] {
		const { widths, blocks, grow, latent_channels: channels } = this.#spec;
		let frames = latents.map((latent) => {
			const scaled = map(latent, (value, index) => {
				const channel = Math.floor(index / (height * width));
				return value * (this.#spec.latent_std[channel] ?? Number.NaN) + (this.#spec.latent_mean[channel] ?? Number.NaN);
			});
			const start = this.#watched('input', { channels, height, width, data: scaled });
			return this.#relu('conv_in', this.#convolution(start, 'conv_in', widths[0] ?? 0, 3));
		});
		let slot = 0;
		for (const level of widths.keys()) {
			for (let block = 0; block < (blocks[level] ?? 0); block++, slot++) {
				const at = `levels.${level}.blocks.${block}`;
				const outputs: Planes[] = [];
				for (const frame of frames) { // in order: each frame sees the block's input of the frame before
					outputs.push(this.#block(at, this.#watched(`${at}.in`, frame), { ...frame, data: memory[slot] ?? new Float32Array(0) }));
					memory[slot] = Float32Array.from(frame.data);
				}
				frames = outputs;
			}
			if (level < widths.length - 1) {
				const [nextWidth, growth] = [widths[level + 1] ?? 0, grow[level] ?? 1];
				frames = frames.flatMap((frame) => {
					const grown = this.#relu(`levels.${level}.up`, this.#convolution(frame, `levels.${level}.up`, growth * 4 * nextWidth, 1));
					const size = grown.data.length / growth;
					return Array.from({ length: growth }, (_, index) =>
						pixelShuffle({ ...grown, channels: 4 * nextWidth, data: grown.data.subarray(index * size, (index + 1) * size) }));
				});
			}
		}
		return frames.map((frame) => {
			const rgb = pixelShuffle(this.#convolution(frame, 'conv_out', 12, 3));
			return { ...rgb, data: map(rgb.data, (value) => (Number.isNaN(value) ? value : Math.min(1, Math.max(0, value)))) };
		});
	}
}

/** RGB [3, H, W] in [0, 1] to I420, BT.709, limited range; a chroma sample is the mean of its four pixels. */
export const rgbToI420 = ({ height, width, data }: Planes): Uint8Array<ArrayBuffer> => {
	const area = height * width;
	const bytes = new Uint8Array((area * 3) / 2);
	const colours = (pixel: number): [number, number, number] => [data[pixel] ?? Number.NaN, data[area + pixel] ?? Number.NaN, data[2 * area + pixel] ?? Number.NaN];
	const luma = (pixel: number): number => {
		const [r, g, b] = colours(pixel);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	for (let pixel = 0; pixel < area; pixel++) {
		bytes[pixel] = Math.floor(16 + 219 * luma(pixel) + 0.5);
	}
	for (let row = 0; row < height / 2; row++) {
		for (let column = 0; column < width / 2; column++) {
			const corner = 2 * row * width + 2 * column;
			let [cb, cr] = [0, 0];
			for (const pixel of [corner, corner + 1, corner + width, corner + width + 1]) {
				const [r, , b] = colours(pixel);
				cb += (b - luma(pixel)) / 1.8556 / 4;
				cr += (r - luma(pixel)) / 1.5748 / 4;
			}
			const index = area + (row * width) / 2 + column;
			bytes[index] = Math.floor(128 + 224 * cb + 0.5);
			bytes[index + area / 4] = Math.floor(128 + 224 * cr + 0.5);
		}
	}
	return bytes;
};
