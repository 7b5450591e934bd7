/**
 * A known piece of work for a device: one block of a denoiser over a past, and one block of a decoder, with seeded weights. What the processor
 * computes in float32 is right; how far off a device is, and how long it takes, decides whether it is used.
 */
import { ditTensors } from '../model/dit-tensors.js';
import { ditGraph, type KeysPlace } from '../model/dit.js';
import { isTiled, tiledTensors } from '../model/quant-checkpoint.js';
import { ropeTables } from '../model/rope.js';
import { encodeSafetensors, parseSafetensors, type TensorToWrite } from '../model/safetensors.js';
import type { DitDimensions, VaeSpec } from '../model/spec.js';
import { timeSinusoids } from '../model/time-embedding.js';
import { decoderGraph } from '../model/vae-decoder.js';
import { Weights } from '../model/weights.js';
import type { Backend, Feeds, Graph, Tensor } from './backend.js';
import { createOnnxRuntime } from './backends/onnxruntime.js';
import { gaussianNoise } from './noise.js';
import { type OpenDevice, openDevice } from './open-device.js';
import { decoderArithmetic, denoiserArithmetic, needsKernels, stateType } from './profile.js';
import type { CardProfile, EngineProfile } from './protocol.js';
import { stateFeed } from './resident-kv.js';
import { keysPlace, slotsFeed } from './window-kv.js';

