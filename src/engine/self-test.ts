/**
 * A known piece of work for a device: one block of a denoiser over a past, and one block of a decoder, with seeded weights. What the processor
 * computes in float32 is right; how far off a device is, and how long it takes, decides whether it is used.
 */
import { ditTensors } from '../model/dit-tensors.js';
import { ditGraph } from '../model/dit.js';
import { ropeTables } from '../model/rope.js';
import { encodeSafetensors, parseSafetensors } from '../model/safetensors.js';
import type { DitDimensions, VaeSpec } from '../model/spec.js';
import { timeSinusoids } from '../model/time-embedding.js';
import { decoderGraph } from '../model/vae-decoder.js';
import { Weights } from '../model/weights.js';
import type { Backend, Feeds, Graph, Tensor } from './backend.js';
import { createOnnxRuntime } from './backends/onnxruntime.js';
import { gaussianNoise } from './noise.js';
import { openDevice } from './open-device.js';
import { decoderArithmetic, denoiserArithmetic, stateType } from './profile.js';
import type { CardProfile, EngineProfile } from './protocol.js';
import { stateFeed } from './resident-kv.js';

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

const seeded = (shapes: { readonly [name: string]: readonly number[] }, salt: number): Weights => new Weights(parseSafetensors('self-test', encodeSafetensors(
	Object.fromEntries(Object.entries(shapes).map(([name, shape], index) => {
		const isNorm = /norm\w*\.weight$/u.test(name);
		const scale = 1 / Math.sqrt(shape.length > 1 ? product(shape.slice(1)) : 100);
		return [name, { dtype: 'F32' as const, shape, data: noise(salt + index, product(shape)).map((value) => (isNorm ? 1 + 0.1 * value : scale * value)) }];
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

const graphsOf = (profile: EngineProfile): readonly { readonly graph: Graph; readonly feeds: Feeds }[] => {
	const [rows, headDim, type] = [SIDE / 2, DIT.dim / DIT.num_heads, stateType(profile)];
	const tokens = FRAMES * rows * rows;
	const { cos, sin } = ropeTables(headDim, DIT.rope_theta, { firstPosition: PAST_FRAMES, frames: FRAMES, rows, columns: rows });
	const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
	const state = (index: number, dims: readonly number[]): Feeds[string] => stateFeed(noise(index, product(dims)), dims, type);
	const [past, text] = [[DIT.num_heads, PAST_FRAMES * rows * rows, headDim], [DIT.num_heads, DIT.text_len, headDim]];
	const first = VAE.widths[0] ?? 0;
	return [{
		graph: ditGraph(DIT, { weights: seeded(ditTensors(DIT, false), 1000), mode: { kind: 'chunk' }, ...denoiserArithmetic(profile), frames: FRAMES, height: SIDE, width: SIDE }),
		feeds: {
			latent: float32([DIT.in_dim, FRAMES, SIDE, SIDE], noise(1, DIT.in_dim * FRAMES * SIDE * SIDE)), time: float32([FRAMES, DIT.freq_dim], timeSinusoids([900, 500, 100], DIT.freq_dim)),
			rope_cos: float32([tokens, headDim / 2], cos), rope_sin: float32([tokens, headDim / 2], sin),
			'past_k.0': state(2, past), 'past_v.0': state(3, past), 'cross_k.0': state(4, text), 'cross_v.0': state(5, text),
		},
	}, {
		graph: decoderGraph(VAE, { weights: seeded(decoderShapes(), 2000), arithmetic: decoderArithmetic(profile, false), height: SIDE, width: SIDE, output: 'rgb' }),
		feeds: {
			latent: float32([VAE.latent_channels, SIDE, SIDE], noise(6, VAE.latent_channels * SIDE * SIDE)),
			'memory.0.0': state(7, [first, SIDE, SIDE]), 'memory.1.0': state(8, [VAE.widths[1] ?? 0, 2 * SIDE, 2 * SIDE]),
		},
	}];
};

const WANTED: { readonly [graph: string]: string } = { dit: 'velocity', 'vae-decoder': 'frames' };

const measure = async (backend: Pick<Backend, 'load'>, profile: EngineProfile, nowMs: () => number): Promise<{ readonly outputs: readonly Float32Array[]; readonly ms: number }> => {
	const outputs: Float32Array[] = [];
	let ms = 0;
	for (const { graph, feeds } of graphsOf(profile)) {
		const session = await backend.load(graph);
		try {
			const name = WANTED[graph.name] ?? '';
			outputs.push((await session.run(feeds, [name]))[name]?.data as Float32Array);
			const times: number[] = [];
			for (let run = 0; run < RUNS; run++) {
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

const relativeError = (ours: Float32Array, right: Float32Array): number => {
	let [difference, size] = [0, 0];
	for (const [index, expected] of right.entries()) {
		difference += ((ours[index] ?? Number.NaN) - expected) ** 2;
		size += expected ** 2;
	}
	return Math.sqrt(difference / size);
};

/** Runs it on the device of `profile` and on the processor. May end the process when a driver fails: give it one of its own. Throws `device_unavailable`. */
export const runSelfTest = async (profile: CardProfile, threads: number, nowMs: () => number): Promise<SelfTest> => {
	const device = openDevice(profile, threads);
	try {
		const ours = await measure(device, profile, nowMs);
		const right = await measure(createOnnxRuntime({ threads }), 'cpu-fp32', nowMs);
		const errors = right.outputs.map((expected, index) => relativeError(ours.outputs[index] ?? new Float32Array(0), expected));
		return { relativeError: errors.some(Number.isNaN) ? Number.NaN : Math.max(...errors), deviceMs: ours.ms, cpuMs: right.ms };
	} finally {
		await device.close();
	}
};
