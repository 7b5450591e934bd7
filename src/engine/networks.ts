/**
 * The networks of one model at one output size, ready to run: plain numbers in, plain numbers out. Nothing here knows of
 * chunks, windows or noise; that is the business of the sampler and the generator on top.
 */
import { i420Bytes } from '../base/frame.js';
import { ditGraph } from '../model/dit.js';
import { openModelFolder } from '../model/model-folder.js';
import { ropeTables } from '../model/rope.js';
import { isOwnModel, type ModelSpec } from '../model/spec.js';
import { nameOfStream } from '../model/stream-names.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { textKeysGraph } from '../model/text-keys.js';
import { timeSinusoids } from '../model/time-embedding.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { decoderGraph } from '../model/vae-decoder.js';
import { Weights } from '../model/weights.js';
import type { Feeds, GraphSession, ResidentTensor, StateTensor, Tensor } from './backend.js';
import { createOnnxRuntime } from './backends/onnxruntime.js';
import { loadDeviceNetworks } from './device-networks.js';
import { loadJoinedNetworks } from './joined-networks.js';
import { memoryShapes, networkSizes } from './network-sizes.js';
import { openDevice, type OpenDevice } from './open-device.js';
import type { KvShape, LayerState, StreamKv } from './kv-cache.js';
import { decoderArithmetic, denoiserArithmetic, deviceOf, stateType } from './profile.js';
import type { BatchChoice, EmbeddingCacheSettings, EngineProfile, Residency } from './protocol.js';
import { loadForward } from './recorded-forwards.js';
import { stateFeed } from './resident-kv.js';
import type { StepFactors } from './schedule.js';
import { noSuchSize, sharedFeeds } from './shared-feeds.js';
import { keysPlace } from './window-kv.js';

/** What the denoiser needs to know of a prompt; made once per prompt and shared by every step, stream and chunk. */
export type PromptTensors = {
	/** [text_len, text_dim]; rows of padding are zero. */
	readonly context: Float32Array;
	/** [text_len]; 1 for a token, 0 for padding. */
	readonly mask: Float32Array;
	/** One [num_heads, text_len, head_dim] per layer. */
	readonly crossK: readonly Float32Array[];
	readonly crossV: readonly Float32Array[];
	/** [dim]; only of models with `dit.pooled_text`. */
	readonly pooled?: Float32Array;
	/** Words that the model does not know, as written, each once, in order. */
	readonly unknownWords: readonly string[];
	/** Whether the end of the prompt was left out because it is longer than `text_len`. */
	readonly isTruncated: boolean;
};

/** Of models with two denoisers, the one for much noise and the one for little. */
export type Expert = 'high' | 'low';

/** One forward of the denoiser over the latent frames of a chunk. */
export type StepInputs = {
	/** [latent channels, F, latentHeight, latentWidth], the noisy latent of a chunk or a clip. */
	readonly latent: Float32Array;
	/** 0..1000, one per latent frame. */
	readonly timesteps: readonly number[];
	/** [latents_per_chunk, control_dim]; zeros when left out. */
	readonly control?: Float32Array;
	readonly prompt: PromptTensors;
	/** Temporal position (rotary embedding) of the first latent frame, counted from the start of the stream. */
	readonly firstPosition: number;
	/** Keys (already roped) and values of the frames before: one [num_heads, pastTokens, head_dim] per layer. */
	readonly pastK: readonly StateTensor[];
	readonly pastV: readonly StateTensor[];
	/** Length of the past in tokens; a whole number of latent frames; 0 at the start of a stream. */
	readonly pastTokens: number;
	/** Of a past that is written in place (`StreamKv.slots`): then its tensors hold room for the chunk too. */
	readonly slots?: readonly number[] | undefined;
	/** Whether `newK` and `newV` are wanted (the clean pass). Leaving them out is faster. */
	readonly wantKeysAndValues: boolean;
	/** Ends the forward in the middle where the backend can; it throws the reason then. */
	readonly signal?: AbortSignal | undefined;
	/** The first when left out. */
	readonly expert?: Expert | undefined;
	/** [latent channels, F, latentHeight, latentWidth]: of models that begin with a picture, what `encodeImage` made of it. */
	readonly image?: Float32Array | undefined;
};

export type StepOutputs = {
	/** [out_dim, latents_per_chunk, latentHeight, latentWidth]; x0 = x_t - sigma * velocity. */
	readonly velocity: Float32Array;
	/** One [num_heads, tokensPerChunk, head_dim] per layer; keys are roped. */
	readonly newK?: readonly Float32Array[];
	readonly newV?: readonly Float32Array[];
};

