/** ONNX Runtime through its C interface, with the provider that every machine has: the calls are those that CUDA gets. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { DeviceBackend, Feeds, Graph } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { libraryMessage } from '../../src/engine/backends/graph-checks.js';
import { hasCudaProvider } from '../../src/engine/c-api/library-folder.js';
import type { StatusFunction } from '../../src/engine/c-api/functions.js';
import { OrtError, ortLibrary, type OrtLibrary } from '../../src/engine/c-api/library.js';
import { openSession } from '../../src/engine/c-api/session.js';
import { NativeTensor } from '../../src/engine/c-api/tensor.js';
import { denoiserArithmetic } from '../../src/engine/profile.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { toFloat16 } from '../../src/model/float16.js';
import { ditGraph } from '../../src/model/dit.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { concat, matMul, multiply } from '../../src/model/operators.js';
import { transferGraph } from '../../src/model/state-graphs.js';
import { Weights } from '../../src/model/weights.js';
import { randomNormals, writeRandomModel } from '../model/random-model.js';
import { holdChunkToDevice, holdStreamToCpu } from './device-stream.js';

const createNative = (): DeviceBackend => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });
const openHandles = () => ortLibrary().open();

/** y = [past, x] * scale, where past grows; twice = 2 x. */
const smallGraph = (): Graph => {
	const g = new GraphBuilder('small');
	const [past, x, scale] = [g.input('past', 'float32', ['past', 2]), g.input('x', 'float32', [1, 2]), g.input('scale', 'float32', ['past', 1])];
	g.output('y', concat(g, 'joined', [multiply(g, 'scaled', past, scale), x], 0));
	g.output('twice', multiply(g, 'doubled', x, g.float('two', 2)));
	return g.finish();
};

const float32 = (dims: number[], ...values: number[]): Feeds[string] => ({ type: 'float32', dims, data: Float32Array.from(values) });
const SMALL = { past: float32([2, 2], 1, 2, 3, 4), x: float32([1, 2], 5, 6), scale: float32([2, 1], 1, 10) };

/** So many products of matrices that a run takes seconds; `w` is stored as external data. */
const SIDE = 512;
const longGraph = (products: number): Graph => {
	const g = new GraphBuilder('long');
	const w = g.floats('w', [SIDE, SIDE], new Float32Array(SIDE * SIDE).fill(1 / SIDE));
	let x = g.input('x', 'float32', [SIDE, SIDE]);
	for (let index = 0; index < products; index++) {
		x = matMul(g, `product${index}`, x, w);
	}
	g.output('y', x);
	return g.finish();
};
const ONES: Feeds = { x: { type: 'float32', dims: [SIDE, SIDE], data: new Float32Array(SIDE * SIDE).fill(1) } };

const PAST = 24;

const randomFeeds = (graph: Graph): Feeds => Object.fromEntries(graph.inputs.map(({ name, type, dims }, index) => {
	const known = dims.map((dimension) => (typeof dimension === 'number' ? dimension : PAST));
	const numbers = randomNormals(known.reduce((product, size) => product * size, 1), index + 1);
	return [name, type === 'float16' ? { type, dims: known, data: toFloat16(numbers) } : { type: 'float32' as const, dims: known, data: numbers }];
}));

for (const profile of ['cpu-fp32', 'cpu-int8', 'cuda-fp16'] satisfies EngineProfile[]) {
	test(`a denoiser of ${profile} gives the same bits as through the binding`, async () => {
		await using model = await writeRandomModel();
		const folder = await openModelFolder(model.path);
		const { stream, vae, dit } = model.spec;
		const graph = ditGraph(dit, {
			weights: new Weights(await folder.readWeights('dit')), mode: { kind: 'chunk' }, ...denoiserArithmetic(profile),
			frames: stream.latents_per_chunk, height: 32 / vae.spatial_stride, width: 48 / vae.spatial_stride,
		});
		const feeds = randomFeeds(graph);
		const [ours, binding] = [await createNative().load(graph), await createOnnxRuntime({ threads: 1 }).load(graph)];
		const [here, there] = [await ours.run(feeds), await binding.run(feeds)];
		assert.ok(Object.keys(there).length > 1 && (there['velocity']?.data as Float32Array).some((value) => value !== 0));
		assert.deepEqual(here, there);
		await ours.close();
		await binding.close();
	});
}

