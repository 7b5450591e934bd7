/** A whole clip through the denoiser: noise to clean latents in one to four forwards (rcm.ts), on the processor or where a device keeps its latents. */
import { closeState } from './backend.js';
import type { Networks, PromptTensors, ResidentNetworks, StepInputs } from './networks.js';
import { gaussianNoise } from './noise.js';
import { rcmExperts, rcmFactors, rcmLoop, type RcmSolver, rcmTimes, rcmTimestep } from './rcm.js';
import { checkFinite, type CleanChunk, latentFrame } from './sampler.js';
import type { ClipSpec } from '../model/spec.js';

export type ClipContext = {
	readonly networks: Networks;
	readonly clip: ClipSpec;
	readonly prompt: PromptTensors;
	/** See `StepInputs.image`. */
	readonly image: Float32Array | undefined;
	/** Name the noise, with the step. */
	readonly seed: number;
	readonly clipIndex: number;
	/** Latent frames. */
	readonly latents: number;
	/** Lets messages be heard and throws the reason when the clip was cancelled. */
	readonly checkpoint: () => Promise<void>;
	/** The same for a run that takes long. */
	readonly signal: AbortSignal;
};

const noiseOf = ({ networks, seed, clipIndex, latents }: ClipContext, stepIndex: number): Float32Array =>
	gaussianNoise({ seed, chunkIndex: clipIndex, stepIndex }, networks.spec.vae.latent_channels * latents * networks.latentHeight * networks.latentWidth);

const solverOf = ({ networks }: ClipContext): RcmSolver => (networks.spec.sampler === 'renoise' ? 'sde' : 'ode');

/** All that a forward is told but the latent. */
const stepInputs = ({ prompt, image, signal }: ClipContext, timestep: number, expert: StepInputs['expert']): Omit<StepInputs, 'latent'> =>
	({ timesteps: [timestep], prompt, image, expert, firstPosition: 0, pastK: [], pastV: [], pastTokens: 0, wantKeysAndValues: false, signal });

type Plan = { readonly times: readonly number[]; readonly experts: readonly StepInputs['expert'][] };

const denoiseHere = async (context: ClipContext, { times, experts }: Plan): Promise<CleanChunk> => {
	const { networks, latents } = context;
	let x: Float64Array | undefined;
	const loop = rcmLoop({
		times, solver: solverOf(context), noise: noiseOf(context, 0), freshNoise: (step) => noiseOf(context, step + 1),
		forward: async (latent, timestep, step) => {
			await context.checkpoint();
			const { velocity } = await networks.step({ latent, ...stepInputs(context, timestep, experts[step]) });
			checkFinite(velocity, `step ${step + 1} of ${times.length - 1}`);
			return velocity;
		},
	});
	for await (x of loop) { /* The last is the clip. */ }
	const latent = Float32Array.from(x ?? []);
	return { latent, frames: Array.from({ length: latents }, (_, index) => latentFrame(latent, networks.spec.vae.latent_channels, latents, index)) };
};

/** The same in float32 and without a latent or a velocity coming back; numbers that are not finite show when the first frame is decoded. */
const denoiseThere = async (context: ClipContext, { times, experts }: Plan, resident: ResidentNetworks): Promise<CleanChunk> => {
	const [start = 0] = times;
	let clean: CleanChunk = { latent: noiseOf(context, 0).map((value) => value * start), frames: [] };
	for (const [step, time] of times.slice(0, -1).entries()) {
		const { latent } = clean;
		try {
			await context.checkpoint();
			const [advanced] = await resident.advance([{
				latent, ...stepInputs(context, rcmTimestep(time), experts[step]), factors: rcmFactors(solverOf(context), time, times[step + 1] ?? 0),
				freshNoise: () => noiseOf(context, step + 1), isLast: step === times.length - 2,
			}]);
			clean = advanced as CleanChunk;
		} finally {
			closeState([latent]);
		}
	}
	await resident.settle?.();
	return clean;
};

/** The clean latents of a clip of `steps` forwards. Throws `invalid_request` for a number of steps that there is no schedule for, and the reason of the signal. */
export const denoiseClip = (context: ClipContext, steps: number): Promise<CleanChunk> => {
	const { clip, networks } = context;
	const times = rcmTimes(clip.sigma_max, steps);
	const plan: Plan = { times, experts: clip.boundary === undefined ? [] : rcmExperts(times, clip.boundary) };
	return networks.resident === undefined ? denoiseHere(context, plan) : denoiseThere(context, plan, networks.resident);
};
