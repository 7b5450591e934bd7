/**
 * One chunk through the denoiser: a few noisy steps, and later one clean pass that tells attention what was made
 * (Self-Forcing's inference loop). Between any two runs of a network comes the caller's `checkpoint`.
 */
import { TurbocastError } from '../protocol/errors.js';
import { closeState, type StateTensor } from './backend.js';
import type { LayerState, StreamKv } from './kv-cache.js';
import type { Networks, PromptTensors, ResidentNetworks, StepInputs } from './networks.js';
import { gaussianNoise } from './noise.js';
import { advance, scheduleOf, stepFactors } from './schedule.js';

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

const stepInputs = async <Latent extends StateTensor>(context: ChunkContext, latent: Latent, timestep: number, wantKeysAndValues: boolean): Promise<Omit<StepInputs, 'latent'> & { readonly latent: Latent }> => {
	const { latents_per_chunk: latents } = context.networks.spec.stream;
	await context.past.prepare?.();
	const { layers, past, slots } = context.past;
	return {
		latent,
		timesteps: Array.from({ length: latents }, () => timestep),
		control: context.control,
		prompt: context.prompt,
		firstPosition: context.chunkIndex * latents,
		pastK: layers.map((layer) => layer.k),
		pastV: layers.map((layer) => layer.v),
		pastTokens: past,
		slots,
		wantKeysAndValues,
		signal: context.signal,
	};
};

/** The clean latents of a chunk. What lies on a device is closed by whoever asked for it. */
export type CleanChunk = {
	/** [C, latents_per_chunk, h, w] */
	readonly latent: StateTensor;
	/** Each latent frame as the decoder takes it, [C, h, w]. */
	readonly frames: readonly StateTensor[];
};

/** Of the noise before step `stepIndex`. */
const noiseOf = ({ networks, seed, chunkIndex }: ChunkContext, stepIndex: number): Float32Array => {
	const { spec, latentWidth, latentHeight } = networks;
	return gaussianNoise({ seed, chunkIndex, stepIndex }, spec.dit.in_dim * spec.stream.latents_per_chunk * latentHeight * latentWidth);
};

const denoiseHere = async (context: ChunkContext, steps: number): Promise<CleanChunk> => {
	const { networks } = context;
	const { spec } = networks;
	let x = noiseOf(context, 0);
	for (const [stepIndex, step] of scheduleOf(spec, steps).entries()) {
		await context.checkpoint();
		const { velocity } = await networks.step(await stepInputs(context, x, step.timestep, false));
		checkFinite(velocity, `step ${stepIndex + 1} of ${steps}`);
		x = advance(spec.sampler, step, x, velocity, () => noiseOf(context, stepIndex + 1));
	}
	const { latents_per_chunk: latents } = spec.stream;
	return { latent: x, frames: Array.from({ length: latents }, (_, index) => latentFrame(x, spec.vae.latent_channels, latents, index)) };
};

/** The same without a latent or a velocity coming back; numbers that are not finite show when the first frame is decoded. */
const denoiseThere = async (context: ChunkContext, steps: number, resident: ResidentNetworks): Promise<CleanChunk> => {
	const { spec } = context.networks;
	let clean: CleanChunk = { latent: noiseOf(context, 0), frames: [] };
	for (const [stepIndex, step] of scheduleOf(spec, steps).entries()) {
		const { latent } = clean;
		try {
			await context.checkpoint();
			const [advanced] = await resident.advance([{
				...await stepInputs(context, latent, step.timestep, false), factors: stepFactors(spec.sampler, step),
				freshNoise: () => noiseOf(context, stepIndex + 1), isLast: step.nextSigma === undefined,
			}]);
			clean = advanced as CleanChunk;
		} finally {
			closeState([latent]);
		}
	}
	return clean;
};

/**
 * Noise to clean latents in `steps` forwards. The noise of a tensor is named by (seed, chunk, step), the first being that of step 0, so a chunk comes
 * out the same whenever and however often it is made.
 */
export const denoiseChunk = (context: ChunkContext, steps: number): Promise<CleanChunk> =>
	(context.networks.resident === undefined ? denoiseHere(context, steps) : denoiseThere(context, steps, context.networks.resident));

/**
 * Keys and values of the finished latents, for the cache; computed at the model's context timestep. Those on a device are good until the next
 * clean pass, and checked by the cache.
 */
export const cleanPass = async (context: ChunkContext, latent: StateTensor): Promise<readonly LayerState[]> => {
	await context.checkpoint();
	const { networks } = context;
	const { context_timestep: timestep } = networks.spec.stream;
	if (networks.resident !== undefined) {
		const layers = await networks.resident.cleanPass(await stepInputs(context, latent, timestep, true));
		return context.past.placed?.() ?? layers;
	}
	const { newK, newV } = await networks.step(await stepInputs(context, latent as Float32Array, timestep, true));
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
