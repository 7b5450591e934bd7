/**
 * The denoiser in plain loops and float64: slow, obvious, and written from docs/model-format.md alone. It takes any number of
 * latent frames at once, each with its own timestep, and is told who may see whom; so it can recompute a whole stream without
 * a cache, or go on from any keys and values.
 */
import { readFloats, type Safetensors } from '../../src/model/safetensors.js';
import type { DitDimensions } from '../../src/model/spec.js';

/** Rows of numbers: [tokens][channels]. */
type Rows = Float64Array[];

export type SlowInputs = {
	/** One [C, h, w] per latent frame. */
	readonly frames: readonly Float32Array[];
	readonly height: number;
	readonly width: number;
	/** One per frame, as are controls (each [control_dim]) and positions in the stream. */
	readonly timesteps: readonly number[];
	readonly controls: readonly Float32Array[];
	readonly positions: readonly number[];
	/** [text_len][text_dim] and [text_len] */
	readonly context: Float32Array;
	readonly mask: Float32Array;
	/** Keys and values from before: per layer [tokens][dim], keys roped. Everybody sees all of them. */
	readonly past?: readonly { readonly k: Rows; readonly v: Rows }[];
	/** Whether frame `query` sees frame `key`, both counted within `frames`. */
	readonly sees: (query: number, key: number) => boolean;
};

export type SlowOutputs = { readonly velocity: Float64Array[]; readonly keysAndValues: { readonly k: Rows; readonly v: Rows }[] };

const silu = (x: number): number => x / (1 + Math.exp(-x));
const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const sum = (a: ArrayLike<number>, b: ArrayLike<number>): Float64Array => Float64Array.from(a, (value, i) => value + (b[i] ?? 0));
const at = (row: ArrayLike<number>, index: number): number => row[index] ?? Number.NaN;

export class SlowDenoiser {
	readonly #spec: DitDimensions;
	readonly #weights: Map<string, Float32Array>;

	constructor(spec: DitDimensions, file: Safetensors) {
		this.#spec = spec;
		this.#weights = new Map([...file.tensors].map(([name, entry]) => [name, readFloats(file, entry)]));
	}

