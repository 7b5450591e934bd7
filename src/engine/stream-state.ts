/**
 * The state of a stream as data: what an engine hands over after each chunk, what its host keeps of that, and what another engine, or
 * another stream, goes on from. A few MB for a small model, of which only a chunk's worth crosses the border each time.
 */
import type { ModelSpec } from '../model/spec.js';
import type { LayerKv } from './kv-cache.js';

/** A finished chunk as attention remembers it. */
export type ChunkMemory = {
	readonly chunkIndex: number;
	/** How many chunks the cache had taken before; its place in the ring follows from it. */
	readonly ordinal: number;
	/** The clean latents, [in_dim, latents_per_chunk, latentHeight, latentWidth]. */
	readonly latent: Float32Array;
	/** [latents_per_chunk, control_dim] */
	readonly control: Float32Array;
	/** Keys and values, each [heads, tokensPerChunk, head_dim]; left out where they are too large to be handed over. */
	readonly layers?: readonly LayerKv[];
};

/** What a chunk changed. */
export type Checkpoint = {
	readonly nextChunkIndex: number;
	/** `chunks` are all that the stream remembers, instead of being added to the others. */
	readonly isWhole: boolean;
	readonly chunks: readonly ChunkMemory[];
	readonly memory: readonly Float32Array[];
};

/** Everything that the future of a stream depends on besides its seed and its inputs (structured-clone safe). */
export type StreamSnapshot = { readonly nextChunkIndex: number; readonly chunks: readonly ChunkMemory[]; readonly memory: readonly Float32Array[] };

/**
 * Keys and values of one chunk above which they stay in the engine: what goes on from such a snapshot rebuilds them from the latents,
 * which is close to what was there but not the same bits (attention had seen frames that have left the window since).
 */
export const MAX_CHECKPOINT_KV_BYTES = 16 * 1024 * 1024;

/** The chunks of `chunks` that are still in the window: those of the sink, and the latest. */
export const inWindow = <Chunk extends { readonly ordinal: number }>(spec: ModelSpec, chunks: readonly Chunk[]): readonly Chunk[] => {
	const { latents_per_chunk: perChunk, window_latents: window, sink_latents: sink } = spec.stream;
	const sinkChunks = Math.ceil(sink / perChunk);
	const recentChunks = Math.ceil((window - perChunk) / perChunk);
	const taken = (chunks.at(-1)?.ordinal ?? -1) + 1;
	return chunks.filter(({ ordinal }) => ordinal < sinkChunks || ordinal >= taken - recentChunks);
};

/** The host's copy of a stream's state, as of the last chunk. */
export class StreamCopy {
	readonly #spec: ModelSpec;
	#snapshot: StreamSnapshot | undefined;

	constructor(spec: ModelSpec, snapshot?: StreamSnapshot) {
		this.#spec = spec;
		this.#snapshot = snapshot;
	}

	/** `undefined` before the first chunk. Never changed afterwards: a later chunk makes another one. */
	get snapshot(): StreamSnapshot | undefined {
		return this.#snapshot;
	}

	take({ nextChunkIndex, isWhole, chunks, memory }: Checkpoint): void {
		const before = isWhole ? [] : (this.#snapshot?.chunks ?? []);
		this.#snapshot = { nextChunkIndex, chunks: inWindow(this.#spec, [...before, ...chunks]), memory };
	}
}
