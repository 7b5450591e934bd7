/**
 * The denoiser and the decoder of a model on a device with memory of its own: weights, keys and values, the decoder's memory and the latents of a
 * chunk or a clip stay there. What crosses to the device is what a step is told (noise, time, positions, controls); what comes back are the bytes of the pictures.
 *
 * The sampler's update is a small graph after the forward, not a part of it and not of a loop over all steps: a chunk may have any number of steps,
 * others have their turn between two of them, it can be cancelled there, and those of several streams share the forward alone.
 */
import type { KeysPlace } from '../model/dit.js';
import type { LatentDims } from '../model/latent-graphs.js';
import type { StateType } from '../model/state-graphs.js';
import { closeState, type DeviceSession, type Feeds, isResident, type ResidentTensor, type StateTensor, type Tensor } from './backend.js';
import { nameOfStream } from '../model/stream-names.js';
import { createDeviceDecoder, type DeviceDecoderOptions } from './device-decoder.js';
import { loadLatentUpdates } from './latent-updates.js';
import type { Advanced, AdvanceInputs, DecodedLatent, DecoderMemory, Expert, PromptTensors, ResidentNetworks, ResidentStepInputs, StepInputs, StepOutputs, StepsTogether } from './networks.js';
import { noSuchSize, sharedFeeds } from './shared-feeds.js';
import { KvAppends, ResidentKv, stateFeed } from './resident-kv.js';
import { canPlace, PlacedFrames, placePast, windowFeeds, WindowKv, Windows } from './window-kv.js';

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
	/** Of the denoiser, which has them in place only on a device where tensors can be. */
	readonly keys: KeysPlace;
	/** Latent frames of a chunk, for those. */
	readonly frames: number;
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
	const windows = options.keys === 'in place' && canPlace(device) ? new Windows(device, type, options.frames) : undefined;
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
	/** What a forward is fed, and what it writes over; `release` when it is over. */
	type Bound = { readonly feeds: Feeds; readonly into: Tensors; readonly placed?: WindowKv | undefined; readonly release: () => void };
	const boundInPlace = async (inputs: ResidentStepInputs, all: Windows): Promise<Bound> => {
		const common = { ...await options.feeds(inputs), ...await promptFeeds(inputs.prompt, inputs.expert ?? 'high') };
		if (inputs.slots !== undefined) {
			const { feeds, into } = windowFeeds(inputs.pastK.map((k, layer) => ({ k, v: inputs.pastV[layer] as StateTensor })), inputs.slots);
			return { feeds: { ...common, ...feeds }, into, release: () => undefined };
		}
		// Somebody has the past as numbers.
		const tokensPerLatent = tokensPerChunk / options.frames;
		const past = inputs.pastK.map((k, layer) => ({ k: k as Float32Array, v: inputs.pastV[layer] as Float32Array }));
		const placed = await placePast(all, { layers, heads, headDim, tokensPerLatent }, past, inputs.pastTokens / tokensPerLatent);
		const { feeds, into } = windowFeeds(placed.layers, placed.slots);
		return { feeds: { ...common, ...feeds }, into, placed, release: () => placed.close() };
	};
	const bound = async (inputs: ResidentStepInputs): Promise<Bound> => {
		if (windows !== undefined) {
			return boundInPlace(inputs, windows);
		}
		const feeds = await allFeeds(inputs);
		return { feeds, into: inputs.wantKeysAndValues ? (places ??= await newPlaces()) : {}, release: () => undefined };
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
	const velocityPlaces = async (streams: number): Promise<readonly ResidentTensor[]> => {
		while (velocities.length < streams) {
			velocities.push(await device.upload(new Float32Array(chunkDims.reduce((product, size) => product * size, 1)), chunkDims));
		}
		return velocities;
	};
	/** With keys and values where they are wanted. */
	const forward = async (inputs: ResidentStepInputs, fetch: readonly string[]): Promise<Bound & { readonly host: { readonly [name: string]: Tensor } }> => {
		const made = await bound(inputs);
		try {
			// After what it is fed, which other networks may have been asked for.
			const session = await denoiser(inputs.expert ?? 'high');
			// All outputs of a step, where they are then: a recording of the one is good for the other.
			const into = windows === undefined || fetch.length > 0 ? made.into : { ...made.into, velocity: (await velocityPlaces(1))[0] as ResidentTensor };
			return { ...made, host: await session.runInto(made.feeds, fetch, into, inputs.signal) };
		} catch (error) {
			made.release();
			throw error;
		}
	};
	const placed = (name: string): ResidentTensor => places?.[name] as ResidentTensor;
	const read = async (tensor: StateTensor): Promise<Float32Array> => (tensor instanceof PlacedFrames ? tensor.read() : isResident(tensor) ? device.download(tensor) : tensor);
	const readAll = async (names: readonly string[]): Promise<Float32Array[]> => {
		const arrays: Float32Array[] = [];
		for (const name of names) {
			arrays.push(await read(placed(name)));
		}
		return arrays;
	};

	const step = async (inputs: StepInputs): Promise<StepOutputs> => {
		const { host, placed: own, release } = await forward(inputs, ['velocity']);
		try {
			const velocity = host['velocity']?.data as Float32Array;
			if (!inputs.wantKeysAndValues) {
				return { velocity };
			}
			if (windows === undefined) {
				return { velocity, newK: await readAll(layerNames('new_k')), newV: await readAll(layerNames('new_v')) };
			}
			const [newK, newV]: [Float32Array[], Float32Array[]] = [[], []];
			for (const { k, v } of own?.placed() ?? []) {
				newK.push(await read(k));
				newV.push(await read(v));
			}
			return { velocity, newK, newV };
		} finally {
			release();
		}
	};
	const sharedSession = (streams: number): DeviceSession => options.shared.get(streams) ?? noSuchSize(streams);
	const boundTogether = async (all: readonly ResidentStepInputs[]): Promise<Bound> => {
		const each: Bound[] = [];
		const release = (): void => each.forEach((one) => one.release());
		try {
			for (const inputs of all) {
				each.push(await bound(inputs));
			}
		} catch (error) {
			release();
			throw error;
		}
		const into = each.flatMap((one, stream) => Object.entries(one.into).map(([name, tensor]) => [nameOfStream(name, stream, all.length), tensor] as const));
		return { feeds: sharedFeeds(each.map(({ feeds }) => feeds)), into: Object.fromEntries(into), release };
	};
	/** Noise that a chunk begins with crosses once, for the forward and for the update. */
	const begun = async (step: AdvanceInputs): Promise<AdvanceInputs> =>
		({ ...step, latent: isResident(step.latent) ? step.latent : await device.upload(step.latent, chunkDims) });
	const advance = async (all: readonly AdvanceInputs[]): Promise<readonly Advanced[]> => {
		const streams = all.length;
		await velocityPlaces(streams);
		const into = Object.fromEntries(all.map((_, stream) => [nameOfStream('velocity', stream, streams), velocities[stream] as ResidentTensor]));
		const steps: AdvanceInputs[] = [];
		const advanced: Advanced[] = [];
		let made: Bound | undefined;
		try {
			for (const step of all) {
				steps.push(await begun(step));
			}
			made = await boundTogether(steps);
			const session = streams === 1 ? await denoiser(all[0]?.expert ?? 'high') : sharedSession(streams);
			const running = session.runInto(made.feeds, [], { ...made.into, ...into }, streams === 1 ? all[0]?.signal : undefined);
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
			made?.release();
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
			const made = await boundTogether(all);
			try {
				const results = await sharedSession(all.length).runInto(made.feeds, names, made.into);
				return names.map((name) => ({ velocity: results[name]?.data as Float32Array }));
			} finally {
				made.release();
			}
		},
	};
	return {
		step, decodeLatent: decoding.decodeLatent, together: together.sizes.length === 0 ? undefined : together,
		resident: {
			advance,
			cleanPass: async (inputs) => {
				(await forward(inputs, [])).release();
				return windows !== undefined ? [] : Array.from({ length: layers }, (_, layer) => ({ k: placed(`new_k.${layer}`), v: placed(`new_v.${layer}`) }));
			},
			createKv: (shape) => (windows === undefined ? new ResidentKv(shape, appends) : new WindowKv(shape, windows)),
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
			await windows?.close();
		},
	};
};
