/**
 * How much memory a stream takes, counted from shapes: keys and values of its window, the decoder's memory (twice: while a chunk is made there is that of the
 * stream and that of the chunk) and the clean latents that it remembers. What is taken for the length of one run, and weights, belong to the engine.
 */
import { isOwnModel, type ModelSpec } from '../model/spec.js';
import { memoryShapes, networkSizes } from './network-sizes.js';
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

/** Of a stream whose window is full. Clips remember nothing from one to the next; of published models the decoder's memory is counted with its network. */
export const streamBytes = (spec: ModelSpec, { width, height }: { readonly width: number; readonly height: number }, profile: EngineProfile): StreamBytes => {
	if (spec.clip !== undefined) {
		return { host: 0, card: 0 };
	}
	const { latentWidth, latentHeight, tokensPerLatent } = networkSizes(spec, width, height);
	const { latents_per_chunk: perChunk, window_latents: window, sink_latents: sink } = spec.stream;
	const { dit } = spec;
	const kvNumbers = 2 * dit.num_layers * dit.dim * tokensPerLatent;
	const latentNumbers = dit.in_dim * perChunk * latentWidth * latentHeight;
	const memoryNumbers = isOwnModel(spec) ? memoryShapes(spec, latentWidth, latentHeight).reduce((sum, { dims }) => sum + product(dims), 0) : 0;
	const chunks = Math.ceil(sink / perChunk) + Math.ceil((window - perChunk) / perChunk);
	/** With numbers of so many bytes for keys, values and the decoder's memory. */
	const engine = (bytes: number): number => bytes * (kvNumbers * (window - perChunk) + 2 * memoryNumbers) + FLOAT * latentNumbers * (chunks + IN_THE_MAKING);
	const isCopied = FLOAT * kvNumbers * perChunk <= MAX_CHECKPOINT_KV_BYTES;
	const copy = FLOAT * (chunks * (latentNumbers + (isCopied ? kvNumbers * perChunk : 0)) + memoryNumbers);
	// Networks of published models hand their state back after every run, whatever computes them.
	const staysOnCard = deviceOf(profile) !== 'cpu' && isOwnModel(spec);
	return staysOnCard ? { host: copy, card: engine(stateType(profile) === 'float16' ? 2 : FLOAT) } : { host: copy + engine(FLOAT), card: 0 };
};
