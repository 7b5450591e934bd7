/** Whole denoisers whose graphs call the kernels of native/cuda, on the CPU provider: what a card would compute, operator by operator the same nodes. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Tensor } from '../../src/engine/backend.js';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { runSelfTest } from '../../src/engine/self-test.js';
import { ditGraph, type DitGraphOptions } from '../../src/model/dit.js';
import { toFloat16 } from '../../src/model/float16.js';
import { isTiled, tiledTensors } from '../../src/model/quant-checkpoint.js';
import { encodeSafetensors, parseSafetensors, readFloats, type TensorToWrite } from '../../src/model/safetensors.js';
import { Weights } from '../../src/model/weights.js';
import { randomNormals } from '../model/random-model.js';
import { repositoryRoot } from '../repository.js';
import { clipGolden, floats, writeGolden } from '../verify/random-golden.js';
import { missing } from './build-cuda.js';
import { buildKernels, float32, relativeError, runOnce, verifiedWith } from './emulated-kernels.js';

const GOLDEN = join(repositoryRoot, 'test/fixtures/golden');

describe('denoisers with kernels for CUDA, on the processor', { skip: missing('g++') }, () => {
	let built: Awaited<ReturnType<typeof buildKernels>>;

	before(async () => {
		built = await buildKernels();
	});
	after(() => built[Symbol.asyncDispose]());

	const verified = (path: string, profile: EngineProfile) => verifiedWith(built.device, path, profile);

	test('TurboDiffusion\'s denoiser with sparse attention and norms by kernels agrees with the original as closely as without', async () => {
		const { verdicts, counts } = await verified(join(GOLDEN, 'turbo-dit'), 'cuda-fp16');
		assert.ok(verdicts.length > 0 && verdicts.every(({ relativeError: error }) => error < 1e-3), JSON.stringify(verdicts));
		// Two blocks.
		assert.deepEqual([counts['SparseLinearAttention'], counts['NormModulate'], counts['W8A8Linear']], [2, 4, undefined]);
	});

	/** The golden denoiser as a `-quant` checkpoint. */
	const quantized = async (): Promise<Uint8Array> => {
		const file = parseSafetensors('weights', await readFile(join(GOLDEN, 'turbo-dit/weights.safetensors')));
		return encodeSafetensors(Object.fromEntries([...file.tensors.values()].flatMap((entry): [string, TensorToWrite][] => (isTiled(entry.name, entry.shape)
			? Object.entries(tiledTensors(entry.name, readFloats(file, entry), entry.shape as [number, number])) : [[entry.name, floats(entry.shape, readFloats(file, entry))]]))));
	};

	test('a -quant checkpoint keeps its bytes: every layer of the blocks is multiplied in them, and none is made float', async () => {
		const [weights, golden] = [await quantized(), parseSafetensors('case', await readFile(join(GOLDEN, 'turbo-dit/case-1.safetensors')))];
		const tensors = Object.fromEntries([...golden.tensors.values()].map(({ name, shape, ...entry }) => [name, floats(shape, readFloats(golden, { name, shape, ...entry }))]));
		await using copy = await writeGolden('turbo-dit', JSON.parse(await readFile(join(GOLDEN, 'turbo-dit/config.json'), 'utf8')), [tensors], weights);
		const { verdicts, counts } = await verified(copy.path, 'cuda-fp16');
		// Self-attention has four layers, cross-attention two besides those of the text, and the rest two; queries, keys and values share their tiles.
		assert.deepEqual([counts['W8A8Linear'], counts['SparseLinearAttention'], counts['NormModulate']], [2 * 8, 2, 4]);
		assert.ok(verdicts.every(({ relativeError: error }) => error < 2e-2), JSON.stringify(verdicts));
	});

	test('a clip with dense attention in 8 bits, by its kernel', async () => {
		const spec = {
			dim: 128, ffn_dim: 96, num_heads: 2, num_layers: 1, in_dim: 4, out_dim: 4, patch_size: [1, 2, 2], freq_dim: 32, text_dim: 24, text_len: 7, eps: 1e-6,
			qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
		};
		const { weights } = clipGolden(spec, undefined, 31);
		const options: Omit<DitGraphOptions, 'linears'> = { weights: new Weights(parseSafetensors('random', weights)), mode: { kind: 'clip' }, frames: 1, height: 16, width: 20 };
		const ours = ditGraph(spec, { ...options, linears: 'float16', attention: 'fused int8', kernels: true });
		const exact = ditGraph(spec, { ...options, linears: 'float32' });
		assert.equal(ours.operations.filter(({ op }) => op === 'Int8Attention').length, 1);
		const feeds = Object.fromEntries(exact.inputs.map(({ name, dims }, index) => [name, float32(dims as number[], randomNormals(dims.reduce<number>((product, size) => product * Number(size), 1), index + 1))]));
		const session = await createOnnxRuntime({ threads: 1 }).load(exact);
		const expected = (await session.run(feeds))['velocity']?.data as Float32Array;
		await session.close();
		const halves = Object.fromEntries(ours.inputs.map(({ name, type }): [string, Tensor] => {
			const tensor = feeds[name] ?? assert.fail(name);
			return [name, type === 'float16' ? { ...tensor, type, data: toFloat16(tensor.data as Float32Array) } : tensor];
		}));
		const error = relativeError((await runOnce(built.device, ours, halves))['velocity']?.data as Float32Array, expected);
		assert.ok(error > 1e-5 && error < 1e-2, `${error}`);
	});

	test('the self-test of the kernels finds them right', async () => {
		const { relativeError: error } = await runSelfTest({ profile: 'cuda-fp16', threads: 1, kernels: true, open: () => built.device, runs: 0 }, () => 0);
		assert.ok(error > 1e-3 && error < 2e-2, `${error}`);
	});
});
