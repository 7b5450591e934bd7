/**
 * The networks of a joined model (joined-model.ts): weights stay in their files, which the tensor library maps, and each network is loaded
 * when it is first needed. With little memory one makes room for the next.
 */
import { i420Bytes } from '../base/frame.js';
import { checkDitTensors } from '../model/dit-tensors.js';
import { ditGraph } from '../model/dit.js';
import type { ModelFolder, WeightFile } from '../model/model-folder.js';
import { keptBlocks } from '../model/sparse-linear-attention.js';
import type { ModelSpec } from '../model/spec.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { textKeysGraph } from '../model/text-keys.js';
import { Weights } from '../model/weights.js';
import { TurbocastError } from '../protocol/errors.js';
import type { DeviceBackend, Feeds, Graph, GraphLoading, GraphSession, ResidentSession, StateTensor, Tensor } from './backend.js';
import { createOnnxRuntime } from './backends/onnxruntime.js';
import { loadDeviceNetworks } from './device-networks.js';
import { createEmbeddingCache } from './embedding-cache.js';
import { imageLatents, joinedDecoder } from './joined-decoder.js';
import { joinedFeeds } from './joined-feeds.js';
import { planResidency, residentPrompts } from './memory-need.js';
import type { Expert, Networks, NetworksOptions, PromptTensors } from './networks.js';
import { networkSizes } from './network-sizes.js';
import { openDevice } from './open-device.js';
import { denoiserArithmetic, deviceOf, stateType } from './profile.js';
import { loadForward } from './recorded-forwards.js';
import { stateFeed } from './resident-kv.js';
import { ResidentGraphs } from './resident-graphs.js';
import { openScratchFile } from './scratch-file.js';
import { createTextEmbedder, encodeUmt5 } from './text-embedder.js';
import { keysPlace } from './window-kv.js';

const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
const floatsOf = (tensors: { readonly [name: string]: Tensor }, name: string): Float32Array => tensors[name]?.data as Float32Array;

/** Pictures of the first latent of a stream; those before it, which some decoders give, show nothing. */
const FRAMES_AT_START = 1;

/** What computes, on the processor or on a device, and how its networks are had ahead of their use. */
type Running = Pick<Networks, 'step' | 'decodeLatent' | 'resident'> & {
	readonly denoiser: (expert: Expert) => Promise<unknown>;
	readonly decoder: (position: 'first' | 'next') => Promise<unknown>;
	readonly close: () => Promise<void>;
};

/** Says so when so few blocks of keys are there that the share to keep rounds to none. */
const warnOfShortSequence = ({ clip }: ModelSpec, tokens: number, warn: (sentence: string) => void): void => {
	if (clip?.attention !== undefined) {
		const { blocks, isRaised } = keptBlocks(clip.attention, tokens);
		if (isRaised) {
			warn(`This clip is short for sparse attention: ${clip.attention.ratio} of ${blocks} blocks of keys is less than one; one is kept.`);
		}
	}
};

