/** What is measured with Wan's dimensions. Apart from the stages, which bring the graphs along. */
import { needsKernels } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import type { StageReport } from './stage.js';

export const WAN_STAGES = ['causal step', 'causal clean pass', 'clip step, dense', 'clip step, sparse', 'taehv decode, a latent', 'wan vae decode, a latent', 'umt5-xxl encode'] as const;
export type WanStage = (typeof WAN_STAGES)[number];
/** Those that our kernels have a part in, and are measured once more with them. */
const KERNEL_STAGES: readonly WanStage[] = ['causal step', 'clip step, sparse'];
/** Those that `cuda-int8` computes by its kernels alone. */
const DENOISER_STAGES: readonly WanStage[] = ['causal step', 'causal clean pass', 'clip step, dense', 'clip step, sparse'];

/** How a stage is computed by our kernels: in 16 bits, or in 8 where `cuda-int8` is. */
export type KernelUse = 'own kernels' | 'own kernels, 8 bits';

export const withKernels = (stage: WanStage, use: KernelUse): string => `${stage}, ${use}`;

/** In which ways a stage is measured: `undefined` is without our kernels. `areUsed`: where they are there and right. */
export const kernelUses = (stage: WanStage, profile: EngineProfile, areUsed: boolean): readonly (KernelUse | undefined)[] =>
	(needsKernels(profile)
		? [DENOISER_STAGES.includes(stage) ? 'own kernels, 8 bits' : undefined]
		: [undefined, ...(areUsed && KERNEL_STAGES.includes(stage) ? ['own kernels', 'own kernels, 8 bits'] as const : [])]);

/** Clips of 81 frames in as many steps as TurboDiffusion's: what its figures are of. */
export const CLIP_STEPS = 4;
const CLIP_STAGES: readonly WanStage[] = ['clip step, dense', 'clip step, sparse'];

/** A stage whose forwards are recorded once and replayed (CUDA graphs). */
export const recordedName = (stage: string): string => `${stage}, recorded`;

/** Forwards of streams, which are recorded where a device can. */
const RECORDED_STAGES = ['causal step', 'causal clean pass'] as const satisfies readonly WanStage[];

export const isRecordedStage = (stage: WanStage): boolean => (RECORDED_STAGES as readonly WanStage[]).includes(stage);

/** As the report calls a part of the measurement. */
export const partName = (part: { readonly kind: string; readonly stage?: WanStage; readonly kernels?: KernelUse | undefined; readonly isRecorded?: boolean | undefined }): string => {
	const name = part.stage === undefined ? part.kind : part.kernels === undefined ? part.stage : withKernels(part.stage, part.kernels);
	return part.isRecorded === true ? recordedName(name) : name;
};

/** Of all blocks of a network. */
const wholeMs = ({ medianMs, blocks }: StageReport): number => blocks?.estimatedMs ?? medianMs;

/** Seconds that the denoiser takes for a clip: all of its steps, all of its blocks. */
export const clipSeconds = (reports: readonly StageReport[]): readonly { readonly stage: string; readonly seconds: number }[] =>
	reports.filter(({ stage }) => CLIP_STAGES.some((name) => stage.startsWith(name))).map((report) => ({ stage: report.stage, seconds: CLIP_STEPS * wholeMs(report) / 1000 }));

/** A causal window as Self-Forcing's long streams have it: chunks of three latent frames see the nine before and the first three of all. */
export const CAUSAL = { chunkLatents: 3, windowLatents: 12, sinkLatents: 3, steps: 4 } as const;
/** Those that are seen besides the chunk. */
export const PAST_LATENTS = CAUSAL.windowLatents - CAUSAL.chunkLatents + CAUSAL.sinkLatents;
/** Wan's; pictures of a latent, and of a second. */
const [FRAMES_PER_LATENT, FRAMES_PER_SECOND] = [4, 16];
const DECODERS = ['taehv decode, a latent', 'wan vae decode, a latent'] as const satisfies readonly WanStage[];

export type LiveReport = {
	/** The step that it is made of. */
	readonly stage: string;
	/** Four steps, a clean pass and the decoding of three latents by TAEHV, over a full window. */
	readonly chunkMs: number;
	readonly framesPerSecond: number;
	/** Steps and the first latent's pictures, as if the window were full already: the first chunk of a stream takes no longer. */
	readonly firstFramesMs: number;
};

/** What a causal stream takes, by the causal steps that were measured; none where a part of it was not. A clean pass that was not measured in the same way counts as a step: it is the same forward. */
export const liveFigures = (reports: readonly StageReport[]): readonly LiveReport[] => {
	const named = (name: string): number | undefined => reports.filter(({ stage }) => stage === name).map(wholeMs)[0];
	const decodeMs = named(DECODERS[0]);
	return decodeMs === undefined ? [] : reports.filter(({ stage }) => stage.startsWith(RECORDED_STAGES[0])).map((report) => {
		const stepMs = wholeMs(report);
		const cleanMs = named(report.stage.replace(RECORDED_STAGES[0], RECORDED_STAGES[1])) ?? stepMs;
		const chunkMs = CAUSAL.steps * stepMs + cleanMs + CAUSAL.chunkLatents * decodeMs;
		return { stage: report.stage, chunkMs, framesPerSecond: 1000 * CAUSAL.chunkLatents * FRAMES_PER_LATENT / chunkMs, firstFramesMs: CAUSAL.steps * stepMs + decodeMs };
	});
};

/** What decoding takes of each second of video. */
export const decodeFigures = (reports: readonly StageReport[]): readonly { readonly stage: string; readonly msPerSecond: number }[] =>
	reports.filter(({ stage }) => DECODERS.some((name) => stage === name)).map((report) => ({ stage: report.stage, msPerSecond: FRAMES_PER_SECOND / FRAMES_PER_LATENT * wholeMs(report) }));
