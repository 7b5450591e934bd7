/**
 * The denoiser and the decoder of a model on a device with memory of its own: weights, keys and values, the decoder's memory and the latents of a
 * chunk or a clip stay there. What crosses to the device is what a step is told (noise, time, positions, controls); what comes back are the bytes of the pictures.
 *
 * The sampler's update is a small graph after the forward, not a part of it and not of a loop over all steps: a chunk may have any number of steps,
 * others have their turn between two of them, it can be cancelled there, and those of several streams share the forward alone.
 */
import type { LatentDims } from '../model/latent-graphs.js';
import type { StateType } from '../model/state-graphs.js';
import { closeState, type DeviceSession, type Feeds, isResident, type ResidentTensor, type StateTensor } from './backend.js';
import { nameOfStream } from '../model/stream-names.js';
import { createDeviceDecoder, type DeviceDecoderOptions } from './device-decoder.js';
import { loadLatentUpdates } from './latent-updates.js';
import type { Advanced, AdvanceInputs, DecodedLatent, DecoderMemory, Expert, PromptTensors, ResidentNetworks, ResidentStepInputs, StepInputs, StepOutputs, StepsTogether } from './networks.js';
import { noSuchSize, sharedFeeds } from './shared-feeds.js';
import { KvAppends, ResidentKv, stateFeed } from './resident-kv.js';

export type DeviceNetworksOptions = DeviceDecoderOptions & {
	/** The denoiser of a chunk or a clip, with keys and values in `type`; good until another network is asked for. */
	readonly denoiser: (expert: Expert) => Promise<DeviceSession>;
	/** The same for several streams at once, by their number. */
	readonly shared: ReadonlyMap<number, DeviceSession>;
	/** What cross-attention sees of a prompt, asked for once as long as it stays on the device. */
	readonly textKeys: (prompt: PromptTensors, expert: Expert) => Promise<Pick<PromptTensors, 'crossK' | 'crossV'>>;
	/** How many prompts stay there. */
	readonly mostPrompts: number;
	/** Of keys and values. */
	readonly type: StateType;
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly textLength: number;
	readonly tokensPerChunk: number;
	/** Everything that a forward is fed but keys and values. */
	readonly feeds: (inputs: ResidentStepInputs) => Feeds | Promise<Feeds>;
	/** Of the latent of a chunk, and whether the sampler draws noise between two steps. */
	readonly chunkDims: LatentDims;
	readonly drawsNoise: boolean;
};

type Tensors = { readonly [name: string]: ResidentTensor };

export type DeviceNetworks = {
	readonly step: (inputs: StepInputs) => Promise<StepOutputs>;
	readonly together?: StepsTogether | undefined;
	readonly decodeLatent: (latent: StateTensor, memory: DecoderMemory) => Promise<DecodedLatent>;
	readonly resident: ResidentNetworks;
	/** Frees what it made; the sessions are closed by whoever loaded them. */
	readonly close: () => Promise<void>;
};

export const loadDeviceNetworks = async (options: DeviceNetworksOptions): Promise<DeviceNetworks> => {
	const { device, denoiser, type, layers, heads, headDim, textLength, tokensPerChunk, chunkDims } = options;
	const appends = new KvAppends(device, type);
	const updates = await loadLatentUpdates(device, chunkDims, options.drawsNoise);
	/** Least recently used first. */
	const prompts = new Map<PromptTensors, Map<Expert, Tensors>>();
	/** Where keys and values of a clean pass are written, made with the first. */
	let places: Tensors | undefined;
	/** Where velocities are written, one for each stream of a forward: good until the next. */
	const velocities: ResidentTensor[] = [];
	const layerNames = (kind: string): string[] => Array.from({ length: layers }, (_, layer) => `${kind}.${layer}`);

	const forget = (tensors: Tensors): void => Object.values(tensors).forEach((tensor) => tensor.close());
	const promptFeeds = async (prompt: PromptTensors, expert: Expert): Promise<Feeds> => {
		const ofPrompt = prompts.get(prompt) ?? new Map<Expert, Tensors>();
		prompts.delete(prompt);
		prompts.set(prompt, ofPrompt);
		// Before the new ones are there: two sets more than are meant to stay would be there at once.
		for (const [oldest, old] of prompts.size > options.mostPrompts ? prompts : []) {
			prompts.delete(oldest);
			old.forEach(forget);
			break;
		}
		const known = ofPrompt.get(expert);
		if (known !== undefined) {
			return known;
		}
		const { crossK, crossV } = await options.textKeys(prompt, expert);
		const uploaded: Record<string, ResidentTensor> = {};
		try {
			for (const [kind, arrays] of [['cross_k', crossK], ['cross_v', crossV]] as const) {
				for (const [layer, data] of arrays.entries()) {
					uploaded[`${kind}.${layer}`] = await device.upload(data, [heads, textLength, headDim], type);
				}
			}
		} catch (error) {
			forget(uploaded);
			throw error;
		}
		ofPrompt.set(expert, uploaded);
		return uploaded;
	};
	const allFeeds = async (inputs: ResidentStepInputs): Promise<Feeds> => {
		const past: Record<string, Feeds[string]> = {};
		for (const [kind, tensors] of [['past_k', inputs.pastK], ['past_v', inputs.pastV]] as const) {
			for (const [layer, tensor] of tensors.entries()) {
				past[`${kind}.${layer}`] = stateFeed(tensor, [heads, inputs.pastTokens, headDim], type);
			}
		}
		return { ...await options.feeds(inputs), ...past, ...await promptFeeds(inputs.prompt, inputs.expert ?? 'high') };
	};
	const newPlaces = async (): Promise<Tensors> => {
		const made: Record<string, ResidentTensor> = {};
		for (const name of [...layerNames('new_k'), ...layerNames('new_v')]) {
			made[name] = await device.upload(new Float32Array(heads * tokensPerChunk * headDim), [heads, tokensPerChunk, headDim], type);
		}
		return made;
	};
	/** With keys and values where they are wanted. */
	const forward = async (inputs: ResidentStepInputs, fetch: readonly string[]) => {
		const feeds = await allFeeds(inputs);
		const session = await denoiser(inputs.expert ?? 'high');
		return session.runInto(feeds, fetch, inputs.wantKeysAndValues ? (places ??= await newPlaces()) : {}, inputs.signal);
	};
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
			const feeds = await feedsOf(steps);
			const session = streams === 1 ? await denoiser(all[0]?.expert ?? 'high') : sharedSession(streams);
			const running = session.runInto(feeds, [], into, streams === 1 ? all[0]?.signal : undefined);
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
	const decoding = createDeviceDecoder(options);
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
		step, decodeLatent: decoding.decodeLatent, together: together.sizes.length === 0 ? undefined : together,
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
			[...[...prompts.values()].flatMap((ofPrompt) => [...ofPrompt.values()]), places ?? {}].forEach(forget);
			prompts.clear();
			places = undefined;
			closeState(velocities.splice(0));
			await decoding.close();
			await updates.close();
			await appends.close();
		},
	};
};
