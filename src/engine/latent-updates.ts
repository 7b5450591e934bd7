/** The sampler's part of a step on a device: from a latent and its velocity to the next latent, with graphs of `latent-graphs.ts`. */
import { latentEndGraph, type LatentDims, latentUpdateGraph } from '../model/latent-graphs.js';
import type { DeviceBackend, Feeds, ResidentSession, ResidentTensor, StateTensor } from './backend.js';
import type { Advanced, AdvanceInputs } from './networks.js';
import { stateFeed } from './resident-kv.js';

/** Closed by whoever loaded it. Not for concurrent use. */
export type LatentUpdates = {
	/** `noise` where the factor of the noise is not 0. */
	readonly update: (step: Pick<AdvanceInputs, 'latent' | 'factors' | 'isLast'>, velocity: ResidentTensor, noise: Float32Array | undefined) => Promise<Advanced>;
	readonly close: () => Promise<void>;
};

/** Graphs for latents of one size; those of a sampler that draws noise take it. */
export const loadLatentUpdates = async (device: DeviceBackend, dims: LatentDims, drawsNoise: boolean): Promise<LatentUpdates> => {
	const sessions: ResidentSession[] = [];
	const load = async (...graph: Parameters<DeviceBackend['loadResident']>): Promise<ResidentSession> => {
		const session = await device.loadResident(...graph);
		sessions.push(session);
		return session;
	};
	const close = async (): Promise<void> => {
		for (const session of sessions.splice(0)) {
			await session.close();
		}
	};
	const fed = (latent: StateTensor, velocity: ResidentTensor, factors: readonly number[]): Record<string, Feeds[string]> =>
		({ latent: stateFeed(latent, dims, 'float32'), velocity, factors: { type: 'float32', dims: [factors.length], data: Float32Array.from(factors) } });
	try {
		const [between, end] = [await load(latentUpdateGraph(dims, drawsNoise)), await load(latentEndGraph(dims))];
		const frameNames = Array.from({ length: dims[1] }, (_, frame) => `frame.${frame}`);
		return {
			update: async ({ latent, factors, isLast }, velocity, noise) => {
				const session = isLast ? end : between;
				const feeds = fed(latent, velocity, [factors.latent, factors.velocity, ...(isLast || !drawsNoise ? [] : [factors.noise])]);
				const { resident } = await session.run(isLast || noise === undefined ? feeds : { ...feeds, noise: stateFeed(noise, dims, 'float32') });
				return { latent: resident['next'] as ResidentTensor, frames: isLast ? frameNames.map((name) => resident[name] as ResidentTensor) : [] };
			},
			close,
		};
	} catch (error) {
		await close();
		throw error;
	}
};
