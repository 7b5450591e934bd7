/** Dimensions of the published networks, for counting and measuring without their weights; what is imported brings its own. */
import type { DitDimensions, TextSpec } from './spec.js';
import { parseTaehvSpec, type TaehvSpec } from './taehv.js';
import { parseWanVaeSpec, type WanVaeSpec } from './wan-vae-spec.js';

export const WAN_1_3B: DitDimensions = {
	dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};

export const WAN_14B: DitDimensions = { ...WAN_1_3B, dim: 5120, ffn_dim: 13_824, num_heads: 40, num_layers: 40 };

export const UMT5_XXL: TextSpec = {
	kind: 'umt5', vocab_size: 256_384, dim: 4096, dim_attn: 4096, dim_ffn: 10_240, num_heads: 64, num_layers: 24, num_buckets: 32, max_dist: 128, eps: 1e-6, text_len: 512,
};

export const wanVae = (): WanVaeSpec => parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });

export const taehv = (): TaehvSpec => parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 });

/** Pixels of a side to those of a latent. */
export const WAN_STRIDE = 8;
