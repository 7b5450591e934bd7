/** What the backend promises besides numbers: feeds are checked before the library sees them, and failures have a code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Feeds, Graph } from '../../src/engine/backend.js';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { int8Linears } from '../../src/model/linear-layers.js';
import { concat, linear, matMul, multiply } from '../../src/model/operators.js';
import { encodeSafetensors, parseSafetensors } from '../../src/model/safetensors.js';
import { Weights } from '../../src/model/weights.js';

const backend = createOnnxRuntime({ threads: 1 });

/** y = [past, x] * scale, where past grows. */
const smallGraph = (): Graph => {
	const g = new GraphBuilder('small');
	const [past, x, scale] = [g.input('past', 'float32', ['past', 2]), g.input('x', 'float32', [1, 2]), g.input('scale', 'float32', ['past', 1])];
	g.output('y', concat(g, 'joined', [multiply(g, 'scaled', past, scale), x], 0));
	g.output('twice', multiply(g, 'doubled', x, g.float('two', 2)));
	return g.finish();
};

const float32 = (dims: number[], ...values: number[]): Feeds[string] => ({ type: 'float32', dims, data: Float32Array.from(values) });
const good = { past: float32([2, 2], 1, 2, 3, 4), x: float32([1, 2], 5, 6), scale: float32([2, 1], 1, 10) };

test('runs, fetches what is asked for, and takes a symbolic dimension of any size, 0 too', async () => {
	const session = await backend.load(smallGraph());
	assert.deepEqual((await session.run(good))['y'], { type: 'float32', dims: [3, 2], data: Float32Array.of(1, 2, 30, 40, 5, 6) });
	const empty = await session.run({ ...good, past: float32([0, 2]), scale: float32([0, 1]) }, ['y']);
	assert.deepEqual(empty, { y: { type: 'float32', dims: [1, 2], data: Float32Array.of(5, 6) } });
	await session.close();
});

const WRONG: { readonly [what: string]: readonly [Feeds, RegExp] } = {
	'an input that is missing': [{ past: good.past, scale: good.scale }, /input x: nothing is fed/u],
	'a name that the graph does not have': [{ ...good, y0: good.x }, /input y0: the graph has no such input/u],
	'another type': [{ ...good, x: { type: 'int32', dims: [1, 2], data: Int32Array.of(1, 2) } }, /input x: float32 is expected, not int32/u],
	'data of another type than it says': [{ ...good, x: { type: 'float32', dims: [1, 2], data: Int32Array.of(1, 2) } }, /input x: float32 is expected/u],
	'another shape': [{ ...good, x: float32([2, 1], 5, 6) }, /input x: the shape \[2, 1\] does not fit \[1, 2\]/u],
	'another rank': [{ ...good, x: float32([2], 5, 6) }, /input x: the shape \[2\]/u],
	'two sizes for one symbol': [{ ...good, scale: float32([3, 1], 1, 2, 3) }, /input scale: the shape \[3, 1\] does not fit \[past=2, 1\]/u],
	'fewer numbers than the shape says': [{ ...good, x: float32([1, 2], 5) }, /input x: 1 numbers do not make \[1, 2\]/u],
};

for (const [what, [feeds, message]] of Object.entries(WRONG)) {
	test(`${what} is refused with the names of graph and input, and the session works on`, async () => {
		const session = await backend.load(smallGraph());
		await assert.rejects(session.run(feeds), (error: Error) => {
			assert.equal((error as { code?: string }).code, 'internal');
			assert.match(error.message, /Graph small/u);
			assert.match(error.message, message);
			return true;
		});
		assert.equal((await session.run(good))['twice']?.data[1], 12);
		await session.close();
	});
}

test('a graph that is no ONNX model is model_invalid; weights that end early are weights_corrupt', async () => {
	const graph = smallGraph();
	await assert.rejects(backend.load({ ...graph, model: graph.model.subarray(0, graph.model.length - 1) }), { code: 'model_invalid' });
	await assert.rejects(backend.load({ ...graph, model: Uint8Array.of(1, 2, 3) }), { code: 'model_invalid' });

	const g = new GraphBuilder('big');
	g.output('y', matMul(g, 'm', g.input('x', 'float32', [1, 100]), g.floats('w', [100, 100], new Float32Array(10_000).fill(1))));
	const big = g.finish();
	const session = await backend.load(big);
	await session.close();
	await assert.rejects(backend.load({ ...big, external: big.external.map((entry) => ('data' in entry ? { ...entry, data: entry.data.subarray(0, 39_000) } : entry)) }), { code: 'weights_corrupt' });
});

test('weights are used where they lie in a safetensors file, float32 and bfloat16, at any offset', async () => {
	for (const dtype of ['F32', 'BF16'] as const) {
		const values = dtype === 'F32' ? Float32Array.of(1, 2, 3, 4, 5, 6) : Uint16Array.from(new Uint32Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer), (bits) => bits >>> 16);
		const file = parseSafetensors('w.safetensors', encodeSafetensors({ odd: { dtype: 'U8', shape: [3], data: new Uint8Array(3) }, 'l.weight': { dtype, shape: [2, 3], data: values } }));
		const g = new GraphBuilder('stored');
		g.output('y', linear(g, 'l', g.input('x', 'float32', [1, 3]), new Weights(file).value(g, 'l.weight', [2, 3])));
		const graph = g.finish();
		assert.deepEqual(graph.external.map(({ location }) => location), ['w.safetensors']);
		const session = await backend.load(graph);
		assert.deepEqual([...((await session.run({ x: float32([1, 3], 1, 1, 1) }))['y']?.data as Float32Array)], [6, 15]);
		await session.close();
	}
});

test('close is idempotent, and a closed session refuses to run', async () => {
	const session = await backend.load(smallGraph());
	await Promise.all([session.close(), session.close()]);
	await session.close();
	await assert.rejects(session.run(good), /Graph small is closed/u);
});

test('8-bit linear layers are exact where their bytes are largest, which saturates on processors without VNNI unless it is prevented', async () => {
	const [rows, inputs, outputs] = [8, 64, 32];
	const shape = { 'layer.weight': [outputs, inputs], 'layer.bias': [outputs] };
	const tensors = { 'layer.weight': { dtype: 'F32', shape: shape['layer.weight'], data: new Float32Array(outputs * inputs).fill(0.5) }, 'layer.bias': { dtype: 'F32', shape: shape['layer.bias'], data: new Float32Array(outputs) } } as const;
	const g = new GraphBuilder('largest-bytes');
	const x = g.input('x', 'float32', [rows, inputs]);
	const layers = int8Linears(new Weights(parseSafetensors('weights', encodeSafetensors(tensors))));
	g.output('y', layers(g, x, [{ name: 'layer', outputs, inputs }])[0] ?? assert.fail('no layer'));
	const session = await createOnnxRuntime({ threads: 1 }).load(g.finish());
	try {
		const { y } = await session.run({ x: { type: 'float32', dims: [rows, inputs], data: new Float32Array(rows * inputs).fill(2) } });
		assert.ok([...y?.data as Float32Array].every((value) => Math.abs(value - inputs) < 0.01 * inputs), String((y?.data as Float32Array)[0]));
	} finally {
		await session.close();
	}
});
