import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RawFrame } from '../../src/base/frame.js';
import type { ChunkRun } from '../../src/engine/engine.js';
import type { ChunkTimings, EngineRequest } from '../../src/engine/protocol.js';
import { StreamHost, type StreamEvent } from '../../src/engine/stream-host.js';
import { parseModelSpec } from '../../src/model/spec.js';
import { SMALL_SPEC } from '../model/random-model.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const TIMINGS: ChunkTimings = { queueMs: 1, textMs: 2, recacheMs: 0, denoiseMs: 3, cleanMs: 4, decodeMs: 5 };
const FILE = { file: 'x', sha256: '0'.repeat(64), bytes: 0 };
/** Four frames a chunk. */
const model = parseModelSpec({ ...SMALL_SPEC, stream: { ...SMALL_SPEC.stream, latents_per_chunk: 1 }, files: { text: FILE, dit: FILE, vae: FILE, tokenizer: FILE } });
const INPUTS = { prompt: 'a cat', steps: 2, controls: {} };

/** A stream whose engine is this test: requests are collected, events are told. */
const openStream = (options: { firstChunkIndex?: number; firstFrameId?: number } = {}): { stream: StreamHost; sent: EngineRequest[]; closed: () => number } => {
	const sent: EngineRequest[] = [];
	let closed = 0;
	const stream = new StreamHost(9, { seed: 7, width: 2, height: 2, ...options }, {
		send: (request) => sent.push(request), nowMs: () => 123, model, framesPerChunk: 4, onChunk: () => undefined, onClosed: () => closed++,
	});
	return { stream, sent, closed: () => closed };
};

const frames = (chunkIndex: number, firstIndexInChunk: number, values: readonly number[]): StreamEvent => ({
	type: 'frames', stream: 9, chunkIndex, firstIndexInChunk, width: 2, height: 2, frames: values.map((value) => new Uint8Array(6).fill(value)),
});
const done = (chunkIndex: number): StreamEvent => ({ type: 'chunk.done', stream: 9, chunkIndex, frames: 4, timings: TIMINGS });

const readAll = async (run: ChunkRun): Promise<RawFrame[]> => {
	const all: RawFrame[] = [];
	for await (const frame of run.frames) {
		all.push(frame);
	}
	return all;
};

test('frames are counted across chunks and arrive as they come, before the chunk is done', async () => {
	const { stream, sent } = openStream();
	const run = stream.generate(INPUTS);
	assert.deepEqual(sent, [{ type: 'chunk.generate', stream: 9, chunkIndex: 0, inputs: INPUTS }]);
	const reader = run.frames[Symbol.asyncIterator]();
	stream.receive(frames(0, 0, [10, 11]));
	assert.deepEqual((await reader.next()).value, {
		frameId: 0, chunkIndex: 0, indexInChunk: 0, width: 2, height: 2, data: new Uint8Array(6).fill(10), generatedAtMs: 123,
	});
	stream.receive(frames(0, 2, [12, 13]));
	stream.receive(done(0));
	const rest = [await reader.next(), await reader.next(), await reader.next()].map(({ value }) => (value as RawFrame).frameId);
	assert.deepEqual(rest, [1, 2, 3]);
	assert.equal((await reader.next()).done, true);
	assert.deepEqual(await run.timings, TIMINGS);

	assert.equal(stream.nextChunkIndex, 1);
	const second = stream.generate(INPUTS);
	stream.receive(frames(1, 0, [14]));
	stream.receive(done(1));
	assert.deepEqual((await readAll(second)).map(({ frameId, chunkIndex }) => [frameId, chunkIndex]), [[4, 1]]);
});

test('a frame owns its bytes: it does not share the buffer that the message came in', async () => {
	const { stream } = openStream();
	const run = stream.generate(INPUTS);
	const message = new Uint8Array(100).fill(1);
	stream.receive({ type: 'frames', stream: 9, chunkIndex: 0, firstIndexInChunk: 0, width: 2, height: 2, frames: [message.subarray(8, 14)] });
	stream.receive(done(0));
	message.fill(2);
	const [frame] = await readAll(run);
	assert.deepEqual(frame?.data, new Uint8Array(6).fill(1));
	assert.equal(frame?.data.buffer.byteLength, 6);
});

test('a second chunk before the first has ended is an invalid_state', () => {
	const { stream } = openStream();
	stream.generate(INPUTS);
	assert.throws(() => stream.generate(INPUTS), (error) => error instanceof TurbocastError && error.code === 'invalid_state');
});

test('a reopened stream goes on where the lost one was', async () => {
	const { stream, sent } = openStream({ firstChunkIndex: 5, firstFrameId: 23 });
	const run = stream.generate(INPUTS);
	assert.equal(run.chunkIndex, 5);
	assert.equal(sent[0]?.type === 'chunk.generate' && sent[0].chunkIndex, 5);
	stream.receive(frames(5, 0, [1]));
	stream.receive(done(5));
	assert.equal((await readAll(run))[0]?.frameId, 23);
});

