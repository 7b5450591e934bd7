/**
 * What the stages of a clip compute and read, counted from their graphs: npm run bench -- work [FRAMES]. Nothing is run and nothing is typed in: of
 * a denoiser the graphs of one and of two blocks are built, and the difference is a block.
 */
import { CLIP_LATENTS, TURBO_ATTENTION } from '../src/model/recipes.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../src/model/checkpoint/network-tensors.js';
import { ditGraph } from '../src/model/dit.js';
import { ditTensors } from '../src/model/dit-tensors.js';
import type { Graph } from '../src/model/graph.js';
import { addWork, type GraphWork, graphWork, scaleWork, WORK_KINDS } from '../src/model/graph-work.js';
import { headerOnlyWeights } from '../src/model/header-only-weights.js';
import type { DitDimensions } from '../src/model/spec.js';
import { taehvGraph } from '../src/model/taehv.js';
import { textEncoderGraph } from '../src/model/text-encoder.js';
import { wanDecoderGraph } from '../src/model/wan-vae.js';
import { taehv, UMT5_XXL, WAN_14B, WAN_1_3B, WAN_STRIDE, wanVae } from '../src/model/wan-dimensions.js';
import { printTable } from './report.js';

const FRAMES_PER_LATENT = 4;
const [frames = 1 + FRAMES_PER_LATENT * (CLIP_LATENTS - 1)] = process.argv.slice(2).map(Number);
const latents = 1 + (frames - 1) / FRAMES_PER_LATENT;
const SIZES = { '480p': [832, 480], '720p': [1280, 720] } as const;

/** A network of many equal blocks from the graphs of one and of two. */
const ofBlocks = (blocks: number, graphOf: (count: number) => Graph): GraphWork => {
	const [one, two] = [graphWork(graphOf(1)), graphWork(graphOf(2))];
	return addWork(one, scaleWork(addWork(two, scaleWork(one, -1)), blocks - 1));
};

const DITS: { readonly [name: string]: DitDimensions } = { '1.3B': WAN_1_3B, '14B': WAN_14B };

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

const rows: string[][] = [row('umT5-XXL, a prompt', ofBlocks(UMT5_XXL.num_layers, (blocks) => {
	const part = { ...UMT5_XXL, num_layers: blocks };
	return textEncoderGraph(part, headerOnlyWeights(textTensors(part)));
}), parametersOf(textTensors(UMT5_XXL)))];
for (const [size, [width, height]] of Object.entries(SIZES)) {
	const latent = { height: height / WAN_STRIDE, width: width / WAN_STRIDE };
	for (const [name, spec] of Object.entries(DITS)) {
		rows.push(row(`${name} at ${size}, a step, dense`, denoiser(spec, latent.height, latent.width, false), parametersOf(ditTensors(spec, false))));
		rows.push(row(`${name} at ${size}, a step, sparse ${TURBO_ATTENTION.ratio}`, denoiser(spec, latent.height, latent.width, true), parametersOf(ditTensors(spec, true))));
	}
	const vae = wanVae();
	const decoder = Object.fromEntries(Object.entries(wanVaeTensors(vae)).filter(([tensor]) => /^(?:decoder|conv2)\./u.test(tensor)));
	const weights = headerOnlyWeights(decoder);
	const [first, next] = (['first', 'next'] as const).map((position) => graphWork(wanDecoderGraph(vae, { weights, position, ...latent })));
	if (first !== undefined && next !== undefined) {
		rows.push(row(`Wan VAE at ${size}, the clip`, addWork(first, scaleWork(next, latents - 1)), parametersOf(decoder)));
	}
	const tiny = taehv();
	const each = graphWork(taehvGraph(tiny, { weights: headerOnlyWeights(taehvTensors(tiny)), ...latent }));
	rows.push(row(`TAEHV at ${size}, the clip`, scaleWork(each, latents), parametersOf(taehvTensors(tiny))));
}
console.log(`${frames} frames, ${latents} latents`);
printTable(['stage', 'linear, TFLOP', 'attention, TFLOP', 'convolution, TFLOP', 'sum, TFLOP', 'weights in bf16, GB', 'traffic unfused, float32, GB'], rows);
