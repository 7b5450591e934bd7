/** `-quant` checkpoints: made from others, read like others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { isTiled, tiledTensors } from '../../src/model/quant-checkpoint.js';
import { encodeSafetensors, parseSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import { Weights } from '../../src/model/weights.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { assertClose } from './closeness.js';
import { randomNormals } from './random-model.js';

const SPEC = {
	dim: 140, ffn_dim: 270, num_heads: 2, num_layers: 1, in_dim: 4, out_dim: 4, patch_size: [1, 2, 2], freq_dim: 8, text_dim: 6, text_len: 3, eps: 1e-6,
	qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const SHAPES = ditTensors(SPEC, true);
const NUMBERS = Object.fromEntries(Object.entries(SHAPES).map(([name, shape], index) =>
	[name, randomNormals(shape.reduce((product, size) => product * size, 1), index)]));

const quantized = (change: (tensors: Record<string, TensorToWrite>) => void = () => undefined): Weights => {
	const tensors: Record<string, TensorToWrite> = {};
	for (const [name, shape] of Object.entries(SHAPES)) {
		const data = NUMBERS[name] ?? assert.fail(name);
		Object.assign(tensors, isTiled(name, shape) ? tiledTensors(name, data, shape as [number, number]) : { [name]: { dtype: 'F32', shape, data } });
	}
	change(tensors);
	return new Weights(parseSafetensors('turbo-quant', encodeSafetensors(tensors)));
};

test('ten linear layers of a block become tiles; norms, embeddings, time, head and proj_l do not', () => {
	assert.deepEqual(Object.entries(SHAPES).filter(([name, shape]) => isTiled(name, shape)).map(([name]) => name), [
		...['self_attn', 'cross_attn'].flatMap((kind) => ['q', 'k', 'v', 'o'].map((part) => `blocks.0.${kind}.${part}.weight`)), 'blocks.0.ffn.0.weight', 'blocks.0.ffn.2.weight',
	]);
});

test('a -quant checkpoint has the names and shapes of the one it was made from, and nearly its numbers', () => {
	const weights = quantized();
	assert.deepEqual(Object.fromEntries([...weights.shapes].sort()), Object.fromEntries(Object.entries(SHAPES).sort()));
	for (const [name, shape] of Object.entries(SHAPES)) {
		assert.ok(weights.has(name));
		assertClose(weights.floats(name, shape), NUMBERS[name], isTiled(name, shape) ? 1.5e-2 : 0, name);
	}
});

const BAD: { readonly [what: string]: readonly [RegExp, (tensors: Record<string, TensorToWrite>) => void] } = {
	'scales of the wrong shape': [/blocks\.0\.ffn\.0\.scale is \[1, 1\].*\[3, 2\]/u, (tensors) => {
		tensors['blocks.0.ffn.0.scale'] = { dtype: 'F32', shape: [1, 1], data: new Float32Array(1) };
	}],
	'no scales': [/no tensor blocks\.0\.ffn\.0\.scale/u, (tensors) => delete tensors['blocks.0.ffn.0.scale']],
	'weights of the wrong shape': [/int8_weight is \[140, 270\]/u, (tensors) => {
		tensors['blocks.0.ffn.0.int8_weight'] = { dtype: 'I8', shape: [140, 270], data: new Int8Array(140 * 270) };
	}],
	'bytes without a sign': [/int8_weight is U8/u, (tensors) => {
		tensors['blocks.0.ffn.0.int8_weight'] = { dtype: 'U8', shape: [270, 140], data: new Uint8Array(140 * 270) };
	}],
};

for (const [what, [says, change]] of Object.entries(BAD)) {
	test(`a -quant checkpoint with ${what} is model_invalid and says what is wrong`, () => {
		assert.throws(() => quantized(change).floats('blocks.0.ffn.0.weight', [270, 140]),
			(error) => error instanceof TurbocastError && error.code === 'model_invalid' && says.test(error.message));
	});
}
