/** What is measured with Wan's dimensions. Apart from the stages, which bring the graphs along. */
export const WAN_STAGES = ['causal step', 'causal clean pass', 'clip step, dense', 'clip step, sparse', 'taehv decode, a latent', 'wan vae decode, a latent', 'umt5-xxl encode'] as const;
export type WanStage = (typeof WAN_STAGES)[number];
