/**
 * What the stages of a clip compute and read, counted from their graphs: npm run bench -- work [FRAMES]. Nothing is run and nothing is typed in: of
 * a denoiser the graphs of one and of two blocks are built, and the difference is a block.
 */
import { CLIP_LATENTS, TURBO_ATTENTION } from '../src/model/recipes.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../src/model/checkpoint/network-tensors.js';
import { ditGraph } from '../src/model/dit.js';
import { ditTensors } from '../src/model/dit-tensors.js';
import type { Graph } from '../src/model/graph.js';
import { type GraphWork, graphWork, WORK_KINDS } from '../src/model/graph-work.js';
import type { DitDimensions, TextSpec } from '../src/model/spec.js';
import { parseTaehvSpec, taehvGraph } from '../src/model/taehv.js';
import { textEncoderGraph } from '../src/model/text-encoder.js';
import { wanDecoderGraph } from '../src/model/wan-vae.js';
import { parseWanVaeSpec } from '../src/model/wan-vae-spec.js';
import { headerOnlyWeights } from '../test/model/header-only-weights.js';
import { printTable } from './report.js';

const FRAMES_PER_LATENT = 4;
const [frames = 1 + FRAMES_PER_LATENT * (CLIP_LATENTS - 1)] = process.argv.slice(2).map(Number);
const latents = 1 + (frames - 1) / FRAMES_PER_LATENT;
const SIZES = { '480p': [832, 480], '720p': [1280, 720] } as const;
const STRIDE = 8;

const scaled = (work: GraphWork, times: number): GraphWork => ({
	flops: { linear: times * work.flops.linear, attention: times * work.flops.attention, convolution: times * work.flops.convolution },
	trafficBytes: times * work.trafficBytes,
});
const sum = (a: GraphWork, b: GraphWork): GraphWork => ({
	flops: { linear: a.flops.linear + b.flops.linear, attention: a.flops.attention + b.flops.attention, convolution: a.flops.convolution + b.flops.convolution },
	trafficBytes: a.trafficBytes + b.trafficBytes,
});

/** A network of many equal blocks from the graphs of one and of two. */
const ofBlocks = (blocks: number, graphOf: (count: number) => Graph): GraphWork => {
	const [one, two] = [graphWork(graphOf(1)), graphWork(graphOf(2))];
	return sum(one, scaled(sum(two, scaled(one, -1)), blocks - 1));
};

const WAN: DitDimensions = {
	dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const DITS: { readonly [name: string]: DitDimensions } = { '1.3B': WAN, '14B': { ...WAN, dim: 5120, ffn_dim: 13_824, num_heads: 40, num_layers: 40 } };
const TEXT: TextSpec = { kind: 'umt5', vocab_size: 256_384, dim: 4096, dim_attn: 4096, dim_ffn: 10_240, num_heads: 64, num_layers: 24, num_buckets: 32, max_dist: 128, eps: 1e-6, text_len: 512 };

const denoiser = (spec: DitDimensions, height: number, width: number, isSparse: boolean): GraphWork => ofBlocks(spec.num_layers, (blocks) => {
	const part = { ...spec, num_layers: blocks };
	return ditGraph(part, {
		weights: headerOnlyWeights(ditTensors(part, isSparse)), linears: 'float32', mode: { kind: 'clip', sparse: isSparse ? TURBO_ATTENTION : undefined }, frames: latents, height, width,
	});
});

const tera = (value: number): string => (value / 1e12).toFixed(value < 1e13 ? 2 : 1);
const giga = (value: number): string => (value / 1e9).toFixed(2);
const BF16_BYTES = 2;

const parametersOf = (shapes: Shapes): number => Object.values(shapes).reduce((total, shape) => total + shape.reduce((product, side) => product * side, 1), 0);

const row = (stage: string, work: GraphWork, parameters: number): string[] =>
	[stage, ...WORK_KINDS.map((kind) => tera(work.flops[kind])), tera(WORK_KINDS.reduce((total, kind) => total + work.flops[kind], 0)), giga(BF16_BYTES * parameters), giga(work.trafficBytes)];

const rows: string[][] = [row('umT5-XXL, a prompt', ofBlocks(TEXT.num_layers, (blocks) => {
	const part = { ...TEXT, num_layers: blocks };
	return textEncoderGraph(part, headerOnlyWeights(textTensors(part)));
}), parametersOf(textTensors(TEXT)))];
for (const [size, [width, height]] of Object.entries(SIZES)) {
	const latent = { height: height / STRIDE, width: width / STRIDE };
	for (const [name, spec] of Object.entries(DITS)) {
		rows.push(row(`${name} at ${size}, a step, dense`, denoiser(spec, latent.height, latent.width, false), parametersOf(ditTensors(spec, false))));
		rows.push(row(`${name} at ${size}, a step, sparse ${TURBO_ATTENTION.ratio}`, denoiser(spec, latent.height, latent.width, true), parametersOf(ditTensors(spec, true))));
	}
	const vae = parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });
	const decoder = Object.fromEntries(Object.entries(wanVaeTensors(vae)).filter(([tensor]) => /^(?:decoder|conv2)\./u.test(tensor)));
	const weights = headerOnlyWeights(decoder);
	const [first, next] = (['first', 'next'] as const).map((position) => graphWork(wanDecoderGraph(vae, { weights, position, ...latent })));
	if (first !== undefined && next !== undefined) {
		rows.push(row(`Wan VAE at ${size}, the clip`, sum(first, scaled(next, latents - 1)), parametersOf(decoder)));
	}
	const tiny = parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 });
	const each = graphWork(taehvGraph(tiny, { weights: headerOnlyWeights(taehvTensors(tiny)), ...latent }));
	rows.push(row(`TAEHV at ${size}, the clip`, scaled(each, latents), parametersOf(taehvTensors(tiny))));
}
console.log(`${frames} frames, ${latents} latents`);
printTable(['stage', 'linear, TFLOP', 'attention, TFLOP', 'convolution, TFLOP', 'sum, TFLOP', 'weights in bf16, GB', 'traffic unfused, float32, GB'], rows);