test('fetches what is asked for, and takes a symbolic dimension of any size, 0 too', async () => {
	const session = await createNative().load(smallGraph());
	assert.deepEqual(await session.run(SMALL), {
		y: { type: 'float32', dims: [3, 2], data: Float32Array.of(1, 2, 30, 40, 5, 6) }, twice: { type: 'float32', dims: [1, 2], data: Float32Array.of(10, 12) },
	});
	assert.deepEqual(await session.run({ ...SMALL, past: float32([0, 2]), scale: float32([0, 1]) }, ['y']), { y: { type: 'float32', dims: [1, 2], data: Float32Array.of(5, 6) } });
	await session.close();
});

test('tensors stay with the library: written where they lie, read back, fed on, and dead once they are closed', async () => {
	const device = createNative();
	for (const type of ['float32', 'float16'] as const) {
		const numbers = Float32Array.from({ length: 24 }, (_, index) => index / 4);
		const tensor = await device.upload(numbers, [2, 3, 4], type);
		assert.deepEqual([tensor.type, tensor.dims], [type, [2, 3, 4]]);
		assert.deepEqual(await device.download(tensor), numbers);
		tensor.close();
		await assert.rejects(device.download(tensor), { code: 'internal', message: /after it was closed/u });
	}
	const copy = await device.loadResident(transferGraph('copy', 'float32', 'float32'));
	const flat = await device.upload(Float32Array.of(1, 2, 3), [3]);
	const { resident: { y } } = await copy.run({ x: flat });
	flat.close();
	flat.close();
	assert.deepEqual(await device.download(y ?? assert.fail('no y')), Float32Array.of(1, 2, 3));

	const session = await device.load(smallGraph());
	const place = await device.upload(new Float32Array(2), [1, 2]);
	const before = (place as NativeTensor).data;
	assert.deepEqual(Object.keys(await session.runInto(SMALL, ['y'], { twice: place })), ['y']);
	assert.deepEqual(await device.download(place), Float32Array.of(10, 12));
	assert.equal((place as NativeTensor).data, before, 'the same memory');
	await assert.rejects(copy.run({ x: flat }), { code: 'internal', message: /after it was closed/u });
	place.close();
	y?.close();
	await copy.close();
	await session.close();
	await device.close();
});

test('a tensor that is closed while a run reads it lives until that is over', async () => {
	const device = createNative();
	const session = await device.load(longGraph(4));
	const x = await device.upload(new Float32Array(SIDE * SIDE).fill(1), [SIDE, SIDE]);
	const running = session.run({ x });
	x.close();
	assert.ok(((await running)['y']?.data as Float32Array).every((value) => Math.abs(value - 1) < 1e-3));
	await assert.rejects(session.run({ x }), { code: 'internal', message: /after it was closed/u });
	await session.close();
	await device.close();
});

test('a run does not hold up this thread, and is ended in the middle by its signal; the session works on', async () => {
	const session = await createNative().load(longGraph(600));
	const abort = new AbortController();
	const running = session.run(ONES, ['y'], abort.signal);
	// Turns of this thread while the library computes: with a run that blocks there would be none before its end.
	let isOver = false;
	const settled = running.then(() => 'finished', (error: unknown) => error).finally(() => {
		isOver = true;
	});
	for (let turn = 0; turn < 20; turn++) {
		await setImmediate();
	}
	assert.equal(isOver, false, 'the run blocked this thread');
	const reason = new Error('somebody changed their mind');
	abort.abort(reason);
	assert.equal(await settled, reason);
	await assert.rejects(session.run(ONES, ['y'], abort.signal), reason);
	const small = await createNative().load(smallGraph());
	assert.equal((await small.run(SMALL))['twice']?.data[0], 10);
	await small.close();

	// It closes only when the run at hand has ended.
	const last = new AbortController();
	const cut = session.run(ONES, ['y'], last.signal);
	const closing = session.close();
	last.abort(reason);
	await assert.rejects(cut, reason);
	await closing;
	await assert.rejects(session.run(ONES), { code: 'internal', message: /Graph long is closed/u });
});

/** The library, and what it is told through functions of these names; those of `withheld` it is not told at all. */
const overheard = (told: unknown[][], names: readonly StatusFunction[], withheld: readonly StatusFunction[] = []): OrtLibrary => {
	const library = ortLibrary();
	return { ...library, call: (name, ...args) => {
		if (names.includes(name)) {
			told.push([name, ...args.slice(1)]);
		}
		if (!withheld.includes(name)) {
			library.call(name, ...args);
		}
	} };
};

