/** The denoiser (Wan 2.1 DiT, of a chunk or of a clip) in plain loops; see reference.ts. */
import type { SparseShape } from '../../model/sparse-linear-attention.js';
import type { DitDimensions } from '../../model/spec.js';
import type { Weights } from '../../model/weights.js';
import { attention, gelu, layerNorm, linear, map, type Numbers, rmsNorm, silu, sum } from './reference-math.js';
import { sparseLinearAttention } from './reference-sparse.js';

export type ReferenceText = { readonly crossK: Float32Array[]; readonly crossV: Float32Array[]; readonly pooled?: Float32Array };

export type ReferenceForward = {
	/** [C, F, h, w] */
	readonly latent: Numbers;
	readonly frames: number;
	readonly height: number;
	readonly width: number;
	/** One per latent frame, or one for all of them. */
	readonly timesteps: readonly number[];
	/** [F, control_dim] */
	readonly control: Numbers;
	readonly text: ReferenceText;
	readonly firstPosition: number;
	/** [heads, past, d] per layer. */
	readonly pastK: readonly Numbers[];
	readonly pastV: readonly Numbers[];
	/** Whether latent frame `query` of this call may look at frame `key` of it. Everything may, when left out. */
	readonly sees?: (query: number, key: number) => boolean;
	/** Sparse-linear self-attention; then there is no past. */
	readonly sparse?: SparseShape;
};

/** [heads, tokens, d] to [tokens, heads * d], or back with `heads` and `tokens` exchanged. */
const exchange = (x: Numbers, first: number, second: number): Float64Array => {
	const d = x.length / (first * second);
	const y = new Float64Array(x.length);
	for (let a = 0; a < first; a++) {
		for (let b = 0; b < second; b++) {
			y.set(x.subarray((a * second + b) * d, (a * second + b + 1) * d), (b * first + a) * d);
		}
	}
	return y;
};

const concatenated = (a: Numbers, b: Numbers): Float64Array => Float64Array.from([...a, ...b]);

export class ReferenceDit {
	readonly #spec: DitDimensions;
	readonly #weights: Weights;

	constructor(spec: DitDimensions, weights: Weights) {
		this.#spec = spec;
		this.#weights = weights;
	}

	#linear(x: Numbers, name: string, outputs: number, inputs: number): Float64Array {
		return linear(x, this.#weights.floats(`${name}.weight`, [outputs, inputs]), this.#weights.floats(`${name}.bias`, [outputs]), outputs);
	}

