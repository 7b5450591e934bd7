/**
 * The kernels of native/cuda as operators of graphs, through the calls that CUDA gets: the same sources compiled for the CPU provider, where an emulation runs them
 * thread by thread (native/cuda/machine.h).
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Feeds, Graph, Tensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { openKernels } from '../../src/engine/c-api/kernels.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { roundToBfloat16 } from '../../src/model/bfloat16.js';
import { GraphBuilder, type Value } from '../../src/model/graph-builder.js';
import { normModulateKernel, sparseLinearKernel, w8a8Linear as w8a8Node, w8a8Quantize } from '../../src/model/kernel-operators.js';
import { cast } from '../../src/model/operators.js';
import { parseSafetensors, readFloats, readTensor } from '../../src/model/safetensors.js';
import { quantizeTiles, w8a8Linear } from '../../src/model/w8a8.js';
import { randomNormals } from '../model/random-model.js';
import { repositoryRoot } from '../repository.js';
import { slaCase } from '../verify/random-golden.js';
import { missing, run as runProgram } from './build-cuda.js';
import { buildKernels, float32, relativeError, runOnce } from './emulated-kernels.js';

const GOLDEN = join(repositoryRoot, 'test/fixtures/golden');

const half = (g: GraphBuilder, name: string, dims: readonly number[]): Value => cast(g, `${name}/half`, g.input(name, 'float32', dims), 'float16');
const floatOutput = (g: GraphBuilder, name: string, value: Value): void => g.output(name, cast(g, `${name}/float`, value, 'float32'));

/** A node with whatever inputs and attributes, as no builder of ours makes it. */
const rawGraph = (op: string, inputs: readonly { readonly type?: 'float32' | 'int8'; readonly dims: readonly number[]; readonly isHalf?: boolean }[], attributes: { readonly [name: string]: { readonly int: number } }, outputs: number): Graph => {
	const g = new GraphBuilder('raw');
	const values = inputs.map(({ type = 'float32', dims, isHalf = false }, index) => (isHalf ? half(g, `x${index}`, dims) : g.input(`x${index}`, type, dims)));
	const [out] = g.nodes({ op, domain: 'turbocast', name: 'node', inputs: values, attributes, results: Array.from({ length: outputs }, () => ({ type: 'float16' as const, dims: [1] })) });
	floatOutput(g, 'y', out as Value);
	return g.finish();
};
const zeros = (graph: Graph): Feeds => Object.fromEntries(graph.inputs.map(({ name, type, dims }) => {
	const count = dims.reduce<number>((product, size) => product * Number(size), 1);
	return [name, { type, dims: dims as number[], data: type === 'int8' ? new Int8Array(count) : new Float32Array(count) }];
}));

