import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KvCache, type KvShape, type LayerKv } from '../../src/engine/kv-cache.js';

const SHAPE: KvShape = { layers: 2, heads: 3, headDim: 2, tokensPerLatent: 2, capacityLatents: 6, sinkLatents: 0 };

/** Keys that say where they come from: layer, head, latent frame, token, channel. Values are their negatives. */
const keyOf = (layer: number, head: number, latent: number, token: number, channel: number): number =>
	layer * 1e6 + head * 1e5 + latent * 100 + token * 10 + channel;

const chunkOf = (shape: KvShape, latents: readonly number[]): LayerKv[] =>
	Array.from({ length: shape.layers }, (_, layer) => {
		const k: number[] = [];
		for (let head = 0; head < shape.heads; head++) {
			for (const latent of latents) {
				for (let token = 0; token < shape.tokensPerLatent; token++) {
					for (let channel = 0; channel < shape.headDim; channel++) {
						k.push(keyOf(layer, head, latent, token, channel));
					}
				}
			}
		}
		return { k: Float32Array.from(k), v: Float32Array.from(k, (value) => -value) };
	});

/** Which latent frames a cache holds, in the order of its slots; checks every single number on the way. */
const held = (cache: KvCache, shape: KvShape): number[] => {
	const perFrame = shape.tokensPerLatent * shape.headDim;
	const latents = Array.from({ length: cache.latents }, (_, slot) => Math.floor(((cache.layers[0]?.k[slot * perFrame] ?? Number.NaN) % 1e5) / 100));
	assert.deepEqual(cache.layers, chunkOf(shape, latents));
	return latents;
};

test('fills up, then evicts the oldest latent frames, through three turns of the ring', () => {
	const cache = new KvCache(SHAPE);
	assert.equal(cache.past, 0);
	for (let chunk = 0; chunk < 15; chunk++) {
		cache.append(chunkOf(SHAPE, [2 * chunk, 2 * chunk + 1]), 2);
		const end = 2 * chunk + 2;
		const expected = Array.from({ length: Math.min(6, end) }, (_, index) => Math.max(0, end - 6) + index);
		assert.deepEqual(held(cache, SHAPE).sort((a, b) => a - b), expected);
		assert.equal(cache.past, expected.length * 2);
	}
});

test('sink frames never leave and never change', () => {
	const shape = { ...SHAPE, sinkLatents: 1 };
	const cache = new KvCache(shape);
	for (let chunk = 0; chunk < 20; chunk++) {
		cache.append(chunkOf(shape, [2 * chunk, 2 * chunk + 1]), 2);
		const frames = held(cache, shape);
		assert.equal(frames[0], 0);
		const end = 2 * chunk + 2;
		const newest = Array.from({ length: Math.min(5, end - 1) }, (_, index) => Math.max(1, end - 5) + index);
		assert.deepEqual(frames.slice(1).sort((a, b) => a - b), newest);
	}
});

for (const [title, change, expected] of [
	['a window of one chunk keeps nothing', { capacityLatents: 0 }, []],
	['a window of sink and chunk keeps the sink alone', { capacityLatents: 1, sinkLatents: 1 }, [0]],
	['a ring shorter than a chunk keeps its newest frames', { capacityLatents: 1 }, [7]],
	['a ring that no whole number of chunks fills', { capacityLatents: 5 }, [3, 4, 5, 6, 7]],
] as const) {
	test(title, () => {
		const shape = { ...SHAPE, ...change };
		const cache = new KvCache(shape);
		for (let chunk = 0; chunk < 4; chunk++) {
			cache.append(chunkOf(shape, [2 * chunk, 2 * chunk + 1]), 2);
		}
		assert.deepEqual(held(cache, shape).sort((a, b) => a - b), expected);
	});
}

test('once the window is full, reading and appending allocate no further tensors', () => {
	const cache = new KvCache(SHAPE);
	for (let chunk = 0; chunk < 3; chunk++) {
		cache.append(chunkOf(SHAPE, [2 * chunk, 2 * chunk + 1]), 2);
	}
	const before = cache.layers[1]?.k;
	cache.append(chunkOf(SHAPE, [6, 7]), 2);
	assert.equal(cache.layers[1]?.k, before);
});

test('a chunk of the wrong size is refused and leaves the cache as it was', () => {
	const cache = new KvCache(SHAPE);
	cache.append(chunkOf(SHAPE, [0, 1]), 2);
	const before = cache.snapshot();
	assert.throws(() => cache.append(chunkOf(SHAPE, [2]), 2), /need 2 layers/u);
	assert.throws(() => cache.append(chunkOf(SHAPE, [2, 3]).slice(1), 2), /need 2 layers/u);
	assert.deepEqual(cache.snapshot(), before);
});

test('a cache put together from chunks that were appended before has each in its slot, and goes on exactly as the first', () => {
	for (const sinkLatents of [0, 1]) {
		const shape = { ...SHAPE, sinkLatents };
		const chunk = (ordinal: number) => ({ ordinal, layers: chunkOf(shape, [2 * ordinal, 2 * ordinal + 1]) });
		for (let taken = 0; taken <= 6; taken++) {
			const first = new KvCache(shape);
			const chunks = Array.from({ length: taken }, (_, ordinal) => chunk(ordinal));
			chunks.forEach(({ layers }) => first.append(layers, 2));
			const restored = new KvCache(shape);
			restored.append(chunk(9).layers, 2);
			// The sink's, and as many of the latest as the window holds.
			restored.restoreChunks(structuredClone(chunks.filter(({ ordinal }) => ordinal < 1 || ordinal >= taken - 3)), 2);
			assert.deepEqual(restored.snapshot(), first.snapshot(), `after ${taken} chunks`);
			first.append(chunk(taken).layers, 2);
			restored.append(chunk(taken).layers, 2);
			assert.deepEqual(restored.snapshot(), first.snapshot());
		}
	}
	assert.throws(() => new KvCache({ ...SHAPE, headDim: 4 }).restoreChunks([{ ordinal: 0, layers: chunkOf(SHAPE, [0, 1]) }], 2), /another model or size/u);
});
