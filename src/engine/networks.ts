/**
 * The networks of one model at one output size, ready to run: plain numbers in, plain numbers out. Nothing here knows of
 * chunks, windows or noise; that is the business of the sampler and the generator on top.
 */
import type { ModelSpec } from '../model/spec.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { EngineProfile } from './protocol.js';

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

/** One forward of the denoiser over the latent frames of a chunk. */
export type StepInputs = {
	/** [in_dim, latents_per_chunk, latentHeight, latentWidth], the noisy latent. */
	readonly latent: Float32Array;
	/** 0..1000, one per latent frame. */
	readonly timesteps: readonly number[];
	/** [latents_per_chunk, control_dim]; zeros when left out. */
	readonly control?: Float32Array;
	readonly prompt: PromptTensors;
	/** Temporal position (rotary embedding) of the first latent frame, counted from the start of the stream. */
	readonly firstPosition: number;
	/** Keys (already roped) and values of the frames before: one [num_heads, pastTokens, head_dim] per layer. */
	readonly pastK: readonly Float32Array[];
	readonly pastV: readonly Float32Array[];
	/** Length of the past in tokens; a whole number of latent frames; 0 at the start of a stream. */
	readonly pastTokens: number;
	/** Whether `newK` and `newV` are wanted (the clean pass). Leaving them out is faster. */
	readonly wantKeysAndValues: boolean;
};

export type StepOutputs = {
	/** [out_dim, latents_per_chunk, latentHeight, latentWidth]; x0 = x_t - sigma * velocity. */
	readonly velocity: Float32Array;
	/** One [num_heads, tokensPerChunk, head_dim] per layer; keys are roped. */
	readonly newK?: readonly Float32Array[];
	readonly newV?: readonly Float32Array[];
};

/** The decoder's memory of one stream: for level L and block B, in order, one [widths[L], latentHeight * 2^L, latentWidth * 2^L]. */
export type DecoderMemory = readonly Float32Array[];

export type DecodedLatent = {
	/** `frames_per_latent` pictures, I420 (see RawFrame), each with a buffer of its own that may be transferred. */
	readonly frames: readonly Uint8Array<ArrayBuffer>[];
	readonly memory: DecoderMemory;
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
	/** `latent` [latent_channels, latentHeight, latentWidth], normalised (as the denoiser has it). */
	readonly decodeLatent: (latent: Float32Array, memory: DecoderMemory) => Promise<DecodedLatent>;
	/** The memory of a stream that has decoded nothing yet: zeros. */
	readonly emptyMemory: () => DecoderMemory;
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
};
