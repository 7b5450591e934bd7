/** What the rest of the program sees of an engine: `EngineHost` implements it over a child process. */
import type { RawFrame } from '../base/frame.js';
import type { ModelSpec } from '../model/spec.js';
import type { TurbocastError } from '../protocol/errors.js';
import type { ChunkInputs, ChunkTimings, EngineProfile } from './protocol.js';
import type { StreamSnapshot } from './stream-state.js';

export type EngineState =
	| { readonly kind: 'starting' }
	| { readonly kind: 'ready'; readonly coldStartMs: number; readonly pid: number }
	| { readonly kind: 'restarting'; readonly error: TurbocastError; readonly attempt: number }
	/** Given up: restarts failed too often, or the model cannot be loaded. */
	| { readonly kind: 'failed'; readonly error: TurbocastError }
	| { readonly kind: 'closed' };

export type StreamOptions = {
	/** Unsigned 32 bits; together with the inputs of each chunk it decides every pixel. */
	readonly seed: number;
	/** Pixels; one of the model's sizes. */
	readonly width: number;
	readonly height: number;
	/** Latent frames of a clip, of models that make whole clips; the model's usual number when left out. */
	readonly latents?: number | undefined;
	/** RGB bytes [height, width, 3], of models that begin with a picture. */
	readonly image?: Uint8Array | undefined;
	/** Where to go on after an engine was lost; the history before it is gone. Default 0. */
	readonly firstChunkIndex?: number;
	readonly firstFrameId?: number;
	/** Whether `snapshot` is wanted; it costs a few milliseconds a chunk. Default false. */
	readonly keepsSnapshot?: boolean;
	/** Goes on from the state of another stream of this model and size, on this engine or any; `firstChunkIndex` is then its own. */
	readonly restore?: StreamSnapshot;
};

/** One chunk as it arrives: its frames in order, each as soon as its latent is decoded. */
export type ChunkRun = {
	readonly chunkIndex: number;
	/**
	 * Ends after the last frame. Throws `engine_failed` when the process dies (reopen the stream), `generation_invalid` when a
	 * number was not finite (the stream's history is unchanged; the chunk may be tried again), or the abort reason.
	 */
	readonly frames: AsyncIterable<RawFrame>;
	/** Settles with the end of `frames`. */
	readonly timings: Promise<ChunkTimings>;
};

/** One stream on an engine. Closed by whoever opened it; an engine that dies ends all its streams. */
export type EngineStream = {
	readonly seed: number;
	/** Index of the next chunk to be generated. */
	readonly nextChunkIndex: number;
	/** The state after the last chunk: plain data that outlives the engine. `undefined` before the first chunk, and without `keepsSnapshot`. */
	readonly snapshot: StreamSnapshot | undefined;
	/**
	 * Starts one chunk. One at a time: a second call before the first has ended is an `invalid_state`. Aborting cancels within one step. Of several streams
	 * the one whose picture is due first goes first; `dueInMs` says when that is, 0 when left out.
	 */
	readonly generate: (inputs: ChunkInputs, signal?: AbortSignal, dueInMs?: number) => ChunkRun;
	readonly close: () => Promise<void>;
};

export type Engine = {
	readonly model: ModelSpec;
	readonly profile: EngineProfile;
	readonly state: EngineState;
	/** Called on every change of state; returns the way to stop listening. */
	readonly onState: (listener: (state: EngineState) => void) => () => void;
	/** Resolves when the engine is ready; rejects when it has failed for good or the signal aborts. */
	readonly ready: (signal?: AbortSignal) => Promise<void>;
	/** Words of a prompt that the model does not know, as written. Runs here, not in the engine process. */
	readonly unknownWords: (prompt: string) => string[];
	/** Lets the engine encode a prompt ahead of its use. Never fails. */
	readonly prepare: (prompt: string) => void;
	/** Rejects with `not_ready` unless ready. */
	readonly openStream: (options: StreamOptions) => Promise<EngineStream>;
	/** Ends the process; idempotent. Streams still open end with `engine_failed`. */
	readonly close: () => Promise<void>;
};
