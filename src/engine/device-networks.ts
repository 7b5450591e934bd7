/**
 * The denoiser and the decoder of an own model on a device with memory of its own: weights, keys and values, the decoder's memory and the latents of a
 * chunk stay there. What crosses to the device is what a step is told (noise, time, positions, controls); what comes back are the bytes of the pictures.
 *
 * The sampler's update is a small graph after the forward, not a part of it and not of a loop over all steps: a chunk may have any number of steps,
 * others have their turn between two of them, it can be cancelled there, and those of several streams share the forward alone.
 */
import { i420Bytes } from '../base/frame.js';
import type { LatentDims } from '../model/latent-graphs.js';
import type { StateType } from '../model/state-graphs.js';
import { closeState, type DeviceBackend, type DeviceSession, type Feeds, isResident, type ResidentSession, type ResidentTensor, type StateTensor } from './backend.js';
import { TurbocastError } from '../protocol/errors.js';
import { nameOfStream } from '../model/stream-names.js';
import { loadLatentUpdates } from './latent-updates.js';
import type { Advanced, AdvanceInputs, DecodedLatent, DecoderMemory, PromptTensors, ResidentNetworks, ResidentStepInputs, StepInputs, StepOutputs, StepsTogether } from './networks.js';
import { noSuchSize, sharedFeeds } from './shared-feeds.js';
import { KvAppends, ResidentKv, stateFeed } from './resident-kv.js';

/** Prompts whose keys and values stay on the device; streams that take turns keep theirs, and a mixture made anew for each chunk pushes out old ones. */
const MAX_RESIDENT_PROMPTS = 8;

export type DeviceNetworksOptions = {
	readonly device: DeviceBackend;
	/** A chunk's denoiser, with state in `type`. */
	readonly denoiser: DeviceSession;
	/** The same for several streams at once, by their number. */
	readonly shared: ReadonlyMap<number, DeviceSession>;
	/** A decoder that gives `frames` as words, and `magnitude`, to the host. */
	readonly decoder: ResidentSession;
	readonly type: StateType;
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly textLength: number;
	readonly tokensPerChunk: number;
	/** Everything that a forward is fed but keys and values. */
	readonly feeds: (inputs: ResidentStepInputs) => Feeds;
	/** Of the latent of a chunk, and whether the sampler draws noise between two steps. */
	readonly chunkDims: LatentDims;
	readonly drawsNoise: boolean;
	/** Of a latent frame. */
	readonly latentDims: readonly number[];
	readonly memories: readonly { readonly name: string; readonly dims: readonly number[] }[];
	/** Of a picture. */
	readonly width: number;
	readonly height: number;
};

export type DeviceNetworks = {
	readonly step: (inputs: StepInputs) => Promise<StepOutputs>;
	readonly together?: StepsTogether | undefined;
	readonly decodeLatent: (latent: StateTensor, memory: DecoderMemory) => Promise<DecodedLatent>;
	readonly resident: ResidentNetworks;
	/** Frees what it made; the sessions are closed by whoever loaded them. */
	readonly close: () => Promise<void>;
};