/** The decoder's memory of one stream, to be kept and handed back. Which and in what order is the decoder's own business. */
export type DecoderMemory = readonly StateTensor[];

export type DecodedLatent = {
	/** Pictures of the latent, I420 (see RawFrame), each with a buffer of its own that may be transferred. */
	readonly frames: readonly Uint8Array<ArrayBuffer>[];
	readonly memory: DecoderMemory;
};

/** A forward whose latent may lie on the device. */
export type ResidentStepInputs = Omit<StepInputs, 'latent'> & { readonly latent: StateTensor };

/** A forward and what the sampler makes of its velocity, which is asked for no more. */
export type AdvanceInputs = ResidentStepInputs & {
	readonly factors: StepFactors;
	/** Asked only where its factor is not 0, while the device computes; the size of the latent. */
	readonly freshNoise: () => Float32Array;
	/** Whether the latent is clean after it, and its frames are wanted one by one. */
	readonly isLast: boolean;
};

/** Closed by whoever asked for it. */
export type Advanced = {
	/** [latent channels, F, latentHeight, latentWidth] */
	readonly latent: ResidentTensor;
	/** After the last step: each latent frame, as the decoder takes it. None has a finite number where any of the latent has not. */
	readonly frames: readonly ResidentTensor[];
};

/** What networks on a device with memory of its own offer besides: a chunk is made there, and the state of streams stays there. */
export type ResidentNetworks = {
	/** One stream's step, or those of as many as one of `together.sizes`. Nothing comes back to us; numbers that are not finite show when a frame is decoded. */
	readonly advance: (all: readonly AdvanceInputs[]) => Promise<readonly Advanced[]>;
	/** As `step` with keys and values, but those stay where they are, until the next call. */
	readonly cleanPass: (inputs: ResidentStepInputs) => Promise<readonly LayerState[]>;
	readonly createKv: (shape: KvShape) => StreamKv;
	/** Resolves when all that the device was given is done; absent where each call waits for that. */
	readonly settle?: (() => Promise<void>) | undefined;
	readonly read: (tensor: StateTensor) => Promise<Float32Array>;
};

export type StepsTogether = {
	/** How many at once, ascending, each more than one. */
	readonly sizes: readonly number[];
	/** As many as one of `sizes`, in any mixture of pasts, prompts, steps and clean passes; what each would get alone, but for the rounding of sums. */
	readonly steps: (inputs: readonly StepInputs[]) => Promise<readonly StepOutputs[]>;
	/** Whether clean passes may be among them. */
	readonly takesCleanPasses: boolean;
};

