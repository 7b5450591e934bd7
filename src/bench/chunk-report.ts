/** What is told of whole chunks of an own model. */
import type { ModelSpec } from '../model/spec.js';
import type { StageReport } from './stage.js';

export const OWN_STAGES = { step: 'denoising step', clean: 'clean pass', decode: 'decode, a latent' } as const;

export type ChunkReport = {
	readonly model: string;
	readonly width: number;
	readonly height: number;
	readonly steps: number;
	readonly framesPerChunk: number;
	readonly chunks: number;
	/** Whether the forwards were replayed. */
	readonly isRecorded: boolean;
	/** Of chunks with a full window and a prompt that is known. */
	readonly chunkMs: { readonly median: number; readonly p95: number };
	/** Frames made in the time of the median chunk. */
	readonly framesPerSecond: number;
	/** From a new prompt to the first frames being handed over, in a running stream. */
	readonly promptToFirstFrameMs: { readonly median: number; readonly p95: number };
};

/** Of a chunk, from its stages; NaN when one was not measured. */
export const chunkEstimateMs = ({ default_steps: steps, stream }: ModelSpec, stages: readonly StageReport[]): number => {
	const [step = Number.NaN, clean = Number.NaN, decode = Number.NaN] = Object.values(OWN_STAGES).map((name) => stages.find(({ stage }) => stage === name)?.medianMs);
	return steps * step + clean + stream.latents_per_chunk * decode;
};
