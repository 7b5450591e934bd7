/**
 * The networks of a joined model (joined-model.ts): weights stay in their files, which the tensor library maps, and each network is loaded
 * when it is first needed. With little memory one makes room for the next.
 */
import { i420Bytes } from '../base/frame.js';
import { checkDitTensors } from '../model/dit-tensors.js';
import { ditGraph } from '../model/dit.js';
import type { ModelFolder, WeightFile } from '../model/model-folder.js';
import { fromFloat16 } from '../model/float16.js';
import { ropeTables } from '../model/rope.js';
import { keptBlocks } from '../model/sparse-linear-attention.js';
import type { ModelSpec } from '../model/spec.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { textKeysGraph } from '../model/text-keys.js';
import { timeSinusoids } from '../model/time-embedding.js';
import { Weights } from '../model/weights.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Backend, Feeds, Graph, GraphLoading, GraphSession, StateTensor, Tensor } from './backend.js';
import { createOnnxRuntime } from './backends/onnxruntime.js';
import { createEmbeddingCache } from './embedding-cache.js';
import { withImage } from './image-condition.js';
import { imageLatents, joinedDecoder } from './joined-decoder.js';
import { planResidency } from './memory-need.js';
import { type DecodedLatent, type DecoderMemory, type Networks, type NetworksOptions, type PromptTensors, type StepInputs, type StepOutputs } from './networks.js';
import { networkSizes } from './network-sizes.js';
import { openDevice } from './open-device.js';
import { denoiserArithmetic, deviceOf, stateType } from './profile.js';
import { stateFeed } from './resident-kv.js';
import { ResidentGraphs } from './resident-graphs.js';
import { openScratchFile } from './scratch-file.js';
import { createTextEmbedder, encodeUmt5 } from './text-embedder.js';

const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
const floatsOf = (tensors: { readonly [name: string]: Tensor }, name: string): Float32Array => tensors[name]?.data as Float32Array;

/** Numbers of a state, whichever the graph has them in. */
const stateFloats = (tensors: { readonly [name: string]: Tensor }, name: string): Float32Array => {
	const data = tensors[name]?.data;
	return data instanceof Uint16Array ? fromFloat16(data) : data as Float32Array;
};

