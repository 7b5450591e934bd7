/** Keys and values in place, with the CPU provider: the frames of a window are those of `KvCache`, whatever its sizes, and nothing moves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceBackend, ResidentTensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import type { NativeTensor } from '../../src/engine/c-api/tensor.js';
import { Generator } from '../../src/engine/generator.js';
import { KvCache, type KvChunk, type KvShape, type LayerKv } from '../../src/engine/kv-cache.js';
import { loadNetworks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { type PlacingDevice, slotsFeed, WindowKv, Windows } from '../../src/engine/window-kv.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import type { Graph } from '../../src/model/graph.js';
import { cast, scatter } from '../../src/model/operators.js';
import { randomNormals, writeRandomModel } from '../model/random-model.js';

const createNative = (): DeviceBackend => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });
const [LAYERS, HEADS, HEAD_DIM, TOKENS] = [2, 2, 3, 2];

/** What a forward does to a window: `fresh` goes where `slots` says. */
const writeGraph = (frames: number, type: 'float32' | 'float16' = 'float32'): Graph => {
	const g = new GraphBuilder('write');
	const [window, slots, fresh] = [g.input('window', type, ['window', TOKENS, HEADS * HEAD_DIM]), g.input('slots', 'int64', [frames, 1]), g.input('fresh', 'float32', [frames, TOKENS, HEADS * HEAD_DIM])];
	scatter(g, 'written', window, slots, type === 'float32' ? fresh : cast(g, 'half', fresh, type), 'held');
	return g.finish();
};

/** [heads, frames * tokens, d] as [frames, tokens, heads * d], or, with `back`, the other way round. */
const turned = (x: Float32Array, frames: number, back = false): Float32Array => {
	const to = new Float32Array(x.length);
	for (let head = 0; head < HEADS; head++) {
		for (let token = 0; token < frames * TOKENS; token++) {
			for (let channel = 0; channel < HEAD_DIM; channel++) {
				const [byHead, byToken] = [(head * frames * TOKENS + token) * HEAD_DIM + channel, (token * HEADS + head) * HEAD_DIM + channel];
				to[back ? byHead : byToken] = x[back ? byToken : byHead] ?? Number.NaN;
			}
		}
	}
	return to;
};

/** The frames of [heads, frames * tokens, d], each as text, in the order of their numbers. */
const framesOf = (x: Float32Array, frames: number): string[] => {
	const flat = turned(x, frames);
	const size = flat.length / Math.max(1, frames);
	return Array.from({ length: frames }, (_, frame) => flat.subarray(frame * size, (frame + 1) * size).join()).sort();
};

for (const [capacityLatents, frames, sinkLatents] of [[4, 2, 0], [4, 2, 1], [3, 2, 1], [5, 3, 2], [2, 3, 0], [2, 2, 2], [0, 2, 0]] as const) {
	test(`a window of ${capacityLatents} latents, ${sinkLatents} of them for ever, filled ${frames} at a time, has the frames of the cache, in memory that stays`, async () => {
		const before = ortLibrary().open();
		const device = createNative();
		const shape: KvShape = { layers: LAYERS, heads: HEADS, headDim: HEAD_DIM, tokensPerLatent: TOKENS, capacityLatents, sinkLatents };
		const windows = new Windows(device as PlacingDevice, 'float32', frames);
		const [kv, cache] = [new WindowKv(shape, windows), new KvCache(shape)];
		const write = await device.load(writeGraph(frames));
		const addresses = new Set<unknown>();
		const chunks: KvChunk[] = [];
		const wholeOf = (of: WindowKv): Promise<Float32Array[]> => Promise.all(of.layers.flatMap(({ k, v }) => [k, v]).map((tensor) => device.download(tensor as ResidentTensor)));
		for (let chunk = 0; chunk < 6; chunk++) {
			assert.equal(kv.past, cache.past);
			const layers = Array.from({ length: LAYERS }, (_, layer): LayerKv => {
				const numbers = (salt: number): Float32Array => randomNormals(HEADS * frames * TOKENS * HEAD_DIM, 100 * chunk + 10 * layer + salt);
				return { k: numbers(1), v: numbers(2) };
			});
			await kv.prepare();
			for (const [layer, { k, v }] of kv.layers.entries()) {
				for (const [window, fresh] of [[k, layers[layer]?.k], [v, layers[layer]?.v]] as const) {
					const place = window as NativeTensor;
					assert.deepEqual(place.dims, [cache.latents + frames, TOKENS, HEADS * HEAD_DIM]);
					addresses.add(place.data);
					await write.runInto({ window: place, slots: slotsFeed(kv.slots), fresh: { type: 'float32', dims: [frames, TOKENS, HEADS * HEAD_DIM], data: turned(fresh ?? new Float32Array(0), frames) } }, [], { held: place });
				}
			}
			// All that attention sees: the past, and the chunk.
			for (const [layer, { k, v }] of kv.layers.entries()) {
				for (const kind of ['k', 'v'] as const) {
					const seen = turned(await device.download((kind === 'k' ? k : v) as ResidentTensor), cache.latents + frames, true);
					const [past, own] = [cache.layers[layer]?.[kind] ?? new Float32Array(0), layers[layer]?.[kind] ?? new Float32Array(0)];
					assert.deepEqual(framesOf(seen, cache.latents + frames), [...framesOf(past, cache.latents), ...framesOf(own, frames)].sort());
				}
			}
			const placed = kv.placed();
			for (const [layer, { k, v }] of layers.entries()) {
				assert.deepEqual(await (placed[layer]?.k as unknown as { read: () => Promise<Float32Array> }).read(), k);
				assert.deepEqual(await (placed[layer]?.v as unknown as { read: () => Promise<Float32Array> }).read(), v);
			}
			await kv.append([], frames);
			cache.append(layers, frames);
			chunks.push({ ordinal: chunk, layers });
		}
		assert.equal(addresses.size, 2 * LAYERS, 'every window has one address, from the first chunk to the last');

		// From a snapshot every frame lies where it lay, but for the room that is free.
		await kv.prepare();
		const restored = new WindowKv(shape, windows);
		restored.restoreChunks(chunks, frames);
		await restored.prepare();
		assert.deepEqual([restored.past, restored.slots], [kv.past, kv.slots]);
		const free = new Set(kv.slots);
		const size = TOKENS * HEADS * HEAD_DIM;
		for (const [index, whole] of (await wholeOf(restored)).entries()) {
			const there = (await wholeOf(kv))[index] ?? new Float32Array(0);
			for (let slot = 0; slot < whole.length / size; slot++) {
				if (!free.has(slot)) {
					assert.deepEqual(whole.subarray(slot * size, (slot + 1) * size), there.subarray(slot * size, (slot + 1) * size), `slot ${slot}`);
				}
			}
		}
		assert.throws(() => restored.restoreChunks([{ ordinal: 0, layers: [] }], frames), /another model or size/u);
		kv.close();
		kv.close();
		restored.close();
		await write.close();
		await windows.close();
		await device.close();
		assert.deepEqual(ortLibrary().open(), before);
	});
}

