import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseModelSpec, type ModelSpec } from '../../src/model/spec.js';
import { ChunkCalendar } from '../../src/server/chunk-calendar.js';
import { SMALL_SPEC } from '../model/random-model.js';

const FILE = { file: 'x', sha256: '0'.repeat(64), bytes: 0 };
const own = parseModelSpec({ ...SMALL_SPEC, files: { text: FILE, dit: FILE, vae: FILE, tokenizer: FILE } });
/** Three latents a chunk of a decoder whose first latent is one picture: 9 frames, then 12 a chunk. */
const published = { ...own, fps: 16, vae: { ...own.vae, kind: 'wan-vae', frames_per_latent: 4 }, stream: { ...own.stream, latents_per_chunk: 3 } } as unknown as ModelSpec;

const FRAME_MS = 62.5;

test('chunks begin where the chunks before them end, also after a past that was forgotten', () => {
	const calendar = new ChunkCalendar(published);
	assert.deepEqual([0, 1, 2].map((chunk) => calendar.mediaMsOf(chunk)), [0, 9 * FRAME_MS, 21 * FRAME_MS]);
	assert.deepEqual([0, 1, 9 * FRAME_MS, 9 * FRAME_MS + 1, 21 * FRAME_MS].map((ms) => calendar.chunkAt(ms)), [0, 1, 1, 2, 2]);
	calendar.completed(0, 9);
	calendar.completed(1, 21);
	// Chunk 2 began anew: 9 frames again.
	calendar.completed(2, 30);
	assert.deepEqual([3, 4].map((chunk) => calendar.mediaMsOf(chunk)), [30 * FRAME_MS, 42 * FRAME_MS]);
	assert.deepEqual([30 * FRAME_MS, 30 * FRAME_MS + 1, 42 * FRAME_MS].map((ms) => calendar.chunkAt(ms)), [3, 4, 4]);
});

test('a fork goes on in the calendar of the session before it, and models of equal chunks need none', () => {
	const fork = new ChunkCalendar(published, 3, 30);
	assert.deepEqual([fork.mediaMsOf(3), fork.chunkAt(42 * FRAME_MS)], [30 * FRAME_MS, 4]);
	const perChunk = own.stream.latents_per_chunk * own.vae.frames_per_latent;
	const even = new ChunkCalendar(own);
	even.completed(0, perChunk);
	assert.deepEqual([even.mediaMsOf(5), even.chunkAt((5 * perChunk * 1000) / own.fps)], [(5 * perChunk * 1000) / own.fps, 5]);
});