	#qkNorm(x: Float64Array, name: string): Float64Array {
		return this.#spec.qk_norm ? rmsNorm(x, this.#weights.floats(`${name}.weight`, [this.#spec.dim]), this.#spec.eps) : x;
	}

	/** Keys and values of cross-attention [heads, text_len, d] per layer, and the pooled text [dim]. */
	text(context: Numbers, mask: readonly number[]): ReferenceText {
		const { dim, text_dim: textDim, text_len: length, num_heads: heads, num_layers: layers } = this.#spec;
		const embedded = this.#linear(map(this.#linear(context, 'text_embedding.0', dim, textDim), gelu), 'text_embedding.2', dim, dim);
		const perLayer = (part: 'k' | 'v'): Float32Array[] => Array.from({ length: layers }, (_, layer) => {
			const at = `blocks.${layer}.cross_attn`;
			const projected = this.#linear(embedded, `${at}.${part}`, dim, dim);
			return Float32Array.from(exchange(part === 'k' ? this.#qkNorm(projected, `${at}.norm_k`) : projected, length, heads));
		});
		const text = { crossK: perLayer('k'), crossV: perLayer('v') };
		if (!this.#spec.pooled_text) {
			return text;
		}
		const tokens = mask.filter((value) => value === 1).length;
		const mean = new Float64Array(textDim);
		for (let row = 0; row < tokens; row++) {
			for (let channel = 0; channel < textDim; channel++) {
				mean[channel] = (mean[channel] ?? 0) + (context[row * textDim + channel] ?? Number.NaN) / tokens;
			}
		}
		return { ...text, pooled: Float32Array.from(this.#linear(mean, 'pooled_embedding', dim, textDim)) };
	}

	/** e [T, dim]: sinusoid and MLP of each timestep, plus control, plus the pooled text. */
	#conditioning(call: ReferenceForward): Float64Array {
		const { dim, freq_dim: frequencies, control_dim: controls, pooled_text: pooled } = this.#spec;
		const sinusoids = call.timesteps.flatMap((timestep) => {
			const angles = Array.from({ length: frequencies / 2 }, (_, index) => timestep / 10_000 ** (index / (frequencies / 2)));
			return [...angles.map(Math.cos), ...angles.map(Math.sin)];
		});
		let e = this.#linear(map(this.#linear(Float64Array.from(sinusoids), 'time_embedding.0', dim, frequencies), silu), 'time_embedding.2', dim, dim);
		if (controls > 0) {
			e = sum(e, this.#linear(map(this.#linear(call.control, 'control_embedding.0', dim, controls), silu), 'control_embedding.2', dim, dim));
		}
		return pooled ? map(e, (value, index) => value + (call.text.pooled?.[index % dim] ?? Number.NaN)) : e;
	}

	/** Turns the pairs (2i, 2i + 1) of each head as complex numbers; x [L, dim]. */
	#rotate(x: Float64Array, call: ReferenceForward): Float64Array {
		const { dim, num_heads: heads, rope_theta: theta, patch_size: [, patchHeight = 1, patchWidth = 1] } = this.#spec;
		const [rows, columns, d] = [call.height / patchHeight, call.width / patchWidth, dim / heads];
		const side = 2 * Math.floor(d / 6);
		const y = new Float64Array(x.length);
		for (let index = 0; index < x.length; index += 2) {
			const token = Math.floor(index / dim);
			const channel = index % d;
			const time = call.firstPosition + Math.floor(token / (rows * columns));
			const [position, within, channels] = channel < d - 2 * side ? [time, channel, d - 2 * side]
				: channel < d - side ? [Math.floor(token / columns) % rows, channel - (d - 2 * side), side]
				: [token % columns, channel - (d - side), side];
			const angle = position * theta ** (-within / channels);
			const [a, b] = [x[index] ?? Number.NaN, x[index + 1] ?? Number.NaN];
			y[index] = a * Math.cos(angle) - b * Math.sin(angle);
			y[index + 1] = a * Math.sin(angle) + b * Math.cos(angle);
		}
		return y;
	}

	/** (1 + scale) * LayerNorm(x) + shift with rows `shift` and `scale` of a modulation [T, rows, dim]; `span` tokens share a timestep. */
	#modulated(x: Float64Array, modulation: Float64Array, rows: number, shift: number, scale: number, span: number): Float64Array {
		const { dim, eps } = this.#spec;
		return map(layerNorm(x, dim, eps), (value, index) => {
			const step = Math.floor(index / dim / span);
			const part = (row: number): number => modulation[(step * rows + row) * dim + (index % dim)] ?? Number.NaN;
			return value * (1 + part(scale)) + part(shift);
		});
	}

	#selfAttention(at: string, q: Float64Array, k: Float64Array, v: Float64Array, call: ReferenceForward, past: { k: Numbers; v: Numbers }, perFrame: number): Float64Array {
		const { dim, num_heads: heads } = this.#spec;
		const headDim = dim / heads;
		if (call.sparse !== undefined) {
			const name = `${at}.attn_op.local_attn.proj_l`;
			const proj = { weight: this.#weights.floats(`${name}.weight`, [headDim, headDim]), bias: this.#weights.floats(`${name}.bias`, [headDim]) };
			return sparseLinearAttention({ q, k, v, heads, width: dim }, call.sparse, proj).out;
		}
		const pastTokens = past.k.length / dim;
		const { sees } = call;
		return attention({
			q, heads, width: dim, scale: 1 / Math.sqrt(headDim),
			k: concatenated(exchange(past.k, heads, pastTokens), k),
			v: concatenated(exchange(past.v, heads, pastTokens), v),
			...(sees === undefined ? {} : {
				bias: (_: number, query: number, key: number) => (key < pastTokens || sees(Math.floor(query / perFrame), Math.floor((key - pastTokens) / perFrame)) ? 0 : -Infinity),
			}),
		});
	}

	/** Returns the velocity [C, F, h, w] and each layer's keys (roped) and values [heads, L, d]. */
	forward(call: ReferenceForward): { velocity: Float32Array; newK: Float32Array[]; newV: Float32Array[] } {
		const { dim, ffn_dim: hidden, num_heads: heads, in_dim: channels, out_dim: outChannels, patch_size: [, ph = 1, pw = 1], eps } = this.#spec;
		const { frames, height, width } = call;
		const [rows, columns] = [height / ph, width / pw];
		const perFrame = rows * columns;
		const tokens = frames * perFrame;
		const span = tokens / call.timesteps.length;
		const scale = 1 / Math.sqrt(dim / heads);

		const patches = new Float64Array(tokens * channels * ph * pw);
		let next = 0;
		for (let token = 0; token < tokens; token++) {
			const [frame, row, column] = [Math.floor(token / perFrame), Math.floor(token / columns) % rows, token % columns];
			for (let channel = 0; channel < channels; channel++) {
				for (let dy = 0; dy < ph; dy++) {
					for (let dx = 0; dx < pw; dx++) {
						patches[next++] = call.latent[((channel * frames + frame) * height + row * ph + dy) * width + column * pw + dx] ?? Number.NaN;
					}
				}
			}
		}
		const isMatrix = this.#weights.shapes.get('patch_embedding.weight')?.length === 2; // TurboDiffusion's way of writing it
		const embedding = this.#weights.floats('patch_embedding.weight', isMatrix ? [dim, channels * ph * pw] : [dim, channels, 1, ph, pw]);
		let x = linear(patches, embedding, this.#weights.floats('patch_embedding.bias', [dim]), dim);
		if (this.#spec.position_grid !== undefined) {
			const positions = this.#weights.floats('position_embedding', [perFrame, dim]);
			x = map(x, (value, index) => value + (positions[index % (perFrame * dim)] ?? Number.NaN));
		}
		const e = this.#conditioning(call);
		const e0 = this.#linear(map(e, silu), 'time_projection.1', 6 * dim, dim);
		const [newK, newV]: [Float32Array[], Float32Array[]] = [[], []];

		for (let block = 0; block < this.#spec.num_layers; block++) {
			const at = `blocks.${block}`;
			const table = this.#weights.floats(`${at}.modulation`, [1, 6, dim]);
			const modulation = map(e0, (value, index) => value + (table[index % (6 * dim)] ?? Number.NaN));
			const gated = (y: Float64Array, gate: number): Float64Array =>
				map(y, (value, index) => value * (modulation[(Math.floor(index / dim / span) * 6 + gate) * dim + (index % dim)] ?? Number.NaN));

			const h = this.#modulated(x, modulation, 6, 0, 1, span);
			const q = this.#rotate(this.#qkNorm(this.#linear(h, `${at}.self_attn.q`, dim, dim), `${at}.self_attn.norm_q`), call);
			const k = this.#rotate(this.#qkNorm(this.#linear(h, `${at}.self_attn.k`, dim, dim), `${at}.self_attn.norm_k`), call);
			const v = this.#linear(h, `${at}.self_attn.v`, dim, dim);
			newK.push(Float32Array.from(exchange(k, tokens, heads)));
			newV.push(Float32Array.from(exchange(v, tokens, heads)));
			const past = { k: call.pastK[block] ?? new Float64Array(0), v: call.pastV[block] ?? new Float64Array(0) };
			const attended = this.#selfAttention(`${at}.self_attn`, q, k, v, call, past, perFrame);
			x = sum(x, gated(this.#linear(attended, `${at}.self_attn.o`, dim, dim), 2));

			const [weight3, bias3] = this.#spec.cross_attn_norm ? [this.#weights.floats(`${at}.norm3.weight`, [dim]), this.#weights.floats(`${at}.norm3.bias`, [dim])] : [];
			const z = weight3 === undefined ? x
				: map(layerNorm(x, dim, eps), (value, index) => value * (weight3[index % dim] ?? Number.NaN) + (bias3?.[index % dim] ?? Number.NaN));
			const asked = this.#qkNorm(this.#linear(z, `${at}.cross_attn.q`, dim, dim), `${at}.cross_attn.norm_q`);
			const length = this.#spec.text_len;
			const told = attention({
				q: asked, heads, width: dim, scale,
				k: exchange(call.text.crossK[block] ?? new Float64Array(0), heads, length), v: exchange(call.text.crossV[block] ?? new Float64Array(0), heads, length),
			});
			x = sum(x, this.#linear(told, `${at}.cross_attn.o`, dim, dim));

			const inner = map(this.#linear(this.#modulated(x, modulation, 6, 3, 4, span), `${at}.ffn.0`, hidden, dim), gelu);
			x = sum(x, gated(this.#linear(inner, `${at}.ffn.2`, dim, hidden), 5));
		}

		const headTable = this.#weights.floats('head.modulation', [1, 2, dim]);
		const headModulation = new Float64Array(call.timesteps.length * 2 * dim).map((_, index) =>
			(headTable[index % (2 * dim)] ?? Number.NaN) + (e[Math.floor(index / (2 * dim)) * dim + (index % dim)] ?? Number.NaN));
		const out = this.#linear(this.#modulated(x, headModulation, 2, 0, 1, span), 'head.head', outChannels * ph * pw, dim);
		const velocity = new Float32Array(outChannels * frames * height * width);
		next = 0;
		for (let token = 0; token < tokens; token++) {
			const [frame, row, column] = [Math.floor(token / perFrame), Math.floor(token / columns) % rows, token % columns];
			for (let dy = 0; dy < ph; dy++) {
				for (let dx = 0; dx < pw; dx++) {
					for (let channel = 0; channel < outChannels; channel++) {
						velocity[((channel * frames + frame) * height + row * ph + dy) * width + column * pw + dx] = out[next++] ?? Number.NaN;
					}
				}
			}
		}
		return { velocity, newK, newV };
	}
}
