/** Complete model folders with random weights, small enough for fast tests: the arithmetic is real, the pictures are noise. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { encodeSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import { type OwnModelSpec, parseModelSpec, type TextSpec, type VaeSpec } from '../../src/model/spec.js';

/** A generator of uniform numbers in [0, 1), the same for the same seed (mulberry32). */
export const createRandom = (seed: number): (() => number) => {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
};

/** Standard normal numbers (Box-Muller). */
export const randomNormals = (count: number, seed: number, scale = 1): Float32Array => {
	const random = createRandom(seed);
	return Float32Array.from({ length: count }, () => scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
};

const WORDS = ['<pad>', '</s>', '<unk>', 'a', 'the', 'cat', 'dog', 'rocket', 'jumps', 'flies', 'on', 'over', 'beach', 'snow', 'at', 'night', 'don\'t'];

/** Odd sizes on purpose: whatever assumes a power of two or a square should fail here. */
export const SMALL_SPEC = {
	format: 1, name: 'small', title: 'random weights for tests', license: 'Apache-2.0',
	fps: 16, width: 48, height: 32, sizes: [[48, 32], [32, 32]],
	text: { kind: 'umt5', vocab_size: 20, dim: 20, dim_attn: 24, dim_ffn: 28, num_heads: 3, num_layers: 2, num_buckets: 32, max_dist: 128, eps: 1e-6, text_len: 9 },
	dit: {
		kind: 'wan-causal', dim: 40, ffn_dim: 72, num_heads: 2, num_layers: 2, in_dim: 6, out_dim: 6, patch_size: [1, 2, 2], freq_dim: 32,
		text_dim: 20, text_len: 9, eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 100, control_dim: 5, pooled_text: true,
	},
	vae: {
		kind: 'group-decoder', latent_channels: 6, spatial_stride: 8, frames_per_latent: 4, widths: [12, 10, 6], blocks: [2, 1, 1], grow: [2, 2],
		latent_mean: [0.1, -0.2, 0.3, 0, 0.05, -0.1], latent_std: [1, 1.2, 0.8, 0.9, 1.1, 1],
	},
	stream: { latents_per_chunk: 2, window_latents: 6, sink_latents: 0, context_timestep: 0 },
	schedules: { 1: [1000], 2: [1000, 750], 4: [1000, 900, 750, 500] }, default_steps: 2, sampler: 'renoise',
	controls: [{ name: 'steer_x', index: 0, min: -1, max: 1, default: 0, label: 'steer left/right' }], control_present_index: 4,
	examples: ['a cat jumps on the beach at night'],
} as const;

type Shapes = { readonly [name: string]: readonly number[] };

export const textShapes = (spec: TextSpec): Shapes => {
	const shapes: Record<string, readonly number[]> = { 'token_embedding.weight': [spec.vocab_size, spec.dim], 'norm.weight': [spec.dim] };
	for (let block = 0; block < spec.num_layers; block++) {
		const at = `blocks.${block}`;
		Object.assign(shapes, {
			[`${at}.norm1.weight`]: [spec.dim], [`${at}.norm2.weight`]: [spec.dim],
			[`${at}.attn.q.weight`]: [spec.dim_attn, spec.dim], [`${at}.attn.k.weight`]: [spec.dim_attn, spec.dim],
			[`${at}.attn.v.weight`]: [spec.dim_attn, spec.dim], [`${at}.attn.o.weight`]: [spec.dim, spec.dim_attn],
			[`${at}.ffn.gate.0.weight`]: [spec.dim_ffn, spec.dim], [`${at}.ffn.fc1.weight`]: [spec.dim_ffn, spec.dim],
			[`${at}.ffn.fc2.weight`]: [spec.dim, spec.dim_ffn], [`${at}.pos_embedding.embedding.weight`]: [spec.num_buckets, spec.num_heads],
		});
	}
	return shapes;
};

export const vaeShapes = (spec: VaeSpec): Shapes => {
	const conv = (name: string, out: number, inputs: number, kernel: number): Shapes => ({ [`${name}.weight`]: [out, inputs, kernel, kernel], [`${name}.bias`]: [out] });
	const shapes: Record<string, readonly number[]> = { ...conv('conv_in', spec.widths[0] ?? 0, spec.latent_channels, 3), ...conv('conv_out', 12, spec.widths.at(-1) ?? 0, 3) };
	for (const [level, width] of spec.widths.entries()) {
		for (let block = 0; block < (spec.blocks[level] ?? 0); block++) {
			const at = `levels.${level}.blocks.${block}`;
			Object.assign(shapes, conv(`${at}.conv0`, width, 2 * width, 3), conv(`${at}.conv2`, width, width, 3), conv(`${at}.conv4`, width, width, 3));
		}
		if (level < spec.widths.length - 1) {
			Object.assign(shapes, conv(`levels.${level}.up`, (spec.grow[level] ?? 1) * 4 * (spec.widths[level + 1] ?? 0), width, 1));
		}
	}
	return shapes;
};

/** Norm weights near 1, biases near 0, everything else scaled so that activations keep their size. */
export const randomWeights = (shapes: Shapes, seed: number, dtype: 'F32' | 'BF16'): Uint8Array => {
	const tensors: Record<string, TensorToWrite> = {};
	for (const [index, [name, shape]] of Object.entries(shapes).entries()) {
		const count = shape.reduce((product, dimension) => product * dimension, 1);
		const isNorm = /norm\w*\.weight$/u.test(name);
		const isTable = name.includes('embedding.weight') && shape.length === 2 && !name.startsWith('pooled');
		const fanIn = shape.length > 1 ? count / (shape[0] ?? 1) : 100;
		const gain = name.startsWith('conv') || name.startsWith('levels') ? Math.SQRT2 : 1;
		const values = randomNormals(count, seed * 1000 + index, isNorm ? 0.1 : isTable ? 1 : name.includes('modulation') ? 0.3 : gain / Math.sqrt(fanIn));
		const offset = isNorm ? 1 : name === 'conv_out.bias' ? 0.5 : 0;
		const floats = values.map((value) => value + offset);
		// The upper half of a float32 is its bfloat16, rounded towards zero: good enough for random numbers.
		tensors[name] = { dtype, shape, data: dtype === 'F32' ? floats : Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16) };
	}
	return encodeSafetensors(tensors);
};

