/** What is measured with Wan's dimensions. Apart from the stages, which bring the graphs along. */
export const WAN_STAGES = ['causal step', 'causal clean pass', 'clip step, dense', 'clip step, sparse', 'taehv decode, a latent', 'wan vae decode, a latent', 'umt5-xxl encode'] as const;
export type WanStage = (typeof WAN_STAGES)[number];
/** Those that our kernels have a part in. */
export const KERNEL_STAGES: readonly WanStage[] = ['causal step', 'clip step, sparse'];

export const withKernels = (stage: WanStage): string => `${stage}, own kernels`;

/** As the report calls a part of the measurement. */
export const partName = (part: { readonly kind: string } | { readonly kind: 'wan'; readonly stage: WanStage; readonly kernels?: boolean }): string =>
	(!('stage' in part) ? part.kind : part.kernels === true ? withKernels(part.stage) : part.stage);