for (const type of ['float32', 'float16'] as const) {
	test(`numbers that are not finite do not become history, in ${type}`, async () => {
		const device = createNative();
		const windows = new Windows(device as PlacingDevice, type, 1);
		const kv = new WindowKv({ layers: LAYERS, heads: HEADS, headDim: HEAD_DIM, tokensPerLatent: TOKENS, capacityLatents: 2, sinkLatents: 0 }, windows);
		const write = await device.load(writeGraph(1, type));
		const put = async (value: number): Promise<void> => {
			await kv.prepare();
			const place = kv.layers[1]?.v as ResidentTensor;
			const fresh = new Float32Array(TOKENS * HEADS * HEAD_DIM).fill(value, 5, 6);
			await write.runInto({ window: place, slots: slotsFeed(kv.slots), fresh: { type: 'float32', dims: [1, TOKENS, HEADS * HEAD_DIM], data: fresh } }, [], { held: place });
		};
		await put(1);
		await kv.append([], 1);
		await put(Number.NaN);
		await assert.rejects(async () => kv.append([], 1), { code: 'generation_invalid' });
		assert.equal(kv.past, TOKENS);
		await put(2);
		await kv.append([], 1);
		assert.equal(kv.past, 2 * TOKENS);
		kv.close();
		await write.close();
		await windows.close();
		await device.close();
	});
}

test('forwards of a stream over a full window read and write the same addresses, chunk after chunk, and nothing is made anew for keys and values', async () => {
	await using model = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
	const runs: { readonly window: readonly unknown[]; readonly dims: readonly string[] }[] = [];
	const device = createNative();
	const networks = await loadNetworks({
		folder: model.path, width: 48, height: 32, threads: 1, profile: 'cuda-fp16', openDevice: () => ({
			...device, load: async (graph, loading) => {
				const session = await device.load(graph, loading);
				return graph.name !== 'dit' ? session : { ...session, runInto: (feeds, fetch, into, signal) => {
					const names = Object.keys(feeds).filter((name) => name.startsWith('window_'));
					for (const name of names) {
						assert.equal(into[name.replace('window', 'held')], feeds[name], `${name} is written where it is read`);
					}
					runs.push({ window: names.map((name) => (feeds[name] as NativeTensor).data), dims: names.map((name) => String(feeds[name]?.dims)) });
					return session.runInto(feeds, fetch, into, signal);
				} };
			},
		}),
	});
	const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
	for (let chunk = 0; chunk < 5; chunk++) {
		await generator.generateChunk({ prompt: 'a cat jumps', steps: 2, controls: {} }, () => undefined, new AbortController().signal, false);
	}
	// Two steps and a clean pass each; the window is full from the third chunk on.
	assert.equal(runs.length, 15);
	assert.equal(runs[0]?.window.length, 2 * model.spec.dit.num_layers);
	for (const { window, dims } of runs) {
		assert.deepEqual(window, runs[0].window);
		assert.ok(dims.every((text) => text === dims[0]));
	}
	assert.ok(runs.slice(6).every(({ dims }) => dims[0] === runs[6]?.dims[0]));
	assert.notEqual(runs[0].dims[0], runs[6]?.dims[0]);
	generator.close();
	await networks.close();
});
