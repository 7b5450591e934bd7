/**
 * How published denoisers are sampled. The numbers come from the original code: TurboDiffusion's and rCM's inference scripts, and
 * Self-Forcing's configuration. A checkpoint does not hold them; `models join` writes them into model.json, where they may be changed.
 */
import type { SparseShape } from './sparse-linear-attention.js';

/**
 * `turbodiffusion`: whole clips in one to four steps, with sparse-linear attention. `rcm`: the same with dense attention. `self-forcing`:
 * streams, chunk by chunk, with a cache and stochastic re-noising.
 */
export const RECIPES = ['turbodiffusion', 'rcm', 'self-forcing'] as const;
export type Recipe = (typeof RECIPES)[number];

export const FPS = 16;
/** 81 frames: five seconds. */
export const CLIP_LATENTS = 21;
export const DEFAULT_STEPS = 4;

/** The share of keys that TurboDiffusion's script keeps, in the blocks of its kernels for most cards. */
export const TURBO_ATTENTION: SparseShape = { ratio: 0.1, blockQueries: 128, blockKeys: 64 };
/** Flow time at which Wan 2.2's expert for little noise takes over. */
export const EXPERT_BOUNDARY = 0.9;

/** Self-Forcing: chunks of three latent frames; attention reaches back over the 21 latent frames of a training clip. */
export const SELF_FORCING_STREAM = { latents_per_chunk: 3, window_latents: 21, sink_latents: 0, context_timestep: 0 } as const;
/** Every timestep moved towards noise: sigma = k s / (1 + (k - 1) s). */
const SHIFT = 5;
const NOMINAL_STEPS = { 1: [1000], 2: [1000, 500], 4: [1000, 750, 500, 250] } as const;
const shifted = (nominal: number): number => (1000 * SHIFT * nominal) / (1000 + (SHIFT - 1) * nominal);
/** Four steps is what it was trained for: 1000, 937.5, 833.3, 625. */
export const SELF_FORCING_SCHEDULES: { readonly [steps: string]: number[] } =
	Object.fromEntries(Object.entries(NOMINAL_STEPS).map(([steps, times]) => [steps, times.map(shifted)]));

/** Sizes of the two resolutions that checkpoints are made for, width and height in pixels; the first is usual. */
export const SIZES = {
	'480p': [[832, 480], [480, 832], [640, 640], [640, 480], [480, 640]],
	'720p': [[1280, 720], [720, 1280], [960, 960], [960, 720], [720, 960]],
} as const;