/** Closed by whoever loaded it. Not for concurrent use: one call at a time. */
export type Networks = {
	readonly spec: ModelSpec;
	readonly tokenizer: Tokenizer;
	/** Output pixels. */
	readonly width: number;
	readonly height: number;
	readonly latentWidth: number;
	readonly latentHeight: number;
	/** Tokens of one latent frame, and of a chunk. */
	readonly tokensPerLatent: number;
	readonly tokensPerChunk: number;
	readonly headDim: number;
	readonly encodePrompt: (text: string) => Promise<PromptTensors>;
	readonly step: (inputs: StepInputs) => Promise<StepOutputs>;
	/** Several streams' forwards as one. Absent where there is none for more than one. */
	readonly together?: StepsTogether | undefined;
	/** `latent` [latent_channels, latentHeight, latentWidth], normalised (as the denoiser has it). On a device it throws `generation_invalid` for numbers that are not finite. */
	readonly decodeLatent: (latent: StateTensor, memory: DecoderMemory) => Promise<DecodedLatent>;
	/** The memory of a stream that has decoded nothing yet. */
	readonly emptyMemory: () => DecoderMemory;
	/** Absent where everything is ours. */
	readonly resident?: ResidentNetworks | undefined;
	/** Does what other streams of these networks may not interrupt; absent where there are none. */
	readonly alone?: (<Result>(work: () => Promise<Result>) => Promise<Result>) | undefined;
	/** Latents of a clip that begins with a picture, RGB bytes [height, width, 3]; only of models that begin with one. */
	readonly encodeImage?: ((rgb: Uint8Array) => Promise<Float32Array>) | undefined;
	/** Loads what the first prompt would have to wait for, one graph a round; absent where everything is loaded. */
	readonly prepare?: (() => AsyncGenerator<undefined, void>) | undefined;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

export type NetworksOptions = {
	/** Path of a model folder. */
	readonly folder: string;
	readonly profile: EngineProfile;
	/** Output pixels; one of the model's `sizes`. */
	readonly width: number;
	readonly height: number;
	/** Threads of the tensor library. */
	readonly threads: number;
	/** Latent frames of one forward; the model's own number when left out. Only clips have others. */
	readonly latents?: number | undefined;
	/** Which networks stay in memory; only of joined models. Default `auto`. */
	readonly residency?: Residency | undefined;
	/** Bytes that the networks may take; only of joined models. Default: what the system says is free. */
	readonly availableBytes?: number | undefined;
	/** Only of joined models, whose text encoders are large. */
	readonly embeddingCache?: EmbeddingCacheSettings | undefined;
	/** Only of own models, and not in 8 bits. Default 1. */
	readonly batch?: BatchChoice | undefined;
	/** Whether our own CUDA kernels are used, by profiles that have a use for them. Default no. */
	readonly kernels?: boolean | undefined;
	/** Whether forwards of streams are recorded and replayed, on a device that can. Default no. */
	readonly recordsForwards?: boolean | undefined;
	/** For tests: the backend of a profile of a card. */
	readonly openDevice?: OpenDevice | undefined;
	/** A sentence for people about something that is not as usual. */
	readonly warn?: ((sentence: string) => void) | undefined;
};

/** Of shared forwards: a graph for each, and another number is done in parts. */
export const TOGETHER_SIZES = [2, 4, 8] as const;

/** Whether a profile can compute steps of several streams as one: not where a scale would be theirs together. */
export const canShareSteps = (profile: EngineProfile): boolean => {
	const { linears } = denoiserArithmetic(profile);
	return linears !== 'int8' && linears !== 'w8a8';
};

/** Prompts whose keys and values stay on a device; streams that take turns keep theirs, and a mixture made anew for each chunk pushes out old ones. */
const MAX_RESIDENT_PROMPTS = 8;

/** Of `auto`: what is measured on a card. More takes as much memory again, and longer for whoever is due first. */
const MOST_ON_A_CARD = 4;

const mostTogether = (profile: EngineProfile, batch: BatchChoice): number =>
	(!canShareSteps(profile) ? 1 : batch !== 'auto' ? batch : deviceOf(profile) === 'cpu' ? 1 : MOST_ON_A_CARD);

const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });

const floatsOf = (tensors: { readonly [name: string]: Tensor }, name: string): Float32Array => tensors[name]?.data as Float32Array;

/**
 * Opens the folder, checks its weights and builds and loads the four graphs. Throws `weights_corrupt`, `model_invalid`, or
 * `invalid_request` for a size that the model does not have.
 */
