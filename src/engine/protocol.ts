/**
 * The engine protocol: what crosses the border between the main process and an engine process. Plain data, structured-clone
 * safe, so that an engine may as well run on another machine or be written in another language. The host pulls: an engine
 * generates one chunk per `chunk.generate` and hands its frames over latent by latent, so a request is the credit.
 */
import type { ErrorCode } from '../protocol/errors.js';
import type { Checkpoint, StreamSnapshot } from './stream-state.js';

export const CPU_PROFILES = ['cpu-int8', 'cpu-fp32', 'cpu-int8-attention'] as const;
export const WEBGPU_PROFILES = ['webgpu-fp16', 'webgpu-fp32'] as const;
export const CUDA_PROFILES = ['cuda-fp16', 'cuda-fp32', 'cuda-int8'] as const;
/** How the networks are computed: where, and in which numbers. */
export const ENGINE_PROFILES = [...CPU_PROFILES, ...WEBGPU_PROFILES, ...CUDA_PROFILES] as const;
export type EngineProfile = (typeof ENGINE_PROFILES)[number];
/** Those of graphics cards. */
export type CardProfile = (typeof WEBGPU_PROFILES)[number] | (typeof CUDA_PROFILES)[number];
export type CpuProfile = (typeof CPU_PROFILES)[number];

/** Most streams whose steps are computed as one forward; `auto` measures what pays on a graphics card, and is 1 on the processor. */
export const BATCH_CHOICES = ['auto', 1, 2, 4, 8] as const;
export type BatchChoice = (typeof BATCH_CHOICES)[number];

/** What an engine computes on. */
export const DEVICES = ['auto', 'cpu', 'webgpu', 'cuda'] as const;
export type DeviceChoice = (typeof DEVICES)[number];

/** Whether something that a card may not have, or get wrong, is used: where it is there and right, always or never. */
export const USE_MODES = ['auto', 'on', 'off'] as const;
export type UseMode = (typeof USE_MODES)[number];

/** Which networks of a joined model stay in memory: all, one at a time, or all if they fit. */
export const RESIDENCIES = ['auto', 'all', 'one'] as const;
export type Residency = (typeof RESIDENCIES)[number];

/** Whether a second process waits to take over: always, never, or where it is cheap. */
export const STANDBY_MODES = ['auto', 'on', 'off'] as const;
export type StandbyMode = (typeof STANDBY_MODES)[number];

/** Where encoded prompts are kept on disk, and how many bytes of them at most. */
export type EmbeddingCacheSettings = { readonly folder: string; readonly maxBytes: number };

export type WeightedPrompt = { readonly text: string; readonly weight: number };
/** One text, or several whose meanings are mixed; only the ratios of the weights count. */
export type Prompt = string | readonly WeightedPrompt[];

/** What becomes of the past before a chunk: it stays, is seen again with the chunk's prompt, or is forgotten. */
export const PAST_MODES = ['keep', 'recache', 'forget'] as const;
export type PastMode = (typeof PAST_MODES)[number];

/** Everything that a chunk depends on besides the stream's own past; latched when generation of the chunk begins. */
export type ChunkInputs = {
	readonly prompt: Prompt;
	/** A key of the model's `schedules`. */
	readonly steps: number;
	/** Control values by name, in the model's units; absent ones have their default. */
	readonly controls: { readonly [name: string]: number };
	/** Of the noise; the stream's own when left out. */
	readonly seed?: number;
	/** `keep` when left out. */
	readonly past?: PastMode;
};

export type EngineRequest =
	/** `latents`: length of a clip, of models that make clips; `image`: RGB bytes [height, width, 3], of models that begin with a picture. */
	| {
		readonly type: 'stream.open'; readonly stream: number; readonly seed: number; readonly width: number; readonly height: number; readonly firstChunkIndex: number;
		readonly latents?: number | undefined; readonly image?: Uint8Array | undefined;
		/** Whether `chunk.done` is to bring what the chunk changed. */
		readonly checkpoints: boolean;
		/** Goes on from here; its `nextChunkIndex` is `firstChunkIndex`. */
		readonly restore?: StreamSnapshot | undefined;
	}
	/** `dueInMs`: when the chunk's first picture is to be shown; the earliest goes first. At once when left out. */
	| { readonly type: 'chunk.generate'; readonly stream: number; readonly chunkIndex: number; readonly inputs: ChunkInputs; readonly dueInMs?: number | undefined }
	/** Encodes the prompt ahead of its use, so that the chunk that brings it does not wait for it. */
	| { readonly type: 'prompt.prepare'; readonly prompt: string }
	/** Stops the chunk being generated within one step; the stream stays, its history as before that chunk. */
	| { readonly type: 'chunk.cancel'; readonly stream: number }
	| { readonly type: 'stream.close'; readonly stream: number }
	/** Ends the process after the step at hand. */
	| { readonly type: 'engine.close' };

export type ChunkTimings = { readonly queueMs: number; readonly textMs: number; readonly recacheMs: number; readonly denoiseMs: number; readonly cleanMs: number; readonly decodeMs: number };

/**
 * Streams on one engine, unless it is told otherwise (`engine.max_streams`): two for each of 128 sessions, because one that ends is closed a little after its place was
 * given to another. A stream takes memory from its first chunk on; how much all of them may take is decided where sessions are let in.
 */
export const DEFAULT_MAX_STREAMS = 256;

/** Longest clip that a stream may ask for, latent frames: two minutes and more of Wan's. Memory ends long before. */
export const MAX_CLIP_LATENTS = 512;

/** How often an engine says that it lives, while it has nothing else to say. */
export const HEARTBEAT_INTERVAL_MS = 1000;

export type EngineEvent =
	/** Sent every `HEARTBEAT_INTERVAL_MS` from the moment the engine is ready; a step at hand may delay it. */
	| { readonly type: 'engine.heartbeat' }
	| { readonly type: 'engine.ready'; readonly loadMs: number; readonly warmMs: number }
	| { readonly type: 'engine.failed'; readonly code: ErrorCode; readonly message: string }
	/** The frames of one latent: each `data` is I420 (see RawFrame). */
	| { readonly type: 'frames'; readonly stream: number; readonly chunkIndex: number; readonly firstIndexInChunk: number; readonly width: number; readonly height: number; readonly frames: readonly Uint8Array[] }
	| { readonly type: 'chunk.done'; readonly stream: number; readonly chunkIndex: number; readonly frames: number; readonly timings: ChunkTimings; readonly checkpoint?: Checkpoint }
	| { readonly type: 'chunk.cancelled'; readonly stream: number; readonly chunkIndex: number }
	| { readonly type: 'chunk.failed'; readonly stream: number; readonly chunkIndex: number; readonly code: ErrorCode; readonly message: string };
