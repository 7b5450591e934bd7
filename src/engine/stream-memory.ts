/**
 * How much memory a stream takes, counted from shapes: keys and values of its window, the decoder's memory (twice: while a chunk is made there is that of the
 * stream and that of the chunk) and the clean latents that it remembers. What is taken for the length of one run, and weights, belong to the engine.
 */
import type { ModelSpec } from '../model/spec.js';
import { decoderMemories, networkSizes } from './network-sizes.js';
import { deviceOf, stateType } from './profile.js';
import type { EngineProfile } from './protocol.js';
import { MAX_CHECKPOINT_KV_BYTES } from './stream-state.js';

export type StreamBytes = {
	/** In the memory of this machine: of the engine process, where that computes on the processor, and of the copy that its parent keeps. */
	readonly host: number;
	/** In that of a graphics card. */
	readonly card: number;
};

const FLOAT = 4;
/** Latents of the chunk that is being made: before a step and after it. */
const IN_THE_MAKING = 2;

const product = (dims: readonly number[]): number => dims.reduce((total, size) => total * size, 1);

/** Bytes of a number of keys and values. */
const kvNumberBytes = (profile: EngineProfile): number => (stateType(profile) === 'float16' ? 2 : FLOAT);

/**
 * Keys and values of a full window, where they stay between runs. Those that are written in place have room for the chunk at hand, and are allocated whole with a stream's first
 * chunk: a window that grows takes no more.
 */
export const windowBytes = ({ dit, stream }: Pick<ModelSpec, 'dit' | 'stream'>, tokensPerLatent: number, profile: EngineProfile): number =>
	kvNumberBytes(profile) * 2 * dit.num_layers * dit.dim * tokensPerLatent * (deviceOf(profile) === 'cuda' ? stream.window_latents : stream.window_latents - stream.latents_per_chunk);

/** Of a stream whose window is full. Clips remember nothing from one to the next: what one takes while it is made is the engine's (memory-need.ts). */
export const streamBytes = (spec: ModelSpec, { width, height }: { readonly width: number; readonly height: number }, profile: EngineProfile): StreamBytes => {
	if (spec.clip !== undefined) {
		return { host: 0, card: 0 };
	}
	const { latentWidth, latentHeight, tokensPerLatent } = networkSizes(spec, width, height);
	const { latents_per_chunk: perChunk, window_latents: window, sink_latents: sink } = spec.stream;
	const { dit } = spec;
	const kvNumbers = 2 * dit.num_layers * dit.dim * tokensPerLatent;
	const latentNumbers = dit.in_dim * perChunk * latentWidth * latentHeight;
	const memoryNumbers = decoderMemories(spec.vae, latentWidth, latentHeight).reduce((sum, { dims }) => sum + product(dims), 0);
	const chunks = Math.ceil(sink / perChunk) + Math.ceil((window - perChunk) / perChunk);
	/** With numbers of so many bytes for the decoder's memory. */
	const engine = (memoryBytes: number): number => windowBytes(spec, tokensPerLatent, profile) + memoryBytes * 2 * memoryNumbers + FLOAT * latentNumbers * (chunks + IN_THE_MAKING);
	const isCopied = FLOAT * kvNumbers * perChunk <= MAX_CHECKPOINT_KV_BYTES;
	const copy = FLOAT * (chunks * (latentNumbers + (isCopied ? kvNumbers * perChunk : 0)) + memoryNumbers);
	if (deviceOf(profile) === 'cpu') {
		return { host: copy + engine(FLOAT), card: 0 };
	}
	// Published decoders compute in float32 whatever the denoiser does.
	return { host: copy, card: engine(spec.vae.kind === 'group-decoder' ? kvNumberBytes(profile) : FLOAT) };
};