test('each run of a session that records says which recording it is, or that it is none; a provider that records none computes the same', async () => {
	for (const recordsRuns of [true, false]) {
		const told: unknown[][] = [];
		const session = await openSession(overheard(told, ['AddRunConfigEntry']), smallGraph(), { threads: 1, provider: { kind: 'cpu' }, recordsRuns });
		const run = (graphId?: number) => session.run(SMALL, new Map([['y', 'host'], ['twice', 'host']]), { graphId });
		assert.deepEqual(await run(3), await run());
		assert.deepEqual(told, recordsRuns ? ['3', '-1'].map((id) => ['AddRunConfigEntry', 'gpu_graph_id', id]) : []);
		await session.close();
	}
});

test('a session that records tells the CUDA provider so, and no other does', async () => {
	for (const recordsRuns of [true, false]) {
		const told: unknown[][] = [];
		const cuda = ['UpdateCUDAProviderOptions', 'SessionOptionsAppendExecutionProvider_CUDA_V2'] as const;
		const library = overheard(told, cuda, cuda);
		// Without CUDA there are no options to be made.
		const withoutCuda: OrtLibrary = {
			...library,
			make: (handle, name, ...args) => (name === 'CreateCUDAProviderOptions' ? 0n : library.make(handle, name, ...args)),
			release: (handle, pointer) => (handle === 'CUDAProviderOptions' ? undefined : library.release(handle, pointer)),
		};
		const session = await openSession(withoutCuda, smallGraph(), { threads: 1, provider: { kind: 'cuda', deviceId: 0 }, recordsRuns });
		const [[, keys, values] = [], appended] = told as [[string, string[], string[]]?, unknown[]?];
		assert.equal(values?.[keys?.indexOf('enable_cuda_graph') ?? -1], recordsRuns ? '1' : '0');
		assert.equal(appended?.[0], 'SessionOptionsAppendExecutionProvider_CUDA_V2');
		await session.close();
	}
});

test('what the library says is told in a line of bounded length, without the place in its source', () => {
	const message = libraryMessage(new Error(`/some/source.cc:12 void f() [ONNXRuntimeError] : 1 : FAIL : no such device\n{"graph": 1}`));
	assert.equal(message, 'no such device');
	assert.equal(libraryMessage(new Error('x'.repeat(5000))).length, 404);
});

test('a process that exits does not wait for its runs to come to their end', async () => {
	// On one thread the run would take five minutes and more; a product takes a fifth of a second.
	const script = `
		const { createNativeRuntime } = await import(${JSON.stringify(new URL('../../src/engine/backends/onnxruntime-c.js', import.meta.url).href)});
		const { GraphBuilder } = await import(${JSON.stringify(new URL('../../src/model/graph-builder.js', import.meta.url).href)});
		const { matMul } = await import(${JSON.stringify(new URL('../../src/model/operators.js', import.meta.url).href)});
		const g = new GraphBuilder('endless');
		const w = g.input('w', 'float32', [2048, 2048]);
		let x = g.input('x', 'float32', [2048, 2048]);
		for (let index = 0; index < 2000; index++) {
			x = matMul(g, 'product' + index, x, w);
		}
		g.output('y', x);
		const session = await createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } }).load(g.finish());
		const zeros = { type: 'float32', dims: [2048, 2048], data: new Float32Array(2048 * 2048) };
		void session.run({ x: zeros, w: zeros });
		setImmediate(() => process.exit(7));
	`;
	const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore', timeout: 180_000, killSignal: 'SIGKILL' });
	const [code] = await once(child, 'exit') as [number | null];
	assert.equal(code, 7);
});

test('failures have the codes of the table and name the graph', async () => {
	const native = createNative();
	const graph = smallGraph();
	await assert.rejects(native.load({ ...graph, model: graph.model.subarray(0, graph.model.length - 1) }), { code: 'model_invalid', message: /graph small/u });
	const big = longGraph(1);
	await assert.rejects(native.load({ ...big, external: big.external.map((entry) => ('data' in entry ? { ...entry, data: entry.data.subarray(0, 39_000) } : entry)) }), { code: 'weights_corrupt' });
	const session = await native.load(graph);
	await assert.rejects(session.run({ ...SMALL, x: float32([2, 1], 5, 6) }), { code: 'internal', message: /Graph small, input x: the shape \[2, 1\]/u });
	await assert.rejects(session.run(SMALL, ['nothing']), { code: 'internal', message: /Graph small gives no nothing/u });
	const place = await native.upload(new Float32Array(4), [2, 2]);
	// Refused by the library itself, not by us: the place does not fit what the graph gives.
	await assert.rejects(session.runInto(SMALL, [], { twice: place }), { code: 'internal', message: /^Graph small failed\./u });
	place.close();
	await session.close();
	await native.close();
});