export const loadNetworks = async (options: NetworksOptions): Promise<Networks> => {
	const folder = await openModelFolder(options.folder);
	const { spec, tokenizer } = folder;
	if (!isOwnModel(spec)) {
		return await loadJoinedNetworks(folder, options);
	}
	const sizes = networkSizes(spec, options.width, options.height);
	const { latentWidth, latentHeight, headDim, tokensPerChunk } = sizes;
	const frames = spec.stream.latents_per_chunk;
	const textLength = spec.text.text_len;
	const { num_layers: layers, num_heads: heads } = spec.dit;
	const { profile } = options;
	const isOnCpu = deviceOf(profile) === 'cpu';

	const backend = createOnnxRuntime({ threads: options.threads });
	const device = isOnCpu ? undefined : (options.openDevice ?? openDevice)(profile, options.threads, options.kernels);
	const size = { height: latentHeight, width: latentWidth };
	const sessions: { readonly close: () => Promise<void> }[] = [];
	const owned = async <Session extends { readonly close: () => Promise<void> }>(loading: Promise<Session>): Promise<Session> => {
		const session = await loading;
		sessions.push(session);
		return session;
	};
	const closeAll = async (): Promise<void> => {
		for (const session of sessions.splice(0).reverse()) {
			await session.close();
		}
	};
	/** One after the other: each is large while it is loaded. */
	const loadEach = async <Session>(numbers: readonly number[], load: (streams: number) => Promise<Session>): Promise<ReadonlyMap<number, Session>> => {
		const loaded = new Map<number, Session>();
		for (const streams of numbers) {
			loaded.set(streams, await load(streams));
		}
		return loaded;
	};
	const loadAll = async () => {
		const [text, dit, vae] = await Promise.all((['text', 'dit', 'vae'] as const).map(async (which) => new Weights(await folder.readWeights(which)))) as [Weights, Weights, Weights];
		const denoiserOf = (streams: number) => ditGraph(spec.dit, { weights: dit, mode: { kind: 'chunk', streams, keys: keysPlace(device) }, ...denoiserArithmetic(profile, device), frames, ...size });
		const denoiser = denoiserOf(1);
		const together = TOGETHER_SIZES.filter((streams) => streams <= mostTogether(profile, options.batch ?? 1));
		const decoding = { weights: vae, arithmetic: decoderArithmetic(profile, Object.keys(spec.vae.int8_ranges).length > 0), ...size };
		return {
			// Small, once a prompt, and mixed by us: on the CPU wherever the rest is.
			textEncoder: await owned(backend.load(textEncoderGraph(spec.text, text))),
			textKeys: await owned(backend.load(textKeysGraph(spec.dit, dit))),
			...(device === undefined
				? {
					kind: 'host' as const, denoiser: await owned(backend.load(denoiser)), decoder: await owned(backend.load(decoderGraph(spec.vae, decoding))),
					shared: await loadEach(together, (streams) => owned(backend.load(denoiserOf(streams)))),
				}
				: {
					kind: 'device' as const, device: await owned(Promise.resolve(device)), denoiser: await owned(loadForward(device, denoiser, options.recordsForwards)),
					shared: await loadEach(together, (streams) => owned(device.load(denoiserOf(streams)))),
					decoder: await owned(device.loadResident(decoderGraph(spec.vae, { ...decoding, output: 'i420 words', checksLatent: true }), ['frames', 'magnitude'])),
				}),
		};
	};
	const graphs = await loadAll().catch(async (error: unknown) => {
		await closeAll();
		throw error;
	});
	const memories = memoryShapes(spec, latentWidth, latentHeight);

	const encodePrompt = async (prompt: string): Promise<PromptTensors> => {
		const { ids, mask: tokens, unknownWords, isTruncated } = tokenizer.tokenize(prompt);
		const mask = Float32Array.from(tokens);
		const encoded = await graphs.textEncoder.run({
			ids: { type: 'int64', dims: [1, textLength], data: BigInt64Array.from(ids, (id) => BigInt(id)) }, mask: float32([1, textLength], mask),
		});
		const context = floatsOf(encoded, 'context');
		const keys = await graphs.textKeys.run({
			context: float32([textLength, spec.text.dim], context), ...(spec.dit.pooled_text ? { mask: float32([textLength], mask) } : {}),
		});
		return {
			context, mask, unknownWords, isTruncated,
			crossK: Array.from({ length: layers }, (_, layer) => floatsOf(keys, `cross_k.${layer}`)),
			crossV: Array.from({ length: layers }, (_, layer) => floatsOf(keys, `cross_v.${layer}`)),
			...(spec.dit.pooled_text ? { pooled: floatsOf(keys, 'pooled') } : {}),
		};
	};

	/** The steps of a chunk share their positions, so the last tables are kept. */
	let rope: { readonly firstPosition: number; readonly cos: Tensor; readonly sin: Tensor } | undefined;
	const ropeAt = (firstPosition: number): NonNullable<typeof rope> => {
		if (rope?.firstPosition !== firstPosition) {
			const { cos, sin } = ropeTables(headDim, spec.dit.rope_theta, { firstPosition, frames, rows: sizes.rows, columns: sizes.columns });
			const dims = [tokensPerChunk, headDim / 2];
			rope = { firstPosition, cos: float32(dims, cos), sin: float32(dims, sin) };
		}
		return rope;
	};

	const newKeys = Array.from({ length: layers }, (_, layer) => [`new_k.${layer}`, `new_v.${layer}`]).flat();
	const noControl = new Float32Array(frames * spec.dit.control_dim);
	const chunkDims = [spec.dit.in_dim, frames, latentHeight, latentWidth] as const;

	/** All but keys and values. */
	const stepFeeds = (inputs: ResidentStepInputs): Record<string, Feeds[string]> => {
		const { cos, sin } = ropeAt(inputs.firstPosition);
		return {
			latent: stateFeed(inputs.latent, chunkDims, 'float32'),
			time: float32([inputs.timesteps.length, spec.dit.freq_dim], timeSinusoids(inputs.timesteps, spec.dit.freq_dim)),
			rope_cos: cos, rope_sin: sin,
			...(spec.dit.control_dim > 0 ? { control: float32([frames, spec.dit.control_dim], inputs.control ?? noControl) } : {}),
			...(spec.dit.pooled_text && inputs.prompt.pooled !== undefined ? { pooled: float32([spec.dit.dim], inputs.prompt.pooled) } : {}),
		};
	};
	const latentDims = [spec.vae.latent_channels, latentHeight, latentWidth];

	/** All that one stream's forward is fed on the host. */
	const hostFeeds = (inputs: StepInputs): Feeds => {
		const { prompt, pastTokens } = inputs;
		const feeds = stepFeeds(inputs);
		const perLayer: [string, readonly StateTensor[], number][] = [
			['past_k', inputs.pastK, pastTokens], ['past_v', inputs.pastV, pastTokens], ['cross_k', prompt.crossK, textLength], ['cross_v', prompt.crossV, textLength],
		];
		for (const [name, tensors, tokens] of perLayer) {
			for (const [layer, data] of tensors.entries()) {
				feeds[`${name}.${layer}`] = stateFeed(data, [heads, tokens, headDim], 'float32');
			}
		}
		return feeds;
	};
	const hostOutputs = (results: { readonly [name: string]: Tensor }, { wantKeysAndValues }: StepInputs, named: (name: string) => string): StepOutputs => {
		const velocity = floatsOf(results, named('velocity'));
		return wantKeysAndValues ? {
			velocity,
			newK: Array.from({ length: layers }, (_, layer) => floatsOf(results, named(`new_k.${layer}`))),
			newV: Array.from({ length: layers }, (_, layer) => floatsOf(results, named(`new_v.${layer}`))),
		} : { velocity };
	};

	const hostNetworks = (denoiser: GraphSession, decoder: GraphSession, shared: ReadonlyMap<number, GraphSession>): Pick<Networks, 'step' | 'decodeLatent' | 'together'> => ({
		step: async (inputs) => {
			const results = await denoiser.run(hostFeeds(inputs), inputs.wantKeysAndValues ? ['velocity', ...newKeys] : ['velocity'], inputs.signal);
			return hostOutputs(results, inputs, (name) => name);
		},
		...(shared.size === 0 ? {} : {
			together: {
				sizes: [...shared.keys()],
				takesCleanPasses: true,
				steps: async (all) => {
					const session = shared.get(all.length) ?? noSuchSize(all.length);
					const feeds = sharedFeeds(all.map(hostFeeds));
					const wanted = all.flatMap(({ wantKeysAndValues }, stream) => (wantKeysAndValues ? ['velocity', ...newKeys] : ['velocity']).map((name) => nameOfStream(name, stream, all.length)));
					const results = await session.run(feeds, wanted);
					return all.map((inputs, stream) => hostOutputs(results, inputs, (name) => nameOfStream(name, stream, all.length)));
				},
			},
		}),
		decodeLatent: async (latent, memory) => {
			const feeds: Record<string, Feeds[string]> = { latent: stateFeed(latent, latentDims, 'float32') };
			for (const [index, { name, dims }] of memories.entries()) {
				feeds[`memory.${name}`] = stateFeed(memory[index] ?? new Float32Array(0), dims, 'float32');
			}
			const results = await decoder.run(feeds);
			const packed = results['frames']?.data as Uint8Array;
			const bytes = i420Bytes(sizes.width, sizes.height);
			return {
				frames: Array.from({ length: spec.vae.frames_per_latent }, (_, frame) => Uint8Array.from(packed.subarray(frame * bytes, (frame + 1) * bytes))),
				memory: memories.map(({ name }) => floatsOf(results, `memory_out.${name}`)),
			};
		},
	});
	const running = graphs.kind === 'host' ? hostNetworks(graphs.denoiser, graphs.decoder, graphs.shared) : await owned(loadDeviceNetworks({
		device: graphs.device, denoiser: () => Promise.resolve(graphs.denoiser), shared: graphs.shared, decoder: () => Promise.resolve(graphs.decoder), mostPrompts: MAX_RESIDENT_PROMPTS,
		textKeys: (prompt) => Promise.resolve(prompt), type: stateType(profile), memoryType: stateType(profile), framesAtStart: spec.vae.frames_per_latent, closesDecoders: false,
		layers, heads, headDim, textLength, tokensPerChunk, keys: keysPlace(graphs.device), frames, feeds: stepFeeds, chunkDims, drawsNoise: spec.sampler === 'renoise', latentDims, memories, width: sizes.width, height: sizes.height,
	}).catch(async (error: unknown) => {
		await closeAll();
		throw error;
	}));

	let closing: Promise<void> | undefined;
	return {
		spec, tokenizer, ...sizes, encodePrompt, ...running,
		emptyMemory: () => memories.map(({ dims }) => new Float32Array(dims[0] * dims[1] * dims[2])),
		close: () => (closing ??= closeAll()),
	};
};