test('aborting asks the engine to cancel; frames nobody read are gone and leave no gap in the ids', async () => {
	const { stream, sent } = openStream();
	const controller = new AbortController();
	const run = stream.generate(INPUTS, controller.signal);
	const reader = run.frames[Symbol.asyncIterator]();
	stream.receive(frames(0, 0, [1, 2]));
	await reader.next();
	const reason = new Error('the viewer left');
	controller.abort(reason);
	assert.deepEqual(sent.at(-1), { type: 'chunk.cancel', stream: 9 });
	stream.receive({ type: 'chunk.cancelled', stream: 9, chunkIndex: 0 });
	await assert.rejects(reader.next(), reason);
	await assert.rejects(run.timings, reason);

	assert.equal(stream.nextChunkIndex, 0);
	const again = stream.generate(INPUTS);
	stream.receive(frames(0, 0, [1]));
	stream.receive(done(0));
	assert.equal((await readAll(again))[0]?.frameId, 1);
});

test('an abort that comes too late changes nothing: the engine\'s history holds the chunk', async () => {
	const { stream } = openStream();
	const controller = new AbortController();
	const run = stream.generate(INPUTS, controller.signal);
	stream.receive(frames(0, 0, [1, 2, 3, 4]));
	controller.abort();
	stream.receive(done(0));
	assert.equal((await readAll(run)).length, 4);
	assert.equal(stream.nextChunkIndex, 1);
});

test('a signal that has aborted before the start never reaches the engine', async () => {
	const { stream, sent } = openStream();
	const reason = new Error('too late');
	await assert.rejects(readAll(stream.generate(INPUTS, AbortSignal.abort(reason))), reason);
	assert.deepEqual(sent, []);
});

test('leaving the frames early cancels the chunk and waits until the engine has let go', async () => {
	const { stream, sent } = openStream();
	const run = stream.generate(INPUTS);
	stream.receive(frames(0, 0, [1, 2]));
	let hasLeft = false;
	const left = (async () => {
		for await (const frame of run.frames) {
			assert.equal(frame.frameId, 0);
			break;
		}
		hasLeft = true;
	})();
	while (sent.length < 2) {
		await Promise.resolve();
	}
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(hasLeft, false);
	assert.deepEqual(sent[1], { type: 'chunk.cancel', stream: 9 });
	stream.receive({ type: 'chunk.cancelled', stream: 9, chunkIndex: 0 });
	await left;
	stream.generate(INPUTS);
});

test('a failed chunk carries its code and may be tried again', async () => {
	const { stream } = openStream();
	const run = stream.generate(INPUTS);
	stream.receive({ type: 'chunk.failed', stream: 9, chunkIndex: 0, code: 'generation_invalid', message: 'Not finite.' });
	await assert.rejects(readAll(run), (error) => error instanceof TurbocastError && error.code === 'generation_invalid');
	assert.equal(stream.generate(INPUTS).chunkIndex, 0);
});

test('events of a chunk that is not at hand are ignored', async () => {
	const { stream } = openStream();
	stream.receive(frames(0, 0, [1]));
	const run = stream.generate(INPUTS);
	stream.receive(done(3));
	stream.receive(frames(1, 0, [9]));
	stream.receive(frames(0, 0, [5]));
	stream.receive(done(0));
	assert.deepEqual((await readAll(run)).map(({ data }) => data[0]), [5]);
	assert.equal(stream.nextChunkIndex, 1);
});

test('an engine that dies ends the run, and every later one, with its error', async () => {
	const { stream, closed } = openStream();
	const run = stream.generate(INPUTS);
	stream.receive(frames(0, 0, [1]));
	const error = new TurbocastError('engine_failed', 'The engine process stopped.');
	stream.end(error);
	stream.end(error);
	const reader = run.frames[Symbol.asyncIterator]();
	assert.equal((await reader.next()).done, false);
	await assert.rejects(reader.next(), error);
	await assert.rejects(run.timings, error);
	await assert.rejects(readAll(stream.generate(INPUTS)), error);
	assert.equal(closed(), 1);
});

test('closing is idempotent, tells the engine once and ends the chunk at hand', async () => {
	const { stream, sent, closed } = openStream();
	const run = stream.generate(INPUTS);
	await Promise.all([stream.close(), stream.close()]);
	await assert.rejects(readAll(run), (error) => error instanceof TurbocastError && error.code === 'invalid_state');
	assert.equal(sent.filter(({ type }) => type === 'stream.close').length, 1);
	assert.equal(closed(), 1);
});

test('a failure that nobody listens to does not become an unhandled rejection', async () => {
	const { stream } = openStream();
	stream.generate(INPUTS);
	const unhandled: unknown[] = [];
	const listener = (reason: unknown): void => void unhandled.push(reason);
	process.on('unhandledRejection', listener);
	stream.end(new TurbocastError('engine_failed', 'The engine process stopped.'));
	await new Promise((resolve) => setImmediate(resolve));
	process.off('unhandledRejection', listener);
	assert.deepEqual(unhandled, []);
});