type Expert = NonNullable<StepInputs['expert']>;

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
export const loadJoinedNetworks = (folder: ModelFolder, options: NetworksOptions): Networks => {
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
	// Denoiser, decoder and encoder; texts are encoded once, and the encoder is larger than many a graphics card.
	const device = deviceOf(profile) === 'cpu' ? undefined : (options.openDevice ?? openDevice)(profile, options.threads, options.kernels);
	const type = stateType(profile);
	const files = { text: folder.mapWeights('text'), dit: folder.mapWeights('dit'), vae: folder.mapWeights('vae'), encoder: encoder === undefined ? undefined : folder.mapWeights('encoder') };
	const residency = planResidency({ spec, profile, files, width: sizes.width, height: sizes.height, latents: frames }, options.residency ?? 'auto', options.availableBytes ?? process.availableMemory());
	const graphs = new ResidentGraphs(residency === 'one');
	/** Builds and loads a graph over a file that stays where it is. */
	const load = async (which: WeightFile, build: (weights: Weights) => Graph, { backend = device ?? onCpu, ...loading }: GraphLoading & { readonly backend?: Backend } = {}): Promise<GraphSession> => {
		const scratch = openScratchFile();
		try {
			return await backend.load(build(new Weights(folder.mapWeights(which), scratch)), loading);
		} finally {
			scratch.remove();
		}
	};
	const fileOf = (expert: Expert): WeightFile => (expert === 'low' ? 'dit_low' : 'dit');
	const mode = clip === undefined ? { kind: 'chunk' as const } : { kind: 'clip' as const, sparse: clip.attention };

	const textKeys = (expert: Expert): Promise<GraphSession> => graphs.use(`keys/${expert}`, () => load(fileOf(expert), (weights) => textKeysGraph(dit, weights), { backend: onCpu }));
	const denoiser = (expert: Expert): Promise<GraphSession> => graphs.use(`dit/${expert}`, () => load(fileOf(expert), (weights) => {
		checkDitTensors(weights, dit, clip?.attention !== undefined);
		return ditGraph(dit, { weights, mode, ...denoiserArithmetic(profile, device), frames, height, width });
	}));
	const decoding = joinedDecoder(vae, height, width);
	const decoder = async (position: 'first' | 'next'): Promise<GraphSession> => {
		if (position === 'next' && decoding.graphName('first') !== 'next') {
			// The same weights; the graph for the first latent is needed once a stream.
			await graphs.drop('vae/first');
		}
		return graphs.use(`vae/${decoding.graphName(position)}`, () => load('vae', (weights) => decoding.graph(weights, position), { returnsMemory: true }));
	};

	const textEncoder = (): Promise<GraphSession> =>
		// Of umT5-XXL float32 is 19 GB; where it has to make room anyway, better a few seconds longer for each prompt.
		graphs.use('text', () => load('text', (weights) => textEncoderGraph(text, weights), { keepsWeights: residency === 'one', backend: onCpu }));
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

	/** Keys and values of the latest prompt, which are larger than it by far: made when a denoiser first sees it. */
	let latest: { readonly prompt: PromptTensors; readonly expert: Expert; readonly feeds: Feeds } | undefined;
	const promptFeeds = async (prompt: PromptTensors, expert: Expert): Promise<Feeds> => {
		if (latest?.prompt !== prompt || latest.expert !== expert) {
			const session = await textKeys(expert);
			const keys = await session.run({ context: float32([textLength, dit.text_dim], prompt.context) });
			latest = { prompt, expert, feeds: Object.fromEntries(Object.entries(keys).map(([name, { dims, data }]) => [name, stateFeed(data as Float32Array, dims, type)])) };
		}
		return latest.feeds;
	};

	let rope: { readonly firstPosition: number; readonly cos: Tensor; readonly sin: Tensor } | undefined;
	const ropeAt = (firstPosition: number): NonNullable<typeof rope> => {
		if (rope?.firstPosition !== firstPosition) {
			const { cos, sin } = ropeTables(headDim, dit.rope_theta, { firstPosition, frames, rows: sizes.rows, columns: sizes.columns });
			rope = { firstPosition, cos: float32([tokensPerChunk, headDim / 2], cos), sin: float32([tokensPerChunk, headDim / 2], sin) };
		}
		return rope;
	};

	const newKeys = Array.from({ length: layers }, (_, layer) => [`new_k.${layer}`, `new_v.${layer}`]).flat();

	const step = async (inputs: StepInputs): Promise<StepOutputs> => {
		const { expert = 'high', image, pastTokens } = inputs;
		const promptKeys = await promptFeeds(inputs.prompt, expert);
		const session = await denoiser(expert);
		const { cos, sin } = ropeAt(inputs.firstPosition);
		const latent = image === undefined ? inputs.latent : withImage(inputs.latent, image, frames, height * width);
		const feeds: Record<string, Feeds[string]> = {
			latent: float32([dit.in_dim, frames, height, width], latent),
			time: float32([inputs.timesteps.length, dit.freq_dim], timeSinusoids(inputs.timesteps, dit.freq_dim)),
			rope_cos: cos, rope_sin: sin, ...promptKeys,
		};
		for (let layer = 0; clip === undefined && layer < layers; layer++) {
			feeds[`past_k.${layer}`] = stateFeed(inputs.pastK[layer] ?? new Float32Array(0), [heads, pastTokens, headDim], type);
			feeds[`past_v.${layer}`] = stateFeed(inputs.pastV[layer] ?? new Float32Array(0), [heads, pastTokens, headDim], type);
		}
		const results = await session.run(feeds, inputs.wantKeysAndValues ? ['velocity', ...newKeys] : ['velocity'], inputs.signal);
		const velocity = floatsOf(results, 'velocity');
		if (!inputs.wantKeysAndValues) {
			return { velocity };
		}
		return {
			velocity,
			newK: Array.from({ length: layers }, (_, layer) => stateFloats(results, `new_k.${layer}`)),
			newV: Array.from({ length: layers }, (_, layer) => stateFloats(results, `new_v.${layer}`)),
		};
	};

	const decodeLatent = async (latent: StateTensor, memory: DecoderMemory): Promise<DecodedLatent> => {
		const isFirst = memory.length === 0;
		const session = await decoder(isFirst ? 'first' : 'next');
		const results = await session.run({ latent: stateFeed(latent, [vae.latent_channels, height, width], 'float32'), ...decoding.memoryFeeds(session, memory as readonly Float32Array[]) });
		const packed = results['frames']?.data as Uint8Array;
		const bytes = i420Bytes(sizes.width, sizes.height);
		const skipped = isFirst ? packed.length / bytes - 1 : 0;
		return {
			frames: Array.from({ length: packed.length / bytes - skipped }, (_, frame) => Uint8Array.from(packed.subarray((skipped + frame) * bytes, (skipped + frame + 1) * bytes))),
			memory: decoding.memoryOf(results),
		};
	};

	/** In the order of their use. Where one makes room for the next, only the first. */
	const prepare = async function* (): AsyncGenerator<undefined, void> {
		const first = 'high' satisfies Expert;
		const rest = [() => textKeys(first), () => denoiser(first), () => decoder('first'), ...(clip?.boundary === undefined ? [] : [() => textKeys('low'), () => denoiser('low')])];
		for (const use of [textEncoder, ...(residency === 'one' ? [] : rest)]) {
			await use();
			yield;
		}
	};

	let closing: Promise<void> | undefined;
	return {
		spec, tokenizer, ...sizes, encodePrompt, step, decodeLatent, prepare, emptyMemory: () => [],
		...(encoder === undefined ? {} : {
			encodeImage: async (rgb: Uint8Array) => {
				await graphs.makeRoom();
				return imageLatents({ network: encoder, load: (build) => load('encoder', build, { returnsMemory: true }), rgb, frames, width: sizes.width, height: sizes.height });
			},
		}),
		close: () => (closing ??= (async () => {
			await graphs.close();
			await device?.close();
		})()),
	};
};
