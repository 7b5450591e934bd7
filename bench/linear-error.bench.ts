/**
 * What 8 bits cost each kind of linear layer of a trained denoiser: npm run bench -- linear-error. The inputs are those of a forward in float32 of the
 * shipped model; each layer then runs alone, as TurboDiffusion's W8A8 (`w8a8.ts`) and as `cpu-int8` has it, and is compared with float64.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Feeds } from '../src/engine/backend.js';
import { createOnnxRuntime } from '../src/engine/backends/onnxruntime.js';
import { ditGraph } from '../src/model/dit.js';
import { GraphBuilder } from '../src/model/graph-builder.js';
import { floatLinears, int8Linears, type LinearLayer } from '../src/model/linear-layers.js';
import { openModelFolder } from '../src/model/model-folder.js';
import { ropeTables } from '../src/model/rope.js';
import { parseSafetensors, readFloats } from '../src/model/safetensors.js';
import { timeSinusoids } from '../src/model/time-embedding.js';
import { textKeysGraph } from '../src/model/text-keys.js';
import { quantizeTiles, w8a8Linear } from '../src/model/w8a8.js';
import { Weights } from '../src/model/weights.js';
import { relativeError } from '../src/verify/verifier.js';
import { percentile, printTable, printWhere } from './report.js';

const path = fileURLToPath(new URL('../../models/toybox', import.meta.url));
const folder = await openModelFolder(path);
const { dit: spec, stream, vae, width, height } = folder.spec;
const golden = parseSafetensors('golden', readFileSync(join(path, 'golden.safetensors')));
const read = (name: string): Float32Array => readFloats(golden, golden.tensors.get(name) ?? (() => { throw new RangeError(`no ${name}`); })());
const weights = new Weights(await folder.readWeights('dit'));
const backend = createOnnxRuntime({ threads: 1 });

const taps: LinearLayer[] = [];
const frames = stream.latents_per_chunk;
const [latentHeight, latentWidth] = [height / vae.spatial_stride, width / vae.spatial_stride];
const graph = ditGraph(spec, {
	weights, mode: { kind: 'chunk' }, frames, height: latentHeight, width: latentWidth,
	linears: (of) => (g, x, layers) => {
		for (const layer of layers) {
			taps.push(layer);
			g.output(`tap.${layer.name}`, x);
		}
		return floatLinears(of)(g, x, layers);
	},
});

const float32 = (dims: readonly number[], data: Float32Array): Feeds[string] => ({ type: 'float32', dims, data });
const context = read('text.context');
const mask = Float32Array.from({ length: spec.text_len }, (_, row) => (context.subarray(row * spec.text_dim, (row + 1) * spec.text_dim).some((value) => value !== 0) ? 1 : 0));
const textKeys = await backend.load(textKeysGraph(spec, weights));
const text = await textKeys.run({ context: float32([spec.text_len, spec.text_dim], context), ...(spec.pooled_text ? { mask: float32([spec.text_len], mask) } : {}) });
const [rows, columns, headDim] = [latentHeight / (spec.patch_size[1] ?? 1), latentWidth / (spec.patch_size[2] ?? 1), spec.dim / spec.num_heads];
const { cos, sin } = ropeTables(headDim, spec.rope_theta, { firstPosition: 0, frames, rows, columns });
const tokens = frames * rows * columns;
const past = Object.fromEntries(Array.from({ length: spec.num_layers }, (_, layer) => ['k', 'v'].map((part) => [`past_${part}.${layer}`, float32([spec.num_heads, 0, headDim], new Float32Array(0))])).flat()) as Feeds;
const session = await backend.load(graph);
const inputs = await session.run({
	latent: float32([spec.in_dim, frames, latentHeight, latentWidth], read('dit.past.0.x')), time: float32([frames, spec.freq_dim], timeSinusoids([...read('dit.past.0.timestep')], spec.freq_dim)),
	...(spec.control_dim > 0 ? { control: float32([frames, spec.control_dim], read('dit.past.0.control')) } : {}),
	rope_cos: float32([tokens, headDim / 2], cos), rope_sin: float32([tokens, headDim / 2], sin), ...text, ...past,
}, taps.map(({ name }) => `tap.${name}`));

const exact = (x: Float32Array, weight: Float32Array, bias: Float32Array, { inputs: inner, outputs }: LinearLayer): Float64Array =>
	Float64Array.from({ length: (x.length / inner) * outputs }, (_, index) => {
		const [row, output] = [Math.floor(index / outputs), index % outputs];
		let total = bias[output] ?? Number.NaN;
		for (let input = 0; input < inner; input++) {
			total += (x[row * inner + input] ?? Number.NaN) * (weight[output * inner + input] ?? Number.NaN);
		}
		return total;
	});

const int8 = async (x: Float32Array, layer: LinearLayer): Promise<Float32Array> => {
	const g = new GraphBuilder('layer');
	const dims = [x.length / layer.inputs, layer.inputs];
	const [y] = int8Linears(weights)(g, g.input('x', 'float32', dims), [layer]);
	if (y === undefined) {
		throw new RangeError('no layer');
	}
	g.output('y', y);
	const alone = await backend.load(g.finish());
	const { y: result } = await alone.run({ x: float32(dims, x) });
	await alone.close();
	return result?.data as Float32Array;
};

const errors = new Map<string, { w8a8: number[]; int8: number[] }>();
for (const layer of taps) {
	const kind = layer.name.replace(/^blocks\.\d+\./u, '');
	const x = inputs[`tap.${layer.name}`]?.data as Float32Array;
	const [weight, bias] = [weights.floats(`${layer.name}.weight`, [layer.outputs, layer.inputs]), weights.floats(`${layer.name}.bias`, [layer.outputs])];
	const expected = exact(x, weight, bias, layer);
	const found = errors.get(kind) ?? { w8a8: [], int8: [] };
	found.w8a8.push(relativeError(w8a8Linear(quantizeTiles(x, x.length / layer.inputs, layer.inputs), quantizeTiles(weight, layer.outputs, layer.inputs), bias), expected));
	found.int8.push(relativeError(await int8(x, layer), expected));
	errors.set(kind, found);
}
const percent = (values: readonly number[]): string => `${(100 * percentile(values, 0.5)).toFixed(2)} / ${(100 * Math.max(...values)).toFixed(2)}`;
printWhere();
printTable(['layer', 'W8A8, %, median / worst', 'cpu-int8, %, median / worst'], [...errors].map(([kind, found]) => [kind, percent(found.w8a8), percent(found.int8)]));