/** Loads nothing yet but the headers of the files. Throws `model_invalid`, `weights_corrupt`, or `invalid_request` for a size that cannot be made. */
export const loadJoinedNetworks = async (folder: ModelFolder, options: NetworksOptions): Promise<Networks> => {
	const { spec, tokenizer } = folder;
	const { profile, warn = () => undefined } = options;
	if (spec.vae.kind === 'group-decoder') {
		throw new TurbocastError('internal', `The model ${spec.name} is not a joined one.`);
	}
	const frames = options.latents ?? spec.stream.latents_per_chunk;
	const sizes = networkSizes(spec, options.width, options.height, frames);
	const { latentHeight: height, latentWidth: width, headDim, tokensPerChunk } = sizes;
	const { dit, text, clip, encoder, vae } = { ...spec, vae: spec.vae };
	const { num_layers: layers, num_heads: heads, text_len: textLength } = dit;
	warnOfShortSequence(spec, tokensPerChunk, warn);

	const onCpu = createOnnxRuntime({ threads: options.threads });
	const files = { text: folder.mapWeights('text'), dit: folder.mapWeights('dit'), vae: folder.mapWeights('vae'), encoder: encoder === undefined ? undefined : folder.mapWeights('encoder') };
	const residency = planResidency({ spec, profile, files, width: sizes.width, height: sizes.height, latents: frames }, options.residency ?? 'auto', options.availableBytes ?? process.availableMemory());
	const graphs = new ResidentGraphs(residency === 'one');
	// Denoiser, decoder and encoder; texts are encoded once, and the encoder is larger than many a graphics card.
	const device = deviceOf(profile) === 'cpu' ? undefined : (options.openDevice ?? openDevice)(profile, options.threads, options.kernels);
	/** Builds and loads a graph over a file that stays where it is. */
	const load = async <Session>(which: WeightFile, build: (weights: Weights) => Graph, open: (graph: Graph) => Promise<Session>): Promise<Session> => {
		const scratch = openScratchFile();
		try {
			return await open(build(new Weights(folder.mapWeights(which), scratch)));
		} finally {
			scratch.remove();
		}
	};
	const onProcessor = (loading?: GraphLoading) => (graph: Graph): Promise<GraphSession> => onCpu.load(graph, loading);
	const fileOf = (expert: Expert): WeightFile => (expert === 'low' ? 'dit_low' : 'dit');
	const keys = clip === undefined ? keysPlace(device) : 'handed over';
	const mode = clip === undefined ? { kind: 'chunk' as const, keys } : { kind: 'clip' as const, sparse: clip.attention };

	const textKeys = (expert: Expert): Promise<GraphSession> => graphs.use(`keys/${expert}`, () => load(fileOf(expert), (weights) => textKeysGraph(dit, weights), onProcessor()));
	const denoiserOn = <Session extends GraphSession>(backend: { readonly load: (graph: Graph) => Promise<Session> }) => (expert: Expert): Promise<Session> => graphs.use(`dit/${expert}`, () => load(fileOf(expert), (weights) => {
		checkDitTensors(weights, dit, clip?.attention !== undefined);
		return ditGraph(dit, { weights, mode, ...denoiserArithmetic(profile, device), conditionChannels: dit.in_dim - vae.latent_channels, frames, height, width });
	}, backend.load));
	const decoding = joinedDecoder(vae, height, width);
	const decoder = async (position: 'first' | 'next'): Promise<GraphSession> => {
		if (position === 'next' && decoding.graphName('first') !== 'next') {
			// The same weights; the graph for the first latent is needed once a stream.
			await graphs.drop('vae/first');
		}
		return graphs.use(`vae/${decoding.graphName(position)}`, () => load('vae', (weights) => decoding.graph(weights, position, 'bytes'), onProcessor({ returnsMemory: true })));
	};
	/** Both stay: loading a graph takes a card longer than a clip's first latent may. */
	const decoderOn = ({ loadResident }: DeviceBackend) => (position: 'first' | 'next'): Promise<ResidentSession> =>
		graphs.use(`vae/${decoding.graphName(position)}`, () => load('vae', (weights) => decoding.graph(weights, position, 'words'), (graph) => loadResident(graph, ['frames', 'magnitude'])));

	const textEncoder = (): Promise<GraphSession> =>
		// Of umT5-XXL float32 is 19 GB; where it has to make room anyway, better a few seconds longer for each prompt.
		graphs.use('text', () => load('text', (weights) => textEncoderGraph(text, weights), onProcessor({ keepsWeights: residency === 'one' })));
	const embedder = createTextEmbedder({
		tokenizer, textLength, dim: text.dim, encoderId: spec.files.text.sha256,
		load: async () => {
			const session = await textEncoder();
			// Whether it stays is decided where all networks are.
			return { encode: (tokens) => encodeUmt5(session, tokens), close: () => Promise.resolve() };
		},
		cache: options.embeddingCache === undefined ? undefined : createEmbeddingCache({ ...options.embeddingCache, nowMs: Date.now, log: { warn: (_, sentence) => warn(sentence ?? '') } }),
	});
	const encodePrompt = async (prompt: string): Promise<PromptTensors> => {
		const [embedding] = await embedder.embed([prompt], new AbortController().signal);
		if (embedding === undefined) {
			throw new TurbocastError('internal', 'The text embedder gave nothing for a prompt.');
		}
		return { ...embedding, crossK: [], crossV: [], unknownWords: tokenizer.tokenize(prompt).unknownWords };
	};

	const keysOf = async (prompt: PromptTensors, expert: Expert): Promise<Pick<PromptTensors, 'crossK' | 'crossV'>> => {
		const session = await textKeys(expert);
		const keys = await session.run({ context: float32([textLength, dit.text_dim], prompt.context) });
		const all = (kind: string): Float32Array[] => Array.from({ length: layers }, (_, layer) => floatsOf(keys, `${kind}.${layer}`));
		return { crossK: all('cross_k'), crossV: all('cross_v') };
	};
	const chunkDims = [vae.latent_channels, frames, height, width] as const;
	/** All but keys and values. */
	const stepFeeds = joinedFeeds(device, { dit, latentChannels: vae.latent_channels, frames, height, width });

	const loadOnHost = (): Running => {
		const denoiser = denoiserOn(onCpu);
		/** Keys and values of the latest prompt, which are larger than it by far: made when a denoiser first sees it. */
		let latest: { readonly prompt: PromptTensors; readonly expert: Expert; readonly keys: Pick<PromptTensors, 'crossK' | 'crossV'> } | undefined;
		const newKeys = Array.from({ length: layers }, (_, layer) => [`new_k.${layer}`, `new_v.${layer}`]).flat();
		return {
			denoiser, decoder, close: () => Promise.resolve(),
			step: async (inputs) => {
				const { prompt, expert = 'high', pastTokens } = inputs;
				if (latest?.prompt !== prompt || latest.expert !== expert) {
					latest = { prompt, expert, keys: await keysOf(prompt, expert) };
				}
				const { crossK, crossV } = latest.keys;
				const session = await denoiser(expert);
				const perLayer: (readonly [string, readonly StateTensor[], number])[] = [
					['cross_k', crossK, textLength], ['cross_v', crossV, textLength], ...(clip === undefined ? [['past_k', inputs.pastK, pastTokens], ['past_v', inputs.pastV, pastTokens]] as const : []),
				];
				const feeds: Record<string, Feeds[string]> = { ...await stepFeeds.of(inputs) };
				for (const [name, tensors, tokens] of perLayer) {
					for (let layer = 0; layer < layers; layer++) {
						feeds[`${name}.${layer}`] = stateFeed(tensors[layer] ?? new Float32Array(0), [heads, tokens, headDim], 'float32');
					}
				}
				const results = await session.run(feeds, inputs.wantKeysAndValues ? ['velocity', ...newKeys] : ['velocity'], inputs.signal);
				const velocity = floatsOf(results, 'velocity');
				const all = (kind: string): Float32Array[] => Array.from({ length: layers }, (_, layer) => floatsOf(results, `${kind}.${layer}`));
				return inputs.wantKeysAndValues ? { velocity, newK: all('new_k'), newV: all('new_v') } : { velocity };
			},
			decodeLatent: async (latent, memory) => {
				const isFirst = memory.length === 0;
				const session = await decoder(isFirst ? 'first' : 'next');
				const results = await session.run({ latent: stateFeed(latent, [vae.latent_channels, height, width], 'float32'), ...decoding.memoryFeeds(session, memory as readonly Float32Array[]) });
				const packed = results['frames']?.data as Uint8Array;
				const bytes = i420Bytes(sizes.width, sizes.height);
				const skipped = isFirst ? packed.length / bytes - FRAMES_AT_START : 0;
				return {
					frames: Array.from({ length: packed.length / bytes - skipped }, (_, frame) => Uint8Array.from(packed.subarray((skipped + frame) * bytes, (skipped + frame + 1) * bytes))),
					memory: decoding.memoryOf(results),
				};
			},
		};
	};
	const loadOnDevice = async (backend: DeviceBackend): Promise<Running> => {
		const isRecorded = options.recordsForwards === true && keys === 'in place';
		const denoiser = denoiserOn({ load: (graph) => loadForward(backend, graph, isRecorded) });
		const decoderThere = decoderOn(backend);
		return {
			denoiser, decoder: decoderThere,
			...await loadDeviceNetworks({
				device: backend, denoiser, shared: new Map(), decoder: (isFirst) => decoderThere(isFirst ? 'first' : 'next'), closesDecoders: residency === 'one',
				textKeys: keysOf, mostPrompts: residentPrompts(spec), type: stateType(profile), memoryType: 'float32', layers, heads, headDim, textLength, tokensPerChunk, keys, frames, feeds: stepFeeds.of,
				chunkDims, drawsNoise: spec.sampler === 'renoise', latentDims: [vae.latent_channels, height, width], memories: decoding.memories, framesAtStart: FRAMES_AT_START,
				width: sizes.width, height: sizes.height,
			}),
		};
	};
	const { denoiser, decoder: decoderThatRuns, close: closeRunning, ...running } = device === undefined ? loadOnHost() : await loadOnDevice(device).catch(async (error: unknown) => {
		await device.close();
		throw error;
	});

	/** In the order of their use. Where one makes room for the next, only the first. */
	const prepare = async function* (): AsyncGenerator<undefined, void> {
		const first = 'high' satisfies Expert;
		const rest = [() => textKeys(first), () => denoiser(first), () => decoderThatRuns('first'), ...(clip?.boundary === undefined ? [] : [() => textKeys('low'), () => denoiser('low')])];
		for (const use of [textEncoder, ...(residency === 'one' ? [] : rest)]) {
			await use();
			yield;
		}
	};

	let closing: Promise<void> | undefined;
	return {
		spec, tokenizer, ...sizes, ...running, encodePrompt, prepare, emptyMemory: () => [],
		...(encoder === undefined ? {} : {
			encodeImage: async (rgb: Uint8Array) => {
				await graphs.makeRoom();
				return imageLatents({ network: encoder, load: (build) => load('encoder', build, (graph) => (device ?? onCpu).load(graph, { returnsMemory: true })), rgb, frames, width: sizes.width, height: sizes.height });
			},
		}),
		close: () => (closing ??= (async () => {
			stepFeeds.close();
			await closeRunning();
			await graphs.close();
			await device?.close();
		})()),
	};
};