/** Sections to replace, field by field; what is left out stays as in `SMALL_SPEC`. */
export type SpecChanges = {
	readonly [K in keyof OwnModelSpec]?: OwnModelSpec[K] extends readonly unknown[] ? OwnModelSpec[K] : OwnModelSpec[K] extends object ? Partial<OwnModelSpec[K]> : OwnModelSpec[K];
};

export type RandomModelOptions = { readonly changes?: SpecChanges; readonly seed?: number; readonly dtype?: 'F32' | 'BF16' };

export type RandomModel = AsyncDisposable & { readonly path: string; readonly spec: OwnModelSpec };

const changed = (changes: SpecChanges): Record<string, unknown> => {
	const spec: Record<string, unknown> = structuredClone(SMALL_SPEC);
	for (const [key, change] of Object.entries(changes)) {
		const isSection = typeof change === 'object' && !Array.isArray(change) && key !== 'schedules';
		spec[key] = isSection ? { ...(spec[key] as object), ...change } : change;
	}
	return spec;
};

/** Writes a model folder below the system's temporary directory; `await using` removes it. The same options give the same bytes. */
export const writeRandomModel = async (options: RandomModelOptions = {}): Promise<RandomModel> => {
	const { changes = {}, seed = 1, dtype = 'F32' } = options;
	const draft = changed(changes) as unknown as OwnModelSpec;
	const words = { kind: 'words', lowercase: true, pad: 0, end: 1, unknown: 2, words: WORDS.slice(0, draft.text.vocab_size), aliases: { kitty: 'cat' } };
	const contents = {
		text: { file: 'text.safetensors', bytes: randomWeights(textShapes(draft.text), seed, dtype) },
		dit: { file: 'dit.safetensors', bytes: randomWeights(ditTensors(draft.dit, false), seed + 1, dtype) },
		vae: { file: 'vae.safetensors', bytes: randomWeights(vaeShapes(draft.vae), seed + 2, dtype) },
		tokenizer: { file: 'tokenizer.json', bytes: new TextEncoder().encode(JSON.stringify(words)) },
	};
	const files = Object.fromEntries(Object.entries(contents).map(([key, { file, bytes }]) =>
		[key, { file, sha256: createHash('sha256').update(bytes).digest('hex'), bytes: bytes.length }]));
	const json = { ...draft, files };
	const spec = parseModelSpec(json);
	const path = await mkdtemp(join(tmpdir(), 'turbocast-model-'));
	for (const { file, bytes } of Object.values(contents)) {
		await writeFile(join(path, file), bytes);
	}
	await writeFile(join(path, 'model.json'), JSON.stringify(json, null, '\t'));
	return { path, spec, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};
