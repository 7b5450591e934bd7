/** Networks of the smallest size under all the names in which they are published. */
import { quantizedTensors, type Shapes, textTensors, wanVaeTensors } from '../../../src/model/checkpoint/network-tensors.js';
import { ditTensors } from '../../../src/model/dit-tensors.js';
import type { DitDimensions } from '../../../src/model/spec.js';
import { parseWanVaeSpec } from '../../../src/model/wan-vae-spec.js';

export const DIT: DitDimensions = {
	dim: 128, ffn_dim: 144, num_heads: 1, num_layers: 2, in_dim: 4, out_dim: 3, patch_size: [1, 2, 2], freq_dim: 8, text_dim: 12,
	text_len: 512, eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
export const TEXT = { vocab_size: 11, dim: 6, dim_attn: 8, dim_ffn: 10, num_heads: 2, num_layers: 2, num_buckets: 32 };
export const VAE = parseWanVaeSpec({ dim: 4, z_dim: 3, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });

/** From the table of names: Wan's, then diffusers'. `N` is a number, `*` the end. */
const DIFFUSERS_DIT: readonly (readonly [string, string])[] = [
	['patch_embedding.*', 'patch_embedding.*'],
	['text_embedding.0.*', 'condition_embedder.text_embedder.linear_1.*'], ['text_embedding.2.*', 'condition_embedder.text_embedder.linear_2.*'],
	['time_embedding.0.*', 'condition_embedder.time_embedder.linear_1.*'], ['time_embedding.2.*', 'condition_embedder.time_embedder.linear_2.*'],
	['time_projection.1.*', 'condition_embedder.time_proj.*'], ['blocks.N.modulation', 'blocks.N.scale_shift_table'],
	['blocks.N.self_attn.q.*', 'blocks.N.attn1.to_q.*'], ['blocks.N.self_attn.k.*', 'blocks.N.attn1.to_k.*'], ['blocks.N.self_attn.v.*', 'blocks.N.attn1.to_v.*'],
	['blocks.N.self_attn.o.*', 'blocks.N.attn1.to_out.0.*'], ['blocks.N.self_attn.norm_q.*', 'blocks.N.attn1.norm_q.*'], ['blocks.N.self_attn.norm_k.*', 'blocks.N.attn1.norm_k.*'],
	['blocks.N.cross_attn.q.*', 'blocks.N.attn2.to_q.*'], ['blocks.N.cross_attn.k.*', 'blocks.N.attn2.to_k.*'], ['blocks.N.cross_attn.v.*', 'blocks.N.attn2.to_v.*'],
	['blocks.N.cross_attn.o.*', 'blocks.N.attn2.to_out.0.*'], ['blocks.N.cross_attn.norm_q.*', 'blocks.N.attn2.norm_q.*'], ['blocks.N.cross_attn.norm_k.*', 'blocks.N.attn2.norm_k.*'],
	['blocks.N.norm3.*', 'blocks.N.norm2.*'], ['blocks.N.ffn.0.*', 'blocks.N.ffn.net.0.proj.*'], ['blocks.N.ffn.2.*', 'blocks.N.ffn.net.2.*'],
	['head.head.*', 'proj_out.*'], ['head.modulation', 'scale_shift_table'],
];

const HUGGING_FACE_TEXT: readonly (readonly [string, string])[] = [
	['token_embedding.weight', 'shared.weight'], ['norm.weight', 'encoder.final_layer_norm.weight'],
	['blocks.N.norm1.*', 'encoder.block.N.layer.0.layer_norm.*'], ['blocks.N.norm2.*', 'encoder.block.N.layer.1.layer_norm.*'],
	...['q', 'k', 'v', 'o'].map((part) => [`blocks.N.attn.${part}.*`, `encoder.block.N.layer.0.SelfAttention.${part}.*`] as const),
	['blocks.N.pos_embedding.embedding.*', 'encoder.block.N.layer.0.SelfAttention.relative_attention_bias.*'],
	['blocks.N.ffn.gate.0.*', 'encoder.block.N.layer.1.DenseReluDense.wi_0.*'], ['blocks.N.ffn.fc1.*', 'encoder.block.N.layer.1.DenseReluDense.wi_1.*'],
	['blocks.N.ffn.fc2.*', 'encoder.block.N.layer.1.DenseReluDense.wo.*'],
];

/** Modules of the Wan VAE: prefixes of Wan's, then of diffusers'. */
const DIFFUSERS_VAE_MODULES: readonly (readonly [string, string])[] = [
	['encoder.conv1', 'encoder.conv_in'], ['decoder.conv1', 'decoder.conv_in'], ['conv1', 'quant_conv'], ['conv2', 'post_quant_conv'],
	...['encoder', 'decoder'].flatMap((part) => [
		[`${part}.middle.0`, `${part}.mid_block.resnets.0`], [`${part}.middle.1`, `${part}.mid_block.attentions.0`], [`${part}.middle.2`, `${part}.mid_block.resnets.1`],
		[`${part}.head.0`, `${part}.norm_out`], [`${part}.head.2`, `${part}.conv_out`],
	] as const),
	...Array.from({ length: 11 }, (_, index) => [`encoder.downsamples.${index}`, `encoder.down_blocks.${index}`] as const),
	...[0, 1, 2, 3].flatMap((level) => [
		...[0, 1, 2].map((block) => [`decoder.upsamples.${4 * level + block}`, `decoder.up_blocks.${level}.resnets.${block}`] as const),
		[`decoder.upsamples.${4 * level + 3}`, `decoder.up_blocks.${level}.upsamplers.0`] as const,
	]),
];
const DIFFUSERS_VAE_PARTS: readonly (readonly [string, string])[] = [
	['residual.0.', 'norm1.'], ['residual.2.', 'conv1.'], ['residual.3.', 'norm2.'], ['residual.6.', 'conv2.'], ['shortcut.', 'conv_shortcut.'],
];

const throughTable = (table: readonly (readonly [string, string])[]) => (name: string): string => {
	for (const [ours, theirs] of table) {
		const match = new RegExp(`^${ours.replaceAll('.', '\\.').replace('N', '(?<n>\\d+)').replace('*', '(?<end>.+)')}$`, 'u').exec(name);
		if (match !== null) {
			return theirs.replace('N', match.groups?.['n'] ?? '').replace('*', match.groups?.['end'] ?? '');
		}
	}
	throw new Error(`the table has no ${name}`);
};

const vaeName = (name: string): string => {
	const [ours, theirs] = [...DIFFUSERS_VAE_MODULES].sort(([a], [b]) => b.length - a.length).find(([prefix]) => name.startsWith(`${prefix}.`)) ?? ['', ''];
	const rest = name.slice(ours.length + 1);
	const [part, replacement] = DIFFUSERS_VAE_PARTS.find(([prefix]) => rest.startsWith(prefix)) ?? ['', ''];
	return `${theirs}.${replacement}${rest.slice(part.length)}`;
};

export type Published = { readonly what: string; readonly kind: string; readonly title: RegExp; readonly shapes: Shapes; readonly rename: (name: string) => string };

const plainDit = ditTensors(DIT, false);
const same = (name: string): string => name;

export const PUBLISHED: readonly Published[] = [
	{ what: 'Wan 2.1', kind: 'wan-dit', title: /^Wan DiT$/u, shapes: plainDit, rename: same },
	{ what: 'Wan 2.1 by diffusers', kind: 'wan-dit', title: /diffusers/u, shapes: plainDit, rename: throughTable(DIFFUSERS_DIT) },
	{ what: 'TurboDiffusion', kind: 'turbo-dit', title: /sparse-linear attention$/u, shapes: ditTensors(DIT, true), rename: same },
	{ what: 'TurboDiffusion in 8 bits', kind: 'turbo-dit', title: /sparse-linear attention, 8-bit/u, shapes: quantizedTensors(ditTensors(DIT, true)), rename: same },
	{ what: 'rCM', kind: 'wan-dit', title: /^Wan DiT$/u, shapes: plainDit, rename: (name) => `net.${name}` },
	{ what: 'Self-Forcing', kind: 'wan-dit', title: /^Wan DiT$/u, shapes: plainDit, rename: (name) => `model._fsdp_wrapped_module.${name}` },
	{ what: 'umT5', kind: 'umt5', title: /^umT5 encoder$/u, shapes: textTensors(TEXT), rename: same },
	{ what: 'umT5 by Hugging Face', kind: 'umt5', title: /Hugging Face/u, shapes: textTensors(TEXT), rename: throughTable(HUGGING_FACE_TEXT) },
	{ what: 'the Wan VAE', kind: 'wan-vae', title: /^Wan VAE$/u, shapes: wanVaeTensors(VAE), rename: same },
	{ what: 'the Wan VAE by diffusers', kind: 'wan-vae', title: /diffusers/u, shapes: wanVaeTensors(VAE), rename: vaeName },
];
