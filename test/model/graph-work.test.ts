/** Counting work: by hand on small graphs, and against the published figures of Wan 1.3B at 480p. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ditGraph } from '../../src/model/dit.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { graphWork } from '../../src/model/graph-work.js';
import { convolution, linear, matMul, reshape } from '../../src/model/operators.js';
import type { DitDimensions } from '../../src/model/spec.js';
import { headerOnlyWeights } from './header-only-weights.js';

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
