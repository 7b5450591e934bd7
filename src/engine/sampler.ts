/**
 * One chunk through the denoiser: a few noisy steps, and later one clean pass that tells attention what was made
 * (Self-Forcing's inference loop). Between any two runs of a network comes the caller's `checkpoint`.
 */
import { TurbocastError } from '../protocol/errors.js';
import type { LayerState, StreamKv } from './kv-cache.js';
import type { Networks, PromptTensors, StepInputs } from './networks.js';
import { gaussianNoise } from './noise.js';
import { advance, scheduleOf } from './schedule.js';

/** What all forwards of one chunk have in common. */
export type ChunkContext = {
	readonly networks: Networks;
	readonly past: StreamKv;
	readonly prompt: PromptTensors;
	/** [latents_per_chunk, control_dim] */
	readonly control: Float32Array;
	readonly seed: number;
	readonly chunkIndex: number;
	/** Lets messages be heard and throws the reason when the chunk was cancelled. */
	readonly checkpoint: () => Promise<void>;
	/** The same for a run that takes long. */
	readonly signal: AbortSignal;
};

/** A product with 0 is 0 for finite numbers and NaN for all others: one addition a number, without a branch. */
const isFinite = (array: Float32Array): boolean => {
	let sum = 0;
	for (const value of array) {
		sum += value * 0;
	}
	return sum === 0;
};

export const checkFinite = (array: Float32Array, what: string): void => {
	if (!isFinite(array)) {
		throw new TurbocastError('generation_invalid', `The network produced numbers that are not a picture (${what}); try again, or change the prompt or the seed.`);
	}
};

const stepInputs = (context: ChunkContext, latent: Float32Array, timestep: number, wantKeysAndValues: boolean): StepInputs => {
	const { latents_per_chunk: latents } = context.networks.spec.stream;
	const { layers, past } = context.past;
	return {
		latent,
		timesteps: Array.from({ length: latents }, () => timestep),
		control: context.control,
		prompt: context.prompt,
		firstPosition: context.chunkIndex * latents,
		pastK: layers.map((layer) => layer.k),
		pastV: layers.map((layer) => layer.v),
		pastTokens: past,
		wantKeysAndValues,
		signal: context.signal,
	};
};

/**
 * Noise to clean latents `[C, latents_per_chunk, h, w]` in `steps` forwards. The noise of a tensor is named by (seed, chunk, step),
 * the first being that of step 0, so a chunk comes out the same whenever and however often it is made.
 */
export const denoiseChunk = async (context: ChunkContext, steps: number): Promise<Float32Array> => {
	const { networks, seed, chunkIndex } = context;
	const { spec, latentWidth, latentHeight } = networks;
	const count = spec.dit.in_dim * spec.stream.latents_per_chunk * latentHeight * latentWidth;
	let x = gaussianNoise({ seed, chunkIndex, stepIndex: 0 }, count);
	for (const [stepIndex, step] of scheduleOf(spec, steps).entries()) {
		await context.checkpoint();
		const { velocity } = await networks.step(stepInputs(context, x, step.timestep, false));
		checkFinite(velocity, `step ${stepIndex + 1} of ${steps}`);
		x = advance(spec.sampler, step, x, velocity, () => gaussianNoise({ seed, chunkIndex, stepIndex: stepIndex + 1 }, count));
	}
	return x;
};

/**
 * Keys and values of the finished latents, for the cache; computed at the model's context timestep. Those on a device are good until the next
 * clean pass, and checked by the cache.
 */
export const cleanPass = async (context: ChunkContext, latent: Float32Array): Promise<readonly LayerState[]> => {
	await context.checkpoint();
	const { networks } = context;
	const inputs = stepInputs(context, latent, networks.spec.stream.context_timestep, true);
	if (networks.resident !== undefined) {
		return networks.resident.cleanPass(inputs);
	}
	const { newK, newV } = await networks.step(inputs);
	if (newK === undefined || newV === undefined) {
		throw new TurbocastError('internal', 'The denoiser gave no keys and values for the clean pass.');
	}
	return newK.map((k, layer) => {
		const v = newV[layer] ?? new Float32Array(0);
		// What enters the history stays there for the whole window: nothing that is not a number may.
		checkFinite(k, `keys of layer ${layer}`);
		checkFinite(v, `values of layer ${layer}`);
		return { k, v };
	});
};

/** Latent frame `index` of a chunk `[C, latents, h, w]`, as the decoder takes it: `[C, h, w]`. */
export const latentFrame = (chunk: Float32Array, channels: number, latents: number, index: number): Float32Array => {
	const plane = chunk.length / (channels * latents);
	const frame = new Float32Array(channels * plane);
	for (let channel = 0; channel < channels; channel++) {
		const start = (channel * latents + index) * plane;
		frame.set(chunk.subarray(start, start + plane), channel * plane);
	}
	return frame;
};