	forward(inputs: SlowInputs): SlowOutputs {
		const { dim, num_heads: heads, num_layers: layers, eps } = this.#spec;
		const tokens = inputs.frames.map((frame) => this.#tokens(frame, inputs.height, inputs.width));
		const perFrame = tokens[0]?.length ?? 0;
		const frameOf = (token: number): number => Math.floor(token / perFrame);
		let x: Rows = tokens.flat();
		const e = inputs.timesteps.map((timestep, frame) => this.#embedding(timestep, inputs.controls[frame] ?? new Float32Array(0), inputs));
		const e0 = e.map((row) => this.#linear('time_projection.1', row.map(silu)));
		const text = this.#split(inputs.context, this.#spec.text_dim)
			.map((row) => this.#linear('text_embedding.2', this.#linear('text_embedding.0', row).map(gelu)));
		const angles = x.map((_, token) => this.#angles(inputs.positions[frameOf(token)] ?? 0, token % perFrame, inputs.width));
		const keysAndValues: { k: Rows; v: Rows }[] = [];

		for (let layer = 0; layer < layers; layer++) {
			const name = `blocks.${layer}`;
			const modulation = e0.map((row) => this.#split(sum(row, this.#weight(`${name}.modulation`)), dim));
			const modulated = (row: Float64Array, token: number, which: number): Float64Array => {
				const [shift, scale] = [modulation[frameOf(token)]?.[which] ?? row, modulation[frameOf(token)]?.[which + 1] ?? row];
				return this.#layerNorm(row, eps).map((value, i) => value * (1 + at(scale, i)) + at(shift, i));
			};
			const gated = (row: Float64Array, token: number, which: number): Float64Array => row.map((value, i) => value * at(modulation[frameOf(token)]?.[which] ?? row, i));

			const h = x.map((row, token) => modulated(row, token, 0));
			const q = h.map((row, token) => this.#rope(this.#rmsNorm(`${name}.self_attn.norm_q`, this.#linear(`${name}.self_attn.q`, row)), angles[token] ?? []));
			const k = h.map((row, token) => this.#rope(this.#rmsNorm(`${name}.self_attn.norm_k`, this.#linear(`${name}.self_attn.k`, row)), angles[token] ?? []));
			const v = h.map((row) => this.#linear(`${name}.self_attn.v`, row));
			keysAndValues.push({ k, v });
			const past = inputs.past?.[layer] ?? { k: [], v: [] };
			const attended = q.map((row, token) => {
				const seen = k.map((_, key) => key).filter((key) => inputs.sees(frameOf(token), frameOf(key)));
				const keys = [...past.k, ...seen.map((key) => k[key] ?? row)];
				const values = [...past.v, ...seen.map((key) => v[key] ?? row)];
				return this.#attention(row, keys, values, heads);
			});
			x = x.map((row, token) => sum(row, gated(this.#linear(`${name}.self_attn.o`, attended[token] ?? row), token, 2)));

			const textK = text.map((row) => this.#rmsNorm(`${name}.cross_attn.norm_k`, this.#linear(`${name}.cross_attn.k`, row)));
			const textV = text.map((row) => this.#linear(`${name}.cross_attn.v`, row));
			x = x.map((row) => {
				const normed = this.#layerNorm(row, eps).map((value, i) => value * at(this.#weight(`${name}.norm3.weight`), i) + at(this.#weight(`${name}.norm3.bias`), i));
				const query = this.#rmsNorm(`${name}.cross_attn.norm_q`, this.#linear(`${name}.cross_attn.q`, normed));
				return sum(row, this.#linear(`${name}.cross_attn.o`, this.#attention(query, textK, textV, heads)));
			});
			x = x.map((row, token) => {
				const hidden = this.#linear(`${name}.ffn.0`, modulated(row, token, 3)).map(gelu);
				return sum(row, gated(this.#linear(`${name}.ffn.2`, hidden), token, 5));
			});
		}
		const rows = x.map((row, token) => {
			const [shift = row, scale = row] = this.#split(this.#weight('head.modulation'), dim).map((part) => sum(part, e[frameOf(token)] ?? row));
			return this.#linear('head.head', this.#layerNorm(row, eps).map((value, i) => value * (1 + at(scale, i)) + at(shift, i)));
		});
		const velocity = inputs.frames.map((_, frame) => this.#pixels(rows.slice(frame * perFrame, (frame + 1) * perFrame), inputs.height, inputs.width));
		return { velocity, keysAndValues };
	}

	#weight(name: string): Float32Array {
		const weight = this.#weights.get(name);
		if (weight === undefined) {
			throw new Error(`no weight ${name}`);
		}
		return weight;
	}

	#linear(name: string, row: ArrayLike<number>): Float64Array {
		const weight = this.#weight(`${name}.weight`);
		return Float64Array.from(this.#weight(`${name}.bias`), (bias, out) => {
			let total = bias;
			for (let i = 0; i < row.length; i++) {
				total += at(weight, out * row.length + i) * at(row, i);
			}
			return total;
		});
	}

	#split(row: ArrayLike<number>, width: number): Float64Array[] {
		return Array.from({ length: row.length / width }, (_, part) => Float64Array.from({ length: width }, (_unused, i) => at(row, part * width + i)));
	}

	#layerNorm(row: Float64Array, eps: number): Float64Array {
		const mean = row.reduce((total, value) => total + value, 0) / row.length;
		const variance = row.reduce((total, value) => total + (value - mean) ** 2, 0) / row.length;
		return row.map((value) => (value - mean) / Math.sqrt(variance + eps));
	}

	#rmsNorm(name: string, row: Float64Array): Float64Array {
		const scale = 1 / Math.sqrt(row.reduce((total, value) => total + value ** 2, 0) / row.length + this.#spec.eps);
		return row.map((value, i) => value * scale * at(this.#weight(`${name}.weight`), i));
	}

	#embedding(timestep: number, control: Float32Array, { context, mask }: SlowInputs): Float64Array {
		const half = this.#spec.freq_dim / 2;
		const sinusoid = Array.from({ length: 2 * half }, (_, i) => {
			const angle = timestep * 10000 ** (-(i % half) / half);
			return i < half ? Math.cos(angle) : Math.sin(angle);
		});
		const time = this.#linear('time_embedding.2', this.#linear('time_embedding.0', sinusoid).map(silu));
		const controlled = sum(time, this.#linear('control_embedding.2', this.#linear('control_embedding.0', control).map(silu)));
		const rows = this.#split(context, this.#spec.text_dim).filter((_, token) => mask[token] === 1);
		const mean = Float64Array.from({ length: this.#spec.text_dim }, (_, i) => rows.reduce((total, row) => total + at(row, i), 0) / Math.max(1, rows.length));
		return sum(controlled, this.#linear('pooled_embedding', mean));
	}

	/** One angle per pair of channels of a head: first time, then height, then width. */
	#angles(position: number, token: number, width: number): number[] {
		const headDim = this.#spec.dim / this.#spec.num_heads;
		const columns = width / (this.#spec.patch_size[2] ?? 1);
		const space = 2 * Math.floor(headDim / 6);
		const axes = [[position, headDim - 2 * space], [Math.floor(token / columns), space], [token % columns, space]] as const;
		return axes.flatMap(([place, channels]) => Array.from({ length: channels / 2 }, (_, i) => place * this.#spec.rope_theta ** ((-2 * i) / channels)));
	}

	#rope(row: Float64Array, angles: readonly number[]): Float64Array {
		return row.map((value, i) => {
			const angle = at(angles, Math.floor(i / 2) % angles.length);
			return i % 2 === 0
				? value * Math.cos(angle) - at(row, i + 1) * Math.sin(angle)
				: at(row, i - 1) * Math.sin(angle) + value * Math.cos(angle);
		});
	}

	#attention(query: Float64Array, keys: Rows, values: Rows, heads: number): Float64Array {
		const headDim = query.length / heads;
		const out = new Float64Array(query.length);
		for (let head = 0; head < heads; head++) {
			const channels = Array.from({ length: headDim }, (_, i) => head * headDim + i);
			const logits = keys.map((key) => channels.reduce((total, c) => total + at(query, c) * at(key, c), 0) / Math.sqrt(headDim));
			const largest = Math.max(...logits);
			const weights = logits.map((logit) => Math.exp(logit - largest));
			const total = weights.reduce((a, b) => a + b, 0);
			for (const c of channels) {
				out[c] = values.reduce((acc, value, i) => acc + (at(weights, i) / total) * at(value, c), 0);
			}
		}
		return out;
	}

	/** [C, h, w] to one row per 2-D patch (features in the order channel, row, column), embedded. */
	#tokens(frame: Float32Array, height: number, width: number): Rows {
		const [, ph = 1, pw = 1] = this.#spec.patch_size;
		return Array.from({ length: (height / ph) * (width / pw) }, (_, token) => {
			const top = Math.floor(token / (width / pw)) * ph;
			const left = (token % (width / pw)) * pw;
			const patch = Array.from({ length: this.#spec.in_dim * ph * pw }, (_unused, i) => {
				const [channel, row, column] = [Math.floor(i / (ph * pw)), Math.floor(i / pw) % ph, i % pw];
				return at(frame, (channel * height + top + row) * width + left + column);
			});
			return this.#linear('patch_embedding', patch);
		});
	}

	/** Rows of the head (features in the order row, column, channel) to [C, h, w]. */
	#pixels(rows: Rows, height: number, width: number): Float64Array {
		const [, ph = 1, pw = 1] = this.#spec.patch_size;
		const channels = this.#spec.out_dim;
		const frame = new Float64Array(channels * height * width);
		for (const [token, row] of rows.entries()) {
			const top = Math.floor(token / (width / pw)) * ph;
			const left = (token % (width / pw)) * pw;
			for (let i = 0; i < row.length; i++) {
				const [y, x, channel] = [Math.floor(i / (pw * channels)), Math.floor(i / channels) % pw, i % channels];
				frame[(channel * height + top + y) * width + left + x] = at(row, i);
			}
		}
		return frame;
	}
}
