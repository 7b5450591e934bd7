/** What a forward of a published network is told, besides keys and values. */
import { ropeTables } from '../model/rope.js';
import type { DitDimensions } from '../model/spec.js';
import { timeSinusoids } from '../model/time-embedding.js';
import type { DeviceBackend, Feeds } from './backend.js';
import { HeldFeeds } from './held-feeds.js';
import { imageCondition } from './image-condition.js';
import type { ResidentStepInputs } from './networks.js';
import { stateFeed } from './resident-kv.js';

export type JoinedFeedsOptions = {
	readonly dit: DitDimensions;
	/** Of the latent; the network may read more, which are the condition of a picture. */
	readonly latentChannels: number;
	/** Latent frames of a forward, and the size of a latent. */
	readonly frames: number;
	readonly height: number;
	readonly width: number;
};

/** Closed by whoever made it. Not for concurrent use. */
export type JoinedFeeds = { readonly of: (inputs: ResidentStepInputs) => Promise<Feeds>; readonly close: () => void };

/** Tables of positions and the condition of a picture are held on the device, where there is one. */
export const joinedFeeds = (device: DeviceBackend | undefined, { dit, latentChannels, frames, height, width }: JoinedFeedsOptions): JoinedFeeds => {
	const [, patchHeight = 1, patchWidth = 1] = dit.patch_size;
	const [rows, columns, headDim] = [height / patchHeight, width / patchWidth, dit.dim / dit.num_heads];
	const tables = new HeldFeeds<number>(device);
	const conditions = new HeldFeeds<Float32Array>(device);
	const conditionOf = (image: Float32Array): Promise<Feeds> =>
		conditions.of(image, () => ({ condition: { dims: [dit.in_dim - latentChannels, frames, height, width], data: imageCondition(image, frames, height * width) } }));
	return {
		of: async (inputs) => ({
			latent: stateFeed(inputs.latent, [latentChannels, frames, height, width], 'float32'),
			time: { type: 'float32', dims: [inputs.timesteps.length, dit.freq_dim], data: timeSinusoids(inputs.timesteps, dit.freq_dim) },
			...await tables.of(inputs.firstPosition, () => {
				const { cos, sin } = ropeTables(headDim, dit.rope_theta, { firstPosition: inputs.firstPosition, frames, rows, columns });
				const dims = [frames * rows * columns, headDim / 2];
				return { rope_cos: { dims, data: cos }, rope_sin: { dims, data: sin } };
			}),
			...(inputs.image === undefined ? {} : await conditionOf(inputs.image)),
		}),
		close: () => {
			tables.close();
			conditions.close();
		},
	};
};