export const loadDeviceNetworks = async (options: DeviceNetworksOptions): Promise<DeviceNetworks> => {
	const { device, denoiser, decoder, type, layers, heads, headDim, textLength, tokensPerChunk, chunkDims } = options;
	const appends = new KvAppends(device, type);
	const updates = await loadLatentUpdates(device, chunkDims, options.drawsNoise);
	/** Least recently used first. */
	const prompts = new Map<PromptTensors, { readonly [name: string]: ResidentTensor }>();
	/** Where keys and values of a clean pass are written, made with the first. */
	let places: { readonly [name: string]: ResidentTensor } | undefined;
	/** Where velocities are written, one for each stream of a forward: good until the next. */
	const velocities: ResidentTensor[] = [];
	const layerNames = (kind: string): string[] => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`);

	const forget = (tensors: { readonly [name: string]: ResidentTensor }): void => Object.values(tensors).forEach((tensor) => tensor.close());
	const promptFeeds = async (prompt: PromptTensors): Promise<Feeds> => {
		let tensors = prompts.get(prompt);
		if (tensors === undefined) {
			const uploaded: Record<string, ResidentTensor> = {};
			for (const [kind, arrays] of [['cross_k', prompt.crossK], ['cross_v', prompt.crossV]] as const) {
				for (const [layer, data] of arrays.entries()) {
					uploaded[`${kind}.${layer}`] = await device.upload(data, [heads, textLength, headDim], type);
				}
			}
			tensors = uploaded;
		}
		prompts.delete(prompt);
		prompts.set(prompt, tensors);
		for (const [oldest, old] of prompts.size > MAX_RESIDENT_PROMPTS ? prompts : []) {
			prompts.delete(oldest);
			forget(old);
			break;
		}
		return tensors;
	};
	const allFeeds = async (inputs: ResidentStepInputs): Promise<Feeds> => {
		const past: Record<string, Feeds[string]> = {};
		for (const [kind, tensors] of [['past_k', inputs.pastK], ['past_v', inputs.pastV]] as const) {
			for (const [layer, tensor] of tensors.entries()) {
				past[`${kind}.${layer}`] = stateFeed(tensor, [heads, inputs.pastTokens, headDim], type);
			}
		}
		return { ...options.feeds(inputs), ...past, ...await promptFeeds(inputs.prompt) };
	};
	const newPlaces = async (): Promise<{ readonly [name: string]: ResidentTensor }> => {
		const made: Record<string, ResidentTensor> = {};
		for (const name of [...layerNames('new_k'), ...layerNames('new_v')]) {
			made[name] = await device.upload(new Float32Array(heads * tokensPerChunk * headDim), [heads, tokensPerChunk, headDim], type);
		}
		return made;
	};
	/** With keys and values where they are wanted. */
	const forward = async (inputs: ResidentStepInputs, fetch: readonly string[]) =>
		denoiser.runInto(await allFeeds(inputs), fetch, inputs.wantKeysAndValues ? (places ??= await newPlaces()) : {}, inputs.signal);
	const placed = (name: string): ResidentTensor => places?.[name] as ResidentTensor;
	const read = async (tensor: StateTensor): Promise<Float32Array> => (isResident(tensor) ? device.download(tensor) : tensor);
	const readAll = async (names: readonly string[]): Promise<Float32Array[]> => {
		const arrays: Float32Array[] = [];
		for (const name of names) {
			arrays.push(await read(placed(name)));
		}
		return arrays;
	};

	const step = async (inputs: StepInputs): Promise<StepOutputs> => {
		const velocity = (await forward(inputs, ['velocity']))['velocity']?.data as Float32Array;
		return inputs.wantKeysAndValues ? { velocity, newK: await readAll(layerNames('new_k')), newV: await readAll(layerNames('new_v')) } : { velocity };
	};
	const sharedSession = (streams: number): DeviceSession => options.shared.get(streams) ?? noSuchSize(streams);
	const feedsOf = async (all: readonly ResidentStepInputs[]): Promise<Feeds> => {
		const feeds: Feeds[] = [];
		for (const inputs of all) {
			feeds.push(await allFeeds(inputs));
		}
		return sharedFeeds(feeds);
	};
	/** Noise that a chunk begins with crosses once, for the forward and for the update. */
	const begun = async (step: AdvanceInputs): Promise<AdvanceInputs> =>
		({ ...step, latent: isResident(step.latent) ? step.latent : await device.upload(step.latent, chunkDims) });
	const advance = async (all: readonly AdvanceInputs[]): Promise<readonly Advanced[]> => {
		const streams = all.length;
		const session = streams === 1 ? denoiser : sharedSession(streams);
		while (velocities.length < streams) {
			velocities.push(await device.upload(new Float32Array(chunkDims.reduce((product, size) => product * size, 1)), chunkDims));
		}
		const into = Object.fromEntries(all.map((_, stream) => [nameOfStream('velocity', stream, streams), velocities[stream] as ResidentTensor]));
		const steps: AdvanceInputs[] = [];
		const advanced: Advanced[] = [];
		try {
			for (const step of all) {
				steps.push(await begun(step));
			}
			const running = session.runInto(await feedsOf(steps), [], into, streams === 1 ? all[0]?.signal : undefined);
			// A backend that computes on other threads does so meanwhile.
			const noises = steps.map(({ factors, freshNoise }) => (factors.noise === 0 ? undefined : freshNoise()));
			await running;
			for (const [stream, step] of steps.entries()) {
				advanced.push(await updates.update(step, velocities[stream] as ResidentTensor, noises[stream]));
			}
			return advanced;
		} catch (error) {
			advanced.forEach(({ latent, frames }) => closeState([latent, ...frames]));
			throw error;
		} finally {
			closeState(steps.flatMap(({ latent }, stream) => (latent === all[stream]?.latent ? [] : [latent])));
		}
	};
	const decodeLatent = async (latent: StateTensor, memory: DecoderMemory): Promise<DecodedLatent> => {
		const { host, resident } = await decoder.run({
			latent: stateFeed(latent, options.latentDims, 'float32'),
			...Object.fromEntries(options.memories.map(({ name, dims }, index) => [`memory.${name}`, stateFeed(memory[index] ?? new Float32Array(0), dims, type)])),
		});
		if (!Number.isFinite(host['magnitude']?.data[0])) {
			closeState(Object.values(resident));
			throw new TurbocastError('generation_invalid', 'The network produced numbers that are not a picture (latents); try again, or change the prompt or the seed.');
		}
		const words = host['frames']?.data as Int32Array;
		const bytes = i420Bytes(options.width, options.height);
		return {
			frames: Array.from({ length: words.byteLength / bytes }, (_, frame) => Uint8Array.from(new Uint8Array(words.buffer, words.byteOffset + frame * bytes, bytes))),
			memory: options.memories.map(({ name }) => resident[`memory_out.${name}`] as ResidentTensor),
		};
	};
	const together: StepsTogether = {
		sizes: [...options.shared.keys()],
		// Those leave their keys and values in places that are good until the next.
		takesCleanPasses: false,
		steps: async (all) => {
			const names = all.map((_, stream) => nameOfStream('velocity', stream, all.length));
			const results = await sharedSession(all.length).runInto(await feedsOf(all), names, {});
			return names.map((name) => ({ velocity: results[name]?.data as Float32Array }));
		},
	};
	return {
		step, decodeLatent, together: together.sizes.length === 0 ? undefined : together,
		resident: {
			advance,
			cleanPass: async (inputs) => {
				await forward(inputs, []);
				return Array.from({ length: layers }, (_, layer) => ({ k: placed(`new_k.${layer}`), v: placed(`new_v.${layer}`) }));
			},
			createKv: (shape) => new ResidentKv(shape, appends),
			settle: device.settle,
			read,
		},
		close: async () => {
			[...prompts.values(), places ?? {}].forEach(forget);
			prompts.clear();
			places = undefined;
			closeState(velocities.splice(0));
			await updates.close();
			await appends.close();
		},
	};
};
