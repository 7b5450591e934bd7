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

/** As the report calls a part of the measurement. */
export const partName = (part: { readonly kind: string } | { readonly kind: 'wan'; readonly stage: WanStage; readonly kernels?: KernelUse | undefined }): string =>
	(!('stage' in part) ? part.kind : part.kernels === undefined ? part.stage : withKernels(part.stage, part.kernels));

/** Seconds that the denoiser takes for a clip: all of its steps, all of its blocks. */
export const clipSeconds = (reports: readonly StageReport[]): readonly { readonly stage: string; readonly seconds: number }[] =>
	reports.filter(({ stage }) => CLIP_STAGES.some((name) => stage.startsWith(name)))
		.map(({ stage, medianMs, blocks }) => ({ stage, seconds: CLIP_STEPS * (blocks?.estimatedMs ?? medianMs) / 1000 }));