/** Large enough that a card is faster although each of its hundred kernels takes some time to start; odd channels, which one layout of ONNX Runtime 1.30 gets wrong. */
const DIT: DitDimensions = {
	dim: 256, ffn_dim: 1024, num_heads: 4, num_layers: 1, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 64, text_len: 16, eps: 1e-6,
	qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const VAE: VaeSpec = {
	kind: 'group-decoder', latent_channels: 6, spatial_stride: 4, frames_per_latent: 2, widths: [30, 14], blocks: [1, 1], grow: [2],
	latent_mean: [0, 0, 0, 0, 0, 0], latent_std: [1, 1, 1, 1, 1, 1], int8_ranges: {},
};
const [FRAMES, SIDE, PAST_FRAMES] = [3, 16, 3];
/** A clip in the sizes that our kernels take, its layers stored in 8 bits: 98 tokens, of whose two blocks of keys one is seen. */
const TURBO: DitDimensions = { ...DIT, dim: 128, ffn_dim: 128, num_heads: 2 };
const TURBO_SHAPE = { ratio: 0.5, blockQueries: 128, blockKeys: 64 };
const [TURBO_FRAMES, TURBO_SIDE] = [2, 14];
const RUNS = 2;

export type SelfTest = {
	/** Of the worst output; NaN when anything is not a number. */
	readonly relativeError: number;
	/** Fastest of a few runs of both graphs. */
	readonly deviceMs: number;
	readonly cpuMs: number;
};

const product = (shape: readonly number[]): number => shape.reduce((total, size) => total * size, 1);

const noise = (index: number, count: number): Float32Array => gaussianNoise({ seed: 7, chunkIndex: index, stepIndex: 0 }, count);

const seeded = (shapes: { readonly [name: string]: readonly number[] }, salt: number, isQuantized = false): Weights => new Weights(parseSafetensors('self-test', encodeSafetensors(
	Object.fromEntries(Object.entries(shapes).flatMap(([name, shape], index): [string, TensorToWrite][] => {
		const isNorm = /norm\w*\.weight$/u.test(name);
		const scale = 1 / Math.sqrt(shape.length > 1 ? product(shape.slice(1)) : 100);
		const data = noise(salt + index, product(shape)).map((value) => (isNorm ? 1 + 0.1 * value : scale * value));
		return isQuantized && isTiled(name, shape) ? Object.entries(tiledTensors(name, data, shape as [number, number])) : [[name, { dtype: 'F32', shape, data }]];
	})))));

const decoderShapes = (): { readonly [name: string]: readonly number[] } => {
	const shapes: Record<string, readonly number[]> = {};
	const convolution = (name: string, outputs: number, inputs: number, kernel: number): void => {
		Object.assign(shapes, { [`${name}.weight`]: [outputs, inputs, kernel, kernel], [`${name}.bias`]: [outputs] });
	};
	const [first = 0, second = 0] = VAE.widths;
	convolution('conv_in', first, VAE.latent_channels, 3);
	for (const [level, width] of VAE.widths.entries()) {
		const at = `levels.${level}.blocks.0`;
		convolution(`${at}.conv0`, width, 2 * width, 3);
		convolution(`${at}.conv2`, width, width, 3);
		convolution(`${at}.conv4`, width, width, 3);
	}
	convolution('levels.0.up', (VAE.grow[0] ?? 1) * 4 * second, first, 1);
	convolution('conv_out', 12, second, 3);
	return shapes;
};

export type Work = { readonly graph: Graph; readonly feeds: Feeds };

/** What our kernels are for: sparse attention and layers in 8-bit tiles. */
const kernelWork = (profile: EngineProfile, backend: Pick<Backend, 'hasKernels'>): Work => {
	const [rows, headDim] = [TURBO_SIDE / 2, TURBO.dim / TURBO.num_heads];
	const [tokens, text, type] = [TURBO_FRAMES * rows * rows, [TURBO.num_heads, TURBO.text_len, headDim], stateType(profile)];
	const { cos, sin } = ropeTables(headDim, TURBO.rope_theta, { firstPosition: 0, frames: TURBO_FRAMES, rows, columns: rows });
	const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
	return {
		graph: ditGraph(TURBO, {
			weights: seeded(ditTensors(TURBO, true), 3000, true), mode: { kind: 'clip', sparse: TURBO_SHAPE }, ...denoiserArithmetic(profile, backend), frames: TURBO_FRAMES, height: TURBO_SIDE, width: TURBO_SIDE,
		}),
		feeds: {
			latent: float32([TURBO.in_dim, TURBO_FRAMES, TURBO_SIDE, TURBO_SIDE], noise(9, TURBO.in_dim * TURBO_FRAMES * TURBO_SIDE * TURBO_SIDE)), time: float32([1, TURBO.freq_dim], timeSinusoids([700], TURBO.freq_dim)),
			rope_cos: float32([tokens, headDim / 2], cos), rope_sin: float32([tokens, headDim / 2], sin),
			'cross_k.0': stateFeed(noise(10, product(text)), text, type), 'cross_v.0': stateFeed(noise(11, product(text)), text, type),
		},
	};
};

/** A block over a past, whose keys and values lie where the streams of the device have them; `salt` is for other inputs of the same block. */
export const streamWork = (profile: EngineProfile, backend: Pick<Backend, 'hasKernels'>, keys: KeysPlace, salt = 0): Work => {
	const [rows, headDim, type] = [SIDE / 2, DIT.dim / DIT.num_heads, stateType(profile)];
	const tokens = FRAMES * rows * rows;
	const { cos, sin } = ropeTables(headDim, DIT.rope_theta, { firstPosition: PAST_FRAMES + salt, frames: FRAMES, rows, columns: rows });
	const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
	const state = (index: number, dims: readonly number[]): Feeds[string] => stateFeed(noise(index + salt, product(dims)), dims, type);
	// In a window the frames to be written come last.
	const [past, window, text] = [[DIT.num_heads, PAST_FRAMES * rows * rows, headDim], [PAST_FRAMES + FRAMES, rows * rows, DIT.dim], [DIT.num_heads, DIT.text_len, headDim]];
	const pasts: Feeds = keys === 'handed over'
		? { 'past_k.0': state(2, past), 'past_v.0': state(3, past) }
		: { 'window_k.0': state(2, window), 'window_v.0': state(3, window), slots: slotsFeed(Array.from({ length: FRAMES }, (_, frame) => PAST_FRAMES + frame)) };
	return {
		graph: ditGraph(DIT, { weights: seeded(ditTensors(DIT, false), 1000), mode: { kind: 'chunk', keys }, ...denoiserArithmetic(profile, backend), frames: FRAMES, height: SIDE, width: SIDE }),
		feeds: {
			latent: float32([DIT.in_dim, FRAMES, SIDE, SIDE], noise(1 + salt, DIT.in_dim * FRAMES * SIDE * SIDE)), time: float32([FRAMES, DIT.freq_dim], timeSinusoids([900 - salt, 500, 100], DIT.freq_dim)),
			rope_cos: float32([tokens, headDim / 2], cos), rope_sin: float32([tokens, headDim / 2], sin),
			...pasts, 'cross_k.0': state(4, text), 'cross_v.0': state(5, text),
		},
	};
};

const decoderWork = (profile: EngineProfile): Work => {
	const state = (index: number, dims: readonly number[]): Feeds[string] => stateFeed(noise(index, product(dims)), dims, stateType(profile));
	return {
		graph: decoderGraph(VAE, { weights: seeded(decoderShapes(), 2000), arithmetic: decoderArithmetic(profile, false), height: SIDE, width: SIDE, output: 'rgb' }),
		feeds: {
			latent: { type: 'float32', dims: [VAE.latent_channels, SIDE, SIDE], data: noise(6, VAE.latent_channels * SIDE * SIDE) },
			'memory.0.0': state(7, [VAE.widths[0] ?? 0, SIDE, SIDE]), 'memory.1.0': state(8, [VAE.widths[1] ?? 0, 2 * SIDE, 2 * SIDE]),
		},
	};
};

const graphsOf = (profile: EngineProfile, backend: Pick<Backend, 'hasKernels'>, keys: KeysPlace): readonly Work[] => [streamWork(profile, backend, keys), decoderWork(profile)];

const WANTED: { readonly [graph: string]: string } = { dit: 'velocity', 'vae-decoder': 'frames' };

const measure = async (backend: Pick<Backend, 'load'>, works: readonly Work[], runs: number, nowMs: () => number): Promise<{ readonly outputs: readonly Float32Array[]; readonly ms: number }> => {
	const outputs: Float32Array[] = [];
	let ms = 0;
	for (const { graph, feeds } of works) {
		const session = await backend.load(graph);
		try {
			const name = WANTED[graph.name] ?? '';
			outputs.push((await session.run(feeds, [name]))[name]?.data as Float32Array);
			const times: number[] = [];
			for (let run = 0; run < runs; run++) {
				const startMs = nowMs();
				await session.run(feeds, [name]);
				times.push(nowMs() - startMs);
			}
			ms += Math.min(...times);
		} finally {
			await session.close();
		}
	}
	return { outputs, ms };
};

export const relativeError = (ours: Float32Array, right: Float32Array): number => {
	let [difference, size] = [0, 0];
	for (const [index, expected] of right.entries()) {
		difference += ((ours[index] ?? Number.NaN) - expected) ** 2;
		size += expected ** 2;
	}
	return Math.sqrt(difference / size);
};

export type SelfTestRequest = {
	readonly profile: CardProfile;
	readonly threads: number;
	/** With our own kernels, and more work that is theirs. Profiles that are made of them have nothing else. */
	readonly kernels?: boolean | undefined;
	/** For tests. */
	readonly open?: OpenDevice | undefined;
	/** Of each graph, timed, after the one that is compared; for tests. */
	readonly runs?: number | undefined;
};

/** Runs it on the device of `profile` and on the processor. May end the process when a driver fails: give it one of its own. Throws `device_unavailable`. */
export const runSelfTest = async ({ profile, threads, kernels = needsKernels(profile), open = openDevice, runs = RUNS }: SelfTestRequest, nowMs: () => number): Promise<SelfTest> => {
	const device = open(profile, threads, kernels);
	const keys = keysPlace(device);
	const works = (of: EngineProfile, backend: Pick<Backend, 'hasKernels'>): readonly Work[] =>
		(kernels ? [...graphsOf(of, backend, keys), kernelWork(of, backend)] : graphsOf(of, {}, keys));
	try {
		const ours = await measure(device, works(profile, device), runs, nowMs);
		const right = await measure(createOnnxRuntime({ threads }), works('cpu-fp32', {}), runs, nowMs);
		const errors = right.outputs.map((expected, index) => relativeError(ours.outputs[index] ?? new Float32Array(0), expected));
		return { relativeError: errors.some(Number.isNaN) ? Number.NaN : Math.max(...errors), deviceMs: ours.ms, cpuMs: right.ms };
	} finally {
		await device.close();
	}
};