describe('kernels for CUDA as operators, on the processor', { skip: missing('g++') }, () => {
	let built: Awaited<ReturnType<typeof buildKernels>>;

	before(async () => {
		built = await buildKernels();
	});
	after(() => built[Symbol.asyncDispose]());

	const run = (graph: Graph, feeds: Feeds): Promise<{ [name: string]: Tensor }> => runOnce(built.device, graph, feeds);

	for (const { heads, headDim: d, ...size } of [
		{ tokens: 150, heads: 2, headDim: 64, shape: { ratio: 0.5, blockQueries: 64, blockKeys: 64 } },
		{ tokens: 200, heads: 1, headDim: 128, shape: { ratio: 0.5, blockQueries: 128, blockKeys: 64 } },
	]) {
		test(`sparse-linear attention of ${size.tokens} tokens, ${heads} heads of ${d}: the blocks exactly, both branches and the exact one alone`, async () => {
			const { tensors } = slaCase({ batch: 1, heads, headDim: d, ...size }, size.tokens);
			const data = (name: string): Float32Array => (tensors[name]?.data ?? assert.fail(name)) as Float32Array;
			const g = new GraphBuilder('sla');
			const inputs = { q: half(g, 'q', [size.tokens, heads * d]), k: half(g, 'k', [size.tokens, heads * d]), v: half(g, 'v', [size.tokens, heads * d]) };
			const { out, chosen } = sparseLinearKernel(g.at('both'), inputs, heads, size.shape, { weight: g.input('weight', 'float32', [d, d]), bias: g.input('bias', 'float32', [d]) }, true);
			floatOutput(g, 'out', out);
			g.output('chosen', chosen ?? assert.fail());
			floatOutput(g, 'sparse', sparseLinearKernel(g.at('alone'), inputs, heads, size.shape, undefined).out);
			const dims = [size.tokens, heads * d];
			const results = await run(g.finish(), {
				...Object.fromEntries(['q', 'k', 'v'].map((name) => [name, float32(dims, data(name))])), weight: float32([d, d], data('proj_l.weight')), bias: float32([d], data('proj_l.bias')),
			});
			const keyBlocks = Math.ceil(size.tokens / size.shape.blockKeys);
			const [, queryBlocks = 0, kept = 0] = results['chosen']?.dims ?? [];
			const map = new Uint8Array(heads * queryBlocks * keyBlocks);
			(results['chosen']?.data as Int32Array).forEach((block, place) => {
				map[Math.floor(place / kept) * keyBlocks + block] = 1;
			});
			assert.deepEqual(map, tensors['block_map']?.data);
			for (const [name, golden] of [['out', 'out'], ['sparse', 'sparse_branch']] as const) {
				const error = relativeError(results[name]?.data as Float32Array, data(golden));
				assert.ok(error < 1e-3, `${name}: ${error}`);
			}
		});
	}

	test('8-bit linear layers: the golden case\'s bytes and scales exactly, and what comes out bit for bit as the plain loops have it', async () => {
		const golden = parseSafetensors('golden', await readFile(join(GOLDEN, 'w8a8/case-2.safetensors')));
		const entry = (name: string) => golden.tensors.get(name) ?? assert.fail(name);
		const numbers = (name: string): Float32Array => readFloats(golden, entry(name));
		const [rows = 0, inputs = 0] = entry('x').shape;
		const [outputs = 0] = entry('weight').shape;
		const g = new GraphBuilder('w8a8');
		const bfloat = (name: string, dims: readonly number[]): Value => cast(g, `${name}/bfloat`, g.input(name, 'float32', dims), 'bfloat16');
		const tiles = w8a8Quantize(g, 'quantize', bfloat('x', [rows, inputs]));
		const weight = { values: g.input('weight', 'int8', [outputs, inputs]), scales: g.input('scale', 'float32', entry('scale').shape) };
		floatOutput(g, 'y', w8a8Node(g, 'linear', tiles, weight, bfloat('bias', [outputs])));
		g.output('x_int8', tiles.values);
		g.output('x_scale', tiles.scales);
		const results = await run(g.finish(), {
			x: float32([rows, inputs], numbers('x')), bias: float32([outputs], numbers('bias')), scale: float32(entry('scale').shape, numbers('scale')),
			weight: { type: 'int8', dims: [outputs, inputs], data: new Int8Array(readTensor(golden, entry('int8_weight')).buffer) },
		});
		const bytes = (name: string): Int8Array => new Int8Array(readTensor(golden, entry(name)).buffer);
		assert.deepEqual(results['x_int8']?.data, bytes('x_int8'));
		assert.deepEqual(results['x_scale']?.data, numbers('x_scale'));
		const tilesOf = (name: string, scales: string, count: number) => ({ values: bytes(name), scales: numbers(scales), rows: count, columns: inputs });
		assert.deepEqual(results['y']?.data, w8a8Linear(tilesOf('x_int8', 'x_scale', rows), tilesOf('int8_weight', 'scale', outputs), numbers('bias')));
		assert.ok(relativeError(results['y']?.data, numbers('out')) < 1e-4);
	});

	test('8-bit linear layers of several tiles in both directions, their last ones not whole', async () => {
		const [rows, inputs, outputs] = [130, 144, 264];
		const [x, weight] = [quantizeTiles(randomNormals(rows * inputs, 1).map((value) => roundToBfloat16(value)), rows, inputs), quantizeTiles(randomNormals(outputs * inputs, 2), outputs, inputs)];
		const bias = randomNormals(outputs, 3).map((value) => roundToBfloat16(value));
		const g = new GraphBuilder('tiles');
		const tiles = (name: string, count: number, scales: readonly number[]) => ({ values: g.input(name, 'int8', [count, inputs]), scales: g.input(`${name}.scale`, 'float32', scales) });
		floatOutput(g, 'y', w8a8Node(g, 'linear', tiles('x', rows, [2, 2]), tiles('weight', outputs, [3, 2]), cast(g, 'bias/bfloat', g.input('bias', 'float32', [outputs]), 'bfloat16')));
		const results = await run(g.finish(), {
			x: { type: 'int8', dims: [rows, inputs], data: x.values }, weight: { type: 'int8', dims: [outputs, inputs], data: weight.values },
			'x.scale': float32([2, 2], x.scales), 'weight.scale': float32([3, 2], weight.scales), bias: float32([outputs], bias),
		});
		assert.deepEqual(results['y']?.data, w8a8Linear(x, weight, bias));
	});

	test('norm and modulation of a float32 residual, one table for several rows', async () => {
		const [tables, rows, dim] = [2, 3, 40];
		const [x, scale, shift] = [randomNormals(tables * rows * dim, 1, 30), randomNormals(tables * dim, 2), randomNormals(tables * dim, 3)];
		const g = new GraphBuilder('norm');
		const input = (name: string, middle: number): Value => g.input(name, 'float32', [tables, middle, dim]);
		floatOutput(g, 'y', normModulateKernel(g, 'norm', input('x', rows), input('shift', 1), input('scale', 1), 1e-6));
		const results = await run(g.finish(), { x: float32([tables, rows, dim], x), scale: float32([tables, 1, dim], scale), shift: float32([tables, 1, dim], shift) });
		const expected = x.map((value, index) => {
			const [row, column] = [x.subarray(index - (index % dim), index - (index % dim) + dim), index % dim];
			const mean = row.reduce((sum, other) => sum + other / dim, 0);
			const variance = row.reduce((sum, other) => sum + (other - mean) ** 2 / dim, 0);
			const table = Math.floor(index / (rows * dim)) * dim + column;
			return ((value - mean) / Math.sqrt(variance + 1e-6)) * (1 + (scale[table] ?? 0)) + (shift[table] ?? 0);
		});
		const error = relativeError(results['y']?.data as Float32Array, expected);
		assert.ok(error < 5e-4, `${error}`);
	});

	const attributes = { heads: { int: 2 }, block_queries: { int: 64 }, block_keys: { int: 64 }, kept: { int: 1 } };
	const x = (dims: readonly number[]) => ({ dims, isHalf: true });
	const refused: { readonly [what: string]: { readonly graph: () => Graph; readonly message: RegExp } } = {
		'heads of 80': { graph: () => rawGraph('SparseLinearAttention', [x([70, 160]), x([70, 160]), x([70, 160])], attributes, 2), message: /SparseLinearAttention: No kernel takes these sizes/u },
		'keys of another length': { graph: () => rawGraph('SparseLinearAttention', [x([70, 128]), x([71, 128]), x([70, 128])], attributes, 2), message: /SparseLinearAttention: k cannot be \[71, 128\]/u },
		'more blocks than there are': { graph: () => rawGraph('SparseLinearAttention', [x([70, 128]), x([70, 128]), x([70, 128])], { ...attributes, kept: { int: 3 } }, 2), message: /3 of 2 blocks cannot be kept/u },
		'three axes': { graph: () => rawGraph('SparseLinearAttention', [x([1, 70, 128]), x([70, 128]), x([70, 128])], attributes, 2), message: /q cannot be \[1, 70, 128\]/u },
		'a projection of another size': { graph: () => rawGraph('SparseLinearAttention', [x([70, 128]), x([70, 128]), x([70, 128]), { dims: [64, 63] }, { dims: [64] }], attributes, 2), message: /proj_weight cannot be \[64, 63\]/u },
		'a projection without its bias': { graph: () => rawGraph('SparseLinearAttention', [x([70, 128]), x([70, 128]), x([70, 128]), { dims: [64, 64] }], attributes, 2), message: /SparseLinearAttention: A pointer is null/u },
		'seven columns': { graph: () => rawGraph('W8A8Quantize', [x([3, 7])], {}, 2), message: /W8A8Quantize: No kernel takes these sizes/u },
		'no rows': { graph: () => rawGraph('W8A8Quantize', [x([0, 16])], {}, 2), message: /W8A8Quantize: A pointer is null, a size is not positive/u },
		'scales of other tiles': {
			graph: () => rawGraph('W8A8Linear', [{ type: 'int8', dims: [3, 32] }, { dims: [1, 2] }, { type: 'int8', dims: [8, 32] }, { dims: [1, 1] }, x([8])], {}, 1), message: /W8A8Linear: scales cannot be \[1, 2\]/u,
		},
		'values of other keys': { graph: () => rawGraph('Int8Attention', [x([5, 128]), x([6, 128]), x([7, 128])], { heads: { int: 2 } }, 2), message: /Int8Attention: v cannot be \[7, 128\]/u },
		'a width that its heads do not divide': { graph: () => rawGraph('Int8Attention', [x([5, 129]), x([5, 129]), x([5, 129])], { heads: { int: 2 } }, 2), message: /Int8Attention: q cannot be \[5, 129\]/u },
	};
	for (const [what, { graph, message }] of Object.entries(refused)) {
		test(`refused with a sentence: ${what}; the session and the process live on`, async () => {
			const refusing = graph();
			const session = await built.device.load(refusing);
			await assert.rejects(session.run(zeros(refusing)), { code: 'internal', message });
			await assert.rejects(session.run(zeros(refusing)), { code: 'internal', message });
			await session.close();
			await session.close();
		});
	}

	test('attributes that cannot be are refused when the graph is loaded, and operators of ours by a backend without kernels', async () => {
		const inputs = [x([70, 128]), x([70, 128]), x([70, 128])];
		await assert.rejects(built.device.load(rawGraph('SparseLinearAttention', inputs, { ...attributes, heads: { int: 0 } }, 2)), { code: 'model_invalid', message: /heads cannot be 0/u });
		await assert.rejects(built.device.load(rawGraph('SparseLinearAttention', inputs, { heads: { int: 2 } }, 2)), { code: 'model_invalid' });
		await assert.rejects(createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } }).load(rawGraph('SparseLinearAttention', inputs, attributes, 2)), { code: 'model_invalid' });
	});

	test('nothing stays behind of 200 runs, of refused ones and of sessions closed twice; sessions on two threads get what one gets', async () => {
		const handles = ortLibrary().open();
		const g = new GraphBuilder('small');
		const [rows, dim] = [3, 64];
		const inputs = ['q', 'k', 'v'].map((name) => half(g, name, [rows, dim])) as [Value, Value, Value];
		floatOutput(g, 'y', sparseLinearKernel(g, { q: inputs[0], k: inputs[1], v: inputs[2] }, 1, { ratio: 1, blockQueries: 64, blockKeys: 64 }, undefined).out);
		const graph = g.finish();
		const feeds: Feeds = Object.fromEntries(['q', 'k', 'v'].map((name, index) => [name, float32([rows, dim], randomNormals(rows * dim, index + 1))]));
		const bad = rawGraph('W8A8Quantize', [x([3, 7])], {}, 2);
		const cycle = async (): Promise<Float32Array> => {
			const [session, other, refusing] = [await built.device.load(graph), await built.device.load(graph), await built.device.load(bad)];
			const [one, two] = await Promise.all([session.run(feeds), other.run(feeds)]);
			assert.deepEqual(one, two);
			await assert.rejects(refusing.run(zeros(bad)));
			await Promise.all([session, other, refusing].flatMap(({ close }) => [close(), close()]));
			return one['y']?.data as Float32Array;
		};
		const first = await cycle();
		for (let index = 0; index < 10; index++) {
			await cycle();
		}
		const bytes = process.memoryUsage.rss();
		for (let index = 0; index < 100; index++) {
			assert.deepEqual(await cycle(), first);
		}
		assert.deepEqual(ortLibrary().open(), handles);
		assert.ok(process.memoryUsage.rss() - bytes < 60e6, `${((process.memoryUsage.rss() - bytes) / 1e6).toFixed(0)} MB more`);
	});

	test('a library that is not there, is none, is of another version or for another provider is device_unavailable, with the reason', async () => {
		const expect = (provider: 'cpu' | 'cuda', path: string, message: RegExp): void => assert.throws(() => openKernels(provider, path), { code: 'device_unavailable', message });
		expect('cuda', join(built.path, 'nowhere.so'), /there is no .*npm run build:cuda/u);
		const text = join(built.path, 'text.so');
		await writeFile(text, 'no library');
		expect('cuda', text, /cannot be loaded/u);
		expect('cuda', built.library, /is for CPUExecutionProvider, not for CUDAExecutionProvider/u);
		const [source, old] = [join(built.path, 'old.c'), join(built.path, 'old.so')];
		await writeFile(source, 'int tc_version(void) { return 1; }\nconst char *tc_provider(void) { return "CPUExecutionProvider"; }\n');
		await runProgram('g++', ['-x', 'c', '-shared', '-fPIC', source, '-o', old]);
		expect('cpu', old, /is of version 1, and \d+ is needed/u);
	});
});
