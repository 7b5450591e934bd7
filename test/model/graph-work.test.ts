/** Counting work: by hand on small graphs, and against the published figures of Wan 1.3B at 480p. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ditGraph } from '../../src/model/dit.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { addWork, graphWork, largestBytes, leastBytes, scaleWork } from '../../src/model/graph-work.js';
import { attention, joinedAttention } from '../../src/model/attention.js';
import { add, cast, concat, convolution, gather, linear, matMul, reshape, scatter } from '../../src/model/operators.js';
import type { DitDimensions } from '../../src/model/spec.js';
import { headerOnlyWeights } from '../../src/model/header-only-weights.js';

test('products by weights, of activations, and convolutions are told apart and counted', () => {
	const g = new GraphBuilder('work');
	const x = g.input('x', 'float32', [3, 5]);
	const y = linear(g, 'layer', x, g.floats('w', [7, 5], new Float32Array(35)), g.floats('b', [7], new Float32Array(7)));
	g.output('scores', matMul(g, 'product', y, g.input('z', 'float32', [7, 11])));
	g.output('picture', convolution(g, 'convolved', reshape(g, 'square', g.input('p', 'float32', [32]), [1, 2, 4, 4]), g.floats('k', [6, 2, 3, 3], new Float32Array(108)), g.floats('kb', [6], new Float32Array(6))));
	const work = graphWork(g.finish());
	assert.deepEqual(work.flops, { linear: 2 * 3 * 7 * 5, attention: 2 * 3 * 11 * 7, convolution: 2 * 6 * 16 * 2 * 9 });
	assert.equal(work.trafficBytes, 4 * (15 + 35 + 7 + 21 + (21 + 77 + 33) + (32 + 108 + 6 + 96)));
});

test('a block of Wan 1.3B at 480p and 81 frames has the work that is published for it', () => {
	const spec: DitDimensions = {
		dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 1, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
		eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
	};
	const { flops } = graphWork(ditGraph(spec, { weights: headerOnlyWeights(ditTensors(spec, false)), linears: 'float32', mode: { kind: 'clip' }, frames: 21, height: 60, width: 104 }));
	// Dense self-attention 197.8 and cross-attention 3.1 TFLOP for 30 blocks.
	assert.ok(Math.abs(30 * flops.attention - 200.9e12) < 0.2e12, `${30 * flops.attention}`);
	// Linear layers 82.1 TFLOP for 30 blocks, keys and values of the text not among ours.
	assert.ok(Math.abs(30 * flops.linear - 82.1e12) < 1.5e12, `${30 * flops.linear}`);
});

test('symbolic dimensions count as what they stand for, sums of them too', () => {
	const g = new GraphBuilder('symbols');
	const keys = concat(g, 'keys', [g.input('past', 'float32', [2, 'past', 8]), g.input('new', 'float32', [2, 3, 8])], 1);
	const mixed = attention(g, { q: g.input('q', 'float32', [2, 5, 8]), k: keys, v: keys, scale: 1 });
	g.output('y', mixed);
	const graph = g.finish();
	assert.throws(() => graphWork(graph), { code: 'internal' });
	assert.equal(graphWork(graph, { past: 4 }).flops.attention, 2 * 2 * (2 * 5 * 7 * 8));
	assert.equal(leastBytes(graph, { past: 4 }), 4 * (2 * 4 * 8 + 2 * 3 * 8 + 2 * 5 * 8 + 2 * 5 * 8));
	assert.equal(leastBytes(graph, { past: 4 }, []), 4 * (2 * 4 * 8 + 2 * 3 * 8 + 2 * 5 * 8));
	// keys, [2, 7, 8]
	assert.equal(largestBytes(graph, { past: 4 }), 4 * 2 * 7 * 8);
});

test('fused attention has the work of attention that is written out', () => {
	const work = (arithmetic: 'float16' | 'fused float16') => {
		const g = new GraphBuilder('attention');
		const [k, v] = [g.input('k', 'float16', [2, 7, 8]), g.input('v', 'float16', [2, 7, 8])];
		g.output('y', joinedAttention(g, arithmetic, { q: g.input('q', 'float32', [2, 5, 8]), k, v, scale: 1 }));
		return graphWork(g.finish()).flops;
	};
	assert.ok(work('float16').attention > 0);
	assert.deepEqual(work('fused float16'), work('float16'));
});

test('at least the constants are read in the numbers that they have once the graph is loaded, of a table the rows alone', () => {
	const g = new GraphBuilder('constants');
	const half = cast(g, 'half', g.floats('w', [6, 4], new Float32Array(24)), 'float16');
	const rows = gather(g, 'rows', g.floats('table', [1000, 4], new Float32Array(4000)), g.input('ids', 'int64', [3]));
	g.output('y', linear(g, 'layer', cast(g, 'rows/half', rows, 'float16'), half));
	assert.equal(leastBytes(g.finish()), 2 * 24 + 4 * 3 * 4 + 8 * 3 + 2 * 3 * 6);
});

test('of a table that is written in place only what is written counts', () => {
	const g = new GraphBuilder('in-place');
	const fresh = g.input('fresh', 'float16', [2, 3]);
	scatter(g, 'written', g.input('window', 'float16', ['window', 3]), g.input('slots', 'int64', [2, 1]), add(g, 'twice', fresh, fresh), 'held');
	const graph = g.finish();
	// The window and `fresh` are read, where it goes too, and two rows are written.
	assert.equal(leastBytes(graph, { window: 50 }), 2 * (50 * 3 + 2 * 3) + 8 * 2 + 2 * 2 * 3);
	assert.equal(leastBytes(graph, { window: 50 }, []), 2 * (50 * 3 + 2 * 3) + 8 * 2);
	// A sum of two that are read; then the rows and their places are read, and the rows written.
	assert.equal(graphWork(graph, { window: 50 }).trafficBytes, 4 * (3 * 2 * 3 + 2 * 2 * 3 + 2));
});

test('work adds up and scales', () => {
	const one = { flops: { linear: 1, attention: 2, convolution: 3 }, trafficBytes: 4 };
	assert.deepEqual(addWork(one, scaleWork(one, 2)), { flops: { linear: 3, attention: 6, convolution: 9 }, trafficBytes: 12 });
});
