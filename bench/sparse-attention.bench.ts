/**
 * Sparse-linear attention beside dense attention: npm run bench -- sparse-attention [TOKENS] [HEADS] [RATIO] [THREADS]. Block selection
 * and the linear branch are in its time; the dense ones are the runtime's fused operator, plain products, head by head so that the scores of
 * one head at a time are in memory, and 8-bit attention, whose error is against the fused operator.
 */
import { createOnnxRuntime } from '../src/engine/backends/onnxruntime.js';
import type { Feeds, Graph } from '../src/engine/backend.js';
import { attention, joinHeads, splitHeads } from '../src/model/attention.js';
import { GraphBuilder, type Value } from '../src/model/graph-builder.js';
import { int8Attention } from '../src/model/int8-attention.js';
import { concat, reshape, split } from '../src/model/operators.js';
import { keptBlocks, sparseLinearAttention, type SparseShape } from '../src/model/sparse-linear-attention.js';
import { relativeError } from '../src/verify/verifier.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';

const HEAD_DIM = 128;
const RUNS = 3;
const BLOCKS: readonly (readonly [number, number])[] = [[128, 64], [64, 64], [64, 128]];

const [tokens = 8192, heads = 12, ratio = 0.1, threads = 1] = process.argv.slice(2).map(Number);
const width = heads * HEAD_DIM;

type Inputs = { readonly q: Value; readonly k: Value; readonly v: Value };

/** q, k, v [L, N * d] to out [L, N * d]. */
const graphOf = (name: string, attend: (g: GraphBuilder, inputs: Inputs) => Value): Graph => {
	const g = new GraphBuilder(name);
	const input = (part: string): Value => g.input(part, 'float32', [tokens, width]);
	g.output('out', attend(g, { q: input('q'), k: input('k'), v: input('v') }));
	return g.finish();
};

const byHead = (g: GraphBuilder, { q, k, v }: Inputs): Inputs => ({ q: splitHeads(g, 'q/h', q, heads), k: splitHeads(g, 'k/h', k, heads), v: splitHeads(g, 'v/h', v, heads) });

const fused = graphOf('fused', (g, inputs) => {
	const batch = (part: 'q' | 'k' | 'v'): Value => reshape(g, `${part}/batch`, inputs[part], [1, tokens, width]);
	const y = g.node({
		op: 'MultiHeadAttention', domain: 'com.microsoft', name: 'mha', inputs: [batch('q'), batch('k'), batch('v')],
		attributes: { num_heads: { int: heads } }, type: 'float32', dims: [1, tokens, width],
	});
	return reshape(g, 'flat', y, [tokens, width]);
});

const plain = graphOf('plain', (g, inputs) => {
	const { q, k, v } = byHead(g, inputs);
	const ones = Array.from({ length: heads }, () => 1);
	const each = (name: string, x: Value): Value[] => (heads === 1 ? [x] : split(g, name, x, 0, ones));
	const [qs, ks, vs] = [each('qs', q), each('ks', k), each('vs', v)];
	const outputs = qs.map((head, index) => attention(g.at(`head${index}`), { q: head, k: ks[index] as Value, v: vs[index] as Value, scale: 1 / Math.sqrt(HEAD_DIM) }));
	return joinHeads(g, 'out/heads', outputs.length === 1 ? outputs[0] as Value : concat(g, 'heads', outputs, 0));
});

const sparse = (shape: SparseShape): Graph => graphOf('sparse', (g, inputs) => {
	const proj = {
		weight: g.floats('proj/weight', [HEAD_DIM, HEAD_DIM], Float32Array.from({ length: HEAD_DIM ** 2 }, () => (Math.random() - 0.5) / HEAD_DIM)),
		bias: g.floats('proj/bias', [HEAD_DIM], new Float32Array(HEAD_DIM)),
	};
	return joinHeads(g, 'out/heads', sparseLinearAttention(g.at('sla'), byHead(g, inputs), shape, proj));
});

const variants: [string, Graph][] = [
	['dense, fused operator', fused],
	['dense, plain products', plain],
	['dense, 8 bits', graphOf('int8', (g, inputs) => joinHeads(g, 'out/heads', int8Attention(g.at('int8'), byHead(g, inputs))))],
	...BLOCKS.map(([blockQueries, blockKeys]): [string, Graph] => {
		const shape = { ratio, blockQueries, blockKeys };
		const { kept, blocks } = keptBlocks(shape, tokens);
		return [`sparse, ${blockQueries}x${blockKeys}, ${kept} of ${blocks} blocks`, sparse(shape)];
	}),
];
const feeds: Feeds = Object.fromEntries(['q', 'k', 'v'].map((part) =>
	[part, { type: 'float32' as const, dims: [tokens, width], data: Float32Array.from({ length: tokens * width }, () => Math.random() * 2 - 1) }]));

printWhere();
console.log(`${tokens} tokens, ${heads} heads of ${HEAD_DIM}, ${threads} threads`);
const backend = createOnnxRuntime({ threads });
const rows: string[][] = [];
let [fusedMs, fusedOut] = [Number.NaN, new Float32Array(0)];
for (const [name, graph] of variants) {
	const session = await backend.load(graph);
	const times: number[] = [];
	let last = new Float32Array(0);
	for (let run = 0; run <= RUNS; run++) {
		const start = performance.now();
		const { out } = await session.run(feeds);
		if (run > 0) {
			times.push(performance.now() - start);
		}
		last = out?.data as Float32Array<ArrayBuffer>;
	}
	if (name.includes('fused')) {
		[fusedMs, fusedOut] = [percentile(times, 0.5), last];
	}
	const error = name.includes('8 bits') ? relativeError(last, fusedOut).toExponential(1) : '';
	rows.push([name, medianAndP95(times), Math.min(...times).toFixed(0), (fusedMs / percentile(times, 0.5)).toFixed(2), error]);
	await session.close();
}
printTable(['attention', 'ms, median / p95', 'ms, best', 'times as fast as fused', 'relative error'], rows);
