/** Which layers of a denoiser run in 8 bits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { denoiserArithmetic } from '../../src/engine/profile.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { ditGraph } from '../../src/model/dit.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import type { DitDimensions } from '../../src/model/spec.js';
import type { SparseShape } from '../../src/model/sparse-linear-attention.js';
import { headerOnlyWeights } from '../../src/model/header-only-weights.js';

const SPEC: DitDimensions = {
	dim: 24, ffn_dim: 40, num_heads: 2, num_layers: 2, in_dim: 4, out_dim: 4, patch_size: [1, 2, 2], freq_dim: 16, text_dim: 12, text_len: 6,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
/** 32 tokens: all of 4 blocks, 8 of 16 and 7 of 16. */
const ALL = { ratio: 1, blockQueries: 4, blockKeys: 8 };
const MANY = { ratio: 0.5, blockQueries: 4, blockKeys: 2 };
const FEW = { ratio: 0.45, blockQueries: 4, blockKeys: 2 };

const namesOf = (sparse: SparseShape | undefined, profile: EngineProfile, op: string): string[] =>
	ditGraph(SPEC, {
		weights: headerOnlyWeights(ditTensors(SPEC, sparse !== undefined)), ...denoiserArithmetic(profile), mode: { kind: 'clip', sparse }, frames: 2, height: 8, width: 8,
	}).operations.filter((operation) => operation.op === op).map(({ name }) => name.replace(/^blk\d+\/\w+\/|^blk\d+\//u, ''));

const PER_BLOCK = (block: number, parts: readonly string[]): string[] => parts.map((part) => part.split('+').map((each) => `blocks.${block}.${each}`).join('+'));
const SPARSE_PARTS = ['self_attn.v', 'self_attn.o', 'cross_attn.q', 'cross_attn.o', 'ffn.0', 'ffn.2'];
const DENSE_PARTS = ['self_attn.q+self_attn.k+self_attn.v', 'self_attn.o', 'cross_attn.q', 'cross_attn.o', 'ffn.0', 'ffn.2'];

test('cpu-int8 puts the linear layers of the blocks in 8 bits and no other', () => {
	for (const profile of ['cpu-int8', 'cpu-int8-attention'] as const) {
		assert.deepEqual(namesOf(undefined, profile, 'DynamicQuantizeMatMul'), [...PER_BLOCK(0, DENSE_PARTS), ...PER_BLOCK(1, DENSE_PARTS)]);
		assert.deepEqual(namesOf(undefined, profile, 'Gemm').sort(), ['head.head', 'patch_embedding', 'time_embedding.0', 'time_embedding.2', 'time_projection.1']);
	}
	assert.deepEqual(namesOf(undefined, 'cpu-fp32', 'DynamicQuantizeMatMul'), []);
});

test('queries and keys of sparse attention, which choose the blocks, and proj_l stay in float32', () => {
	for (const shape of [ALL, MANY]) {
		assert.deepEqual(namesOf(shape, 'cpu-int8', 'DynamicQuantizeMatMul'), [...PER_BLOCK(0, SPARSE_PARTS), ...PER_BLOCK(1, SPARSE_PARTS)]);
		assert.ok(namesOf(shape, 'cpu-int8', 'Gemm').includes('blocks.1.self_attn.k'));
	}
});

test('where few blocks are kept, all that leads to a choice is in float32: every block but the last', () => {
	for (const profile of ['cpu-int8', 'cpu-int8-attention'] as const) {
		assert.deepEqual(namesOf(FEW, profile, 'DynamicQuantizeMatMul'), PER_BLOCK(1, SPARSE_PARTS));
		assert.ok(PER_BLOCK(0, SPARSE_PARTS).every((name) => namesOf(FEW, profile, 'Gemm').includes(name)));
	}
});

test('only cpu-int8-attention multiplies queries and keys in bytes, and only of dense attention', () => {
	assert.equal(namesOf(undefined, 'cpu-int8', 'MatMulIntegerToFloat').length, 0);
	// Two products for each head of each block: the sequence is one piece.
	assert.equal(namesOf(undefined, 'cpu-int8-attention', 'MatMulIntegerToFloat').length, 2 * 2 * 2);
	assert.equal(namesOf(MANY, 'cpu-int8-attention', 'MatMulIntegerToFloat').length, 0);
});