test('CUDA that is not installed is device_unavailable, and says where to read what is missing', { skip: hasCudaProvider() && 'the CUDA provider is installed here' }, async () => {
	const native = createNativeRuntime({ threads: 1, provider: { kind: 'cuda', deviceId: 0 } });
	await assert.rejects(native.load(smallGraph()), { code: 'device_unavailable', message: /docs\/gpu\.md .*libonnxruntime_providers_shared/u });
	await native.close();
});

test('weights may go once a graph is loaded', async () => {
	const graph = longGraph(2);
	const session = await createNative().load(graph);
	graph.external.forEach((entry) => 'data' in entry && entry.data.fill(0));
	assert.ok(((await session.run(ONES))['y']?.data as Float32Array).every((value) => Math.abs(value - 1) < 1e-3));
	await session.close();
});

test('everything taken from the library is given back: after many runs, failures, ended runs and double closes', async () => {
	const before = openHandles();
	const device = createNative();
	const session = await device.load(smallGraph());
	const resident = await device.loadResident(smallGraph(), ['twice']);
	const copy = await device.loadResident(transferGraph('copy', 'float32', 'float32'));
	const large = new Float32Array(1 << 18);
	const cycle = async (): Promise<void> => {
		await session.run(SMALL);
		const results = await resident.run(SMALL);
		results.resident['y']?.close();
		await assert.rejects(session.run({ ...SMALL, x: float32([2], 1, 2) }));
		const tensor = await device.upload(large, [large.length]);
		const { resident: { y } } = await copy.run({ x: tensor });
		await device.download(y ?? assert.fail('no y'));
		tensor.close();
		y?.close();
		y?.close();
		const abort = new AbortController();
		const ended = session.run(SMALL, ['y'], abort.signal);
		abort.abort(new Error('ended'));
		await ended.catch(() => undefined);
	};
	await cycle();
	const [handles, bytes] = [openHandles(), process.memoryUsage.rss()];
	// Three megabytes each.
	for (let round = 0; round < 150; round++) {
		await cycle();
	}
	assert.deepEqual(openHandles(), handles);
	assert.ok(process.memoryUsage.rss() - bytes < 300e6, `${((process.memoryUsage.rss() - bytes) / 1e6).toFixed(0)} MB more`);
	await Promise.all([session.close(), session.close()]);
	await resident.close();
	await copy.close();
	await Promise.all([device.close(), device.close()]);
	await session.close();
	await device.close();
	assert.deepEqual(openHandles(), before);
});

test('a tensor that was lost without being closed is freed by the garbage collector', async () => {
	setFlagsFromString('--expose-gc');
	const collect = runInNewContext('gc') as () => void;
	const device = createNative();
	const first = await device.upload(new Float32Array(4), [4]);
	first.close();
	const before = openHandles();
	const kept: unknown[] = [];
	for (let index = 0; index < 10; index++) {
		kept.push(await device.upload(new Float32Array(4), [4]));
	}
	assert.equal(openHandles().Value, 2 * kept.length, 'a tensor and a view of it each');
	kept.length = 0;
	for (let turn = 0; turn < 1000 && openHandles().Value !== before.Value; turn++) {
		collect();
		await setImmediate();
	}
	assert.deepEqual(openHandles(), before);
	await device.close();
});

test('what the library reports is an OrtError with its code, and nothing stays behind of a session that could not be made', async () => {
	const before = openHandles();
	await assert.rejects(openSession(ortLibrary(), { ...smallGraph(), model: Uint8Array.of(1, 2, 3) }, { threads: 1, provider: { kind: 'cpu' } }),
		(error) => error instanceof OrtError && error.ortCode === 7);
	assert.deepEqual(openHandles(), before);
});

/** Of 255. Random networks, and five chunks that each see those before: what float16 rounds off grows. */
for (const [profile, levels] of [['cuda-fp32', 1], ['cuda-fp16', 24]] as const) {
	test(`a stream of ${profile}, computed by the processor through the same calls, shows what the CPU shows, over eviction, a sink and snapshots`, async () => {
		const before = openHandles();
		await holdStreamToCpu(profile, levels, { openDevice: () => createNative() });
		assert.deepEqual(openHandles(), before);
	});

	test(`a chunk of ${profile} is made where its tensors lie: only its pictures and a few numbers that say they are some come back, in any number of steps`, async () => {
		const before = openHandles();
		for (const sampler of ['renoise', 'euler'] as const) {
			await holdChunkToDevice(profile, levels, { sampler, openDevice: () => createNative() });
		}
		assert.deepEqual(openHandles(), before);
	});
}
