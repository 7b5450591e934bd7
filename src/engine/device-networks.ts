/**
 * The denoiser and the decoder of an own model on a device with memory of its own: weights, keys and values and the decoder's memory stay
 * there; what crosses is a latent each way for every step, and the bytes of the pictures.
 */
import { i420Bytes } from '../base/frame.js';
import type { StateType } from '../model/state-graphs.js';
import { type DeviceBackend, type DeviceSession, type Feeds, isResident, type ResidentSession, type ResidentTensor, type StateTensor } from './backend.js';
import { nameOfStream } from '../model/stream-names.js';
import type { DecodedLatent, DecoderMemory, PromptTensors, ResidentNetworks, StepInputs, StepOutputs, StepsTogether } from './networks.js';
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
	/** A decoder that gives `frames` as words to the host. */
	readonly decoder: ResidentSession;
	readonly type: StateType;
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly textLength: number;
	readonly tokensPerChunk: number;
	/** Everything that a forward is fed but keys and values. */
	readonly feeds: (inputs: StepInputs) => Feeds;
	readonly latentDims: readonly number[];
	readonly memories: readonly { readonly name: string; readonly dims: readonly number[] }[];
	/** Of a picture. */
	readonly width: number;
	readonly height: number;
};

export type DeviceNetworks = {
	readonly step: (inputs: StepInputs) => Promise<StepOutputs>;
	readonly together?: StepsTogether | undefined;
	readonly decodeLatent: (latent: Float32Array, memory: DecoderMemory) => Promise<DecodedLatent>;
	readonly resident: ResidentNetworks;
	/** Frees what it made; the sessions are closed by whoever loaded them. */
	readonly close: () => Promise<void>;
};

export const deviceNetworks = (options: DeviceNetworksOptions): DeviceNetworks => {
	const { device, denoiser, decoder, type, layers, heads, headDim, textLength, tokensPerChunk } = options;
	const appends = new KvAppends(device, type);
	/** Least recently used first. */
	const prompts = new Map<PromptTensors, { readonly [name: string]: ResidentTensor }>();
	/** Where keys and values of a clean pass are written, made with the first. */
	let places: { readonly [name: string]: ResidentTensor } | undefined;
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
	const allFeeds = async (inputs: StepInputs): Promise<Feeds> => {
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
	const forward = async (inputs: StepInputs): Promise<Float32Array> =>
		(await denoiser.runInto(await allFeeds(inputs), ['velocity'], inputs.wantKeysAndValues ? (places ??= await newPlaces()) : {}, inputs.signal))['velocity']?.data as Float32Array;
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
		const velocity = await forward(inputs);
		return inputs.wantKeysAndValues ? { velocity, newK: await readAll(layerNames('new_k')), newV: await readAll(layerNames('new_v')) } : { velocity };
	};
	const decodeLatent = async (latent: Float32Array, memory: DecoderMemory): Promise<DecodedLatent> => {
		const { host, resident } = await decoder.run({
			latent: { type: 'float32', dims: options.latentDims, data: latent },
			...Object.fromEntries(options.memories.map(({ name, dims }, index) => [`memory.${name}`, stateFeed(memory[index] ?? new Float32Array(0), dims, type)])),
		});
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
			const session = options.shared.get(all.length) ?? noSuchSize(all.length);
			const feeds: Feeds[] = [];
			for (const inputs of all) {
				feeds.push(await allFeeds(inputs));
			}
			const names = all.map((_, stream) => nameOfStream('velocity', stream, all.length));
			const results = await session.runInto(sharedFeeds(feeds), names, {});
			return names.map((name) => ({ velocity: results[name]?.data as Float32Array }));
		},
	};
	return {
		step, decodeLatent, together: together.sizes.length === 0 ? undefined : together,
		resident: {
			cleanPass: async (inputs) => {
				await forward(inputs);
				return Array.from({ length: layers }, (_, layer) => ({ k: placed(`new_k.${layer}`), v: placed(`new_v.${layer}`) }));
			},
			createKv: (shape) => new ResidentKv(shape, appends),
			read,
		},
		close: async () => {
			[...prompts.values(), places ?? {}].forEach(forget);
			prompts.clear();
			places = undefined;
			await appends.close();
		},
	};
};
