/** Which layers of a denoiser run in 8 bits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { denoiserArithmetic } from '../../src/engine/profile.js';
import { ditGraph } from '../../src/model/dit.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import type { DitDimensions } from '../../src/model/spec.js';
import { headerOnlyWeights } from '../../src/model/header-only-weights.js';

const SPEC: DitDimensions = {
	dim: 24, ffn_dim: 40, num_heads: 2, num_layers: 2, in_dim: 4, out_dim: 4, patch_size: [1, 2, 2], freq_dim: 16, text_dim: 12, text_len: 6,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const SPARSE = { ratio: 0.5, blockQueries: 4, blockKeys: 4 };

const namesOf = (isSparse: boolean, profile: 'cpu-fp32' | 'cpu-int8' | 'cpu-int8-attention', op: string): string[] =>
	ditGraph(SPEC, {
		weights: headerOnlyWeights(ditTensors(SPEC, isSparse)), ...denoiserArithmetic(profile), mode: { kind: 'clip', sparse: isSparse ? SPARSE : undefined }, frames: 2, height: 8, width: 8,
	}).operations.filter((operation) => operation.op === op).map(({ name }) => name.replace(/^blk\d+\/\w+\/|^blk\d+\//u, ''));

const PER_BLOCK = (block: number, parts: readonly string[]): string[] => parts.map((part) => part.split('+').map((each) => `blocks.${block}.${each}`).join('+'));
const DENSE_PARTS = ['self_attn.q+self_attn.k+self_attn.v', 'self_attn.o', 'cross_attn.q', 'cross_attn.o', 'ffn.0', 'ffn.2'];

test('cpu-int8 puts the linear layers of the blocks in 8 bits and no other', () => {
	for (const profile of ['cpu-int8', 'cpu-int8-attention'] as const) {
		assert.deepEqual(namesOf(false, profile, 'DynamicQuantizeMatMul'), [...PER_BLOCK(0, DENSE_PARTS), ...PER_BLOCK(1, DENSE_PARTS)]);
		assert.deepEqual(namesOf(false, profile, 'Gemm').sort(), ['head.head', 'patch_embedding', 'time_embedding.0', 'time_embedding.2', 'time_projection.1']);
	}
	assert.deepEqual(namesOf(false, 'cpu-fp32', 'DynamicQuantizeMatMul'), []);
});

test('queries and keys of sparse attention, which choose the blocks, and proj_l stay in float32', () => {
	const parts = ['self_attn.v', 'self_attn.o', 'cross_attn.q', 'cross_attn.o', 'ffn.0', 'ffn.2'];
	assert.deepEqual(namesOf(true, 'cpu-int8', 'DynamicQuantizeMatMul'), [...PER_BLOCK(0, parts), ...PER_BLOCK(1, parts)]);
	assert.ok(namesOf(true, 'cpu-int8', 'Gemm').includes('blocks.1.self_attn.k'));
});

test('only cpu-int8-attention multiplies queries and keys in bytes, and only of dense attention', () => {
	assert.equal(namesOf(false, 'cpu-int8', 'MatMulIntegerToFloat').length, 0);
	// Two products for each head of each block: the sequence is one piece.
	assert.equal(namesOf(false, 'cpu-int8-attention', 'MatMulIntegerToFloat').length, 2 * 2 * 2);
	assert.equal(namesOf(true, 'cpu-int8-attention', 'MatMulIntegerToFloat').length, 0);
});
