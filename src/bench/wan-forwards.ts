/** Forwards of a denoiser with Wan's dimensions on a device, through what makes streams and clips of published networks there. */
import type { DeviceBackend } from '../engine/backend.js';
import { loadDeviceNetworks } from '../engine/device-networks.js';
import { joinedFeeds } from '../engine/joined-feeds.js';
import type { PromptTensors } from '../engine/networks.js';
import { stateType } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import { loadForward, mustRecord } from '../engine/recorded-forwards.js';
import { keysPlace } from '../engine/window-kv.js';
import type { Graph } from '../model/graph.js';
import type { DitDimensions } from '../model/spec.js';
import { WAN_STRIDE } from '../model/wan-dimensions.js';
import { TurbocastError } from '../protocol/errors.js';
import { openForwards } from './forwards.js';
import { repeatedNoise } from './random-weights.js';
import type { Running } from './stage.js';
import { CAUSAL, PAST_LATENTS } from './wan-stage-names.js';

export type WanForwardsOptions = {
	readonly graph: Graph;
	readonly spec: DitDimensions;
	readonly profile: EngineProfile;
	readonly isRecorded: boolean;
	readonly run: 'step' | 'clean';
	readonly isClip: boolean;
	/** Latent frames of a forward, and the size of a latent. */
	readonly frames: number;
	readonly height: number;
	readonly width: number;
};

/** Its keys and values are asked for below, and nothing else of it is. */
const PROMPT: PromptTensors = { context: new Float32Array(0), mask: new Float32Array(0), crossK: [], crossV: [], unknownWords: [], isTruncated: false };

/** The sampler of published models, unless they say otherwise. */
const DRAWS_NOISE = true;

export const wanForwards = async (device: DeviceBackend, options: WanForwardsOptions): Promise<Running> => {
	const { graph, spec, profile, isRecorded, run, isClip, frames, height, width } = options;
	const { num_layers: layers, num_heads: heads, text_len: textLength, out_dim: latentChannels } = spec;
	const [, patchHeight = 1, patchWidth = 1] = spec.patch_size;
	const [headDim, tokensPerLatent] = [spec.dim / heads, (height / patchHeight) * (width / patchWidth)];
	const session = await loadForward(isRecorded ? mustRecord(device) : device, graph, isRecorded);
	const feeds = joinedFeeds(device, { dit: spec, latentChannels, frames, height, width });
	const chunkDims = [latentChannels, frames, height, width] as const;
	const ofText = (): readonly Float32Array[] => Array.from({ length: layers }, (_, layer) => repeatedNoise(heads * textLength * headDim, 1, layer + 1));
	const networks = await loadDeviceNetworks({
		device, denoiser: () => Promise.resolve(session), shared: new Map(), textKeys: () => Promise.resolve({ crossK: ofText(), crossV: ofText() }), mostPrompts: 1, type: stateType(profile),
		layers, heads, headDim, textLength, tokensPerChunk: frames * tokensPerLatent, keys: isClip ? 'handed over' : keysPlace(device), frames, feeds: feeds.of, chunkDims, drawsNoise: DRAWS_NOISE,
		// Decoding is measured by itself.
		decoder: () => Promise.reject(new TurbocastError('internal', 'Forwards are measured without a decoder.')), closesDecoders: false, memoryType: 'float32', memories: [],
		latentDims: [latentChannels, height, width], framesAtStart: 1, width: width * WAN_STRIDE, height: height * WAN_STRIDE,
	}).catch(async (error: unknown) => {
		feeds.close();
		await session.close();
		throw error;
	});
	const close = async (): Promise<void> => {
		feeds.close();
		await networks.close();
		await session.close();
	};
	try {
		const forwards = await openForwards(networks.resident, {
			prompt: PROMPT, chunkDims, drawsNoise: DRAWS_NOISE, ...(isClip ? {} : { window: { layers, heads, headDim, tokensPerLatent, capacityLatents: PAST_LATENTS, sinkLatents: CAUSAL.sinkLatents } }),
		});
		return {
			run: forwards[run],
			close: async () => {
				forwards.close();
				await close();
			},
		};
	} catch (error) {
		await close();
		throw error;
	}
};
