/** Forwards of a denoiser on a device as an engine has them made: by the same networks, over a full window, told and given back what an engine tells and asks for. */
import { closeState, type ResidentTensor, type StateTensor } from '../engine/backend.js';
import type { KvShape } from '../engine/kv-cache.js';
import type { PromptTensors, ResidentNetworks, ResidentStepInputs } from '../engine/networks.js';
import { gaussianNoise } from '../engine/noise.js';
import { RUNS_BEFORE_RECORDING, RUNS_OF_ALL_THREADS } from '../engine/recorded-forwards.js';
import type { LatentDims } from '../model/latent-graphs.js';

/** Until what is recorded is replayed by whichever thread. */
export const RUNS_UNTIL_REPLAYED = RUNS_BEFORE_RECORDING + RUNS_OF_ALL_THREADS;

/** Somewhere between noise and picture; what the numbers are takes no time. */
const [TIMESTEP, FACTORS, NOISE_FACTOR] = [500, { latent: 1, velocity: -0.25 }, 0.5];

export type ForwardsOptions = {
	readonly prompt: PromptTensors;
	readonly chunkDims: LatentDims;
	/** Whether the sampler draws noise between two steps. */
	readonly drawsNoise: boolean;
	/** Of a stream; clips have none, and see no past. */
	readonly window?: KvShape | undefined;
};

export type Forwards = {
	/** A step from a latent that lies there, with the sampler's update; over when the device is done with both. */
	readonly step: () => Promise<void>;
	/** A clean pass of a stream whose keys and values become history. */
	readonly clean: () => Promise<void>;
	/** Frees what it made; the networks are closed by whoever loaded them. */
	readonly close: () => void;
};

/** Fills the window first, by clean passes. Not for concurrent use. */
export const openForwards = async (resident: ResidentNetworks, { prompt, chunkDims, drawsNoise, window }: ForwardsOptions): Promise<Forwards> => {
	const frames = chunkDims[1];
	const kv = window === undefined ? undefined : resident.createKv(window);
	const noiseOf = (stepIndex: number): Float32Array => gaussianNoise({ seed: 1, chunkIndex: 0, stepIndex }, chunkDims.reduce((product, size) => product * size, 1));
	const inputs = async (latent: StateTensor, wantKeysAndValues: boolean): Promise<ResidentStepInputs> => {
		await kv?.prepare?.();
		const layers = kv?.layers ?? [];
		return {
			latent, timesteps: new Array<number>(kv === undefined ? 1 : frames).fill(TIMESTEP), prompt, firstPosition: window?.capacityLatents ?? 0,
			pastK: layers.map(({ k }) => k), pastV: layers.map(({ v }) => v), pastTokens: kv?.past ?? 0, slots: kv?.slots, wantKeysAndValues,
		};
	};
	const advance = async (latent: StateTensor): Promise<ResidentTensor> => {
		const step = { ...await inputs(latent, false), factors: { ...FACTORS, noise: drawsNoise ? NOISE_FACTOR : 0 }, freshNoise: () => noiseOf(1), isLast: false };
		const [advanced] = await resident.advance([step]);
		await resident.settle?.();
		return (advanced as { readonly latent: ResidentTensor }).latent;
	};
	let latent: ResidentTensor | undefined;
	const close = (): void => {
		kv?.close();
		closeState(latent === undefined ? [] : [latent]);
	};
	const clean = async (): Promise<void> => {
		const layers = await resident.cleanPass(await inputs(latent ?? noiseOf(0), true));
		await kv?.append(kv.placed?.() ?? layers, frames);
	};
	try {
		// After the first step the latent is where those of other steps find it.
		latent = await advance(noiseOf(0));
		for (let filled = 0; filled < (window?.capacityLatents ?? 0); filled += frames) {
			await clean();
		}
	} catch (error) {
		close();
		throw error;
	}
	return { step: async () => closeState([await advance(latent)]), clean, close };
};
