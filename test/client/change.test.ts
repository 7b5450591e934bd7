import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PendingChanges } from '../../client/change.js';
import { EventStream } from '../../client/event-stream.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const readAll = async <T>(events: AsyncIterable<T>): Promise<T[]> => {
	const all: T[] = [];
	for await (const event of events) {
		all.push(event);
	}
	return all;
};

const accepted = (eventId: string) => ({ type: 'event.accepted' as const, event_id: eventId, will_apply_at_chunk: 3, will_apply_at_media_ms: 1500, unknown_words: ['gnu'] });
const applied = (eventId: string, rtpTimestamp: number) =>
	({ type: 'event.applied' as const, event_id: eventId, chunk_index: 3, frame_id: 24, rtp_timestamp: rtpTimestamp, media_ms: 1500, server_latency_ms: 300, timings: { wait_ms: 100, generate_ms: 150, hold_ms: 40, encode_ms: 10 } });

test('a change has three moments: accepted, applied, displayed', async () => {
	const changes = new PendingChanges();
	const asked = changes.add('e1', 1000);
	changes.accepted(accepted('e1'));
	const change = await asked;
	assert.deepEqual([change.eventId, change.chunkIndex, change.unknownWords], ['e1', 3, ['gnu']]);
	changes.displayed(500, 1100);
	changes.applied(applied('e1', 5625));
	assert.deepEqual(await change.applied, { chunkIndex: 3, frameId: 24, rtpTimestamp: 5625, serverLatencyMs: 300 });
	changes.displayed(5000, 1350);
	changes.displayed(5625, 1400);
	assert.deepEqual(await change.displayed, { latencyMs: 400, rtpTimestamp: 5625 });
});

test('a frame that was never shown is made up for by the next one, also across the wrap of the timestamp', async () => {
	const changes = new PendingChanges();
	const asked = changes.add('e1', 0);
	changes.accepted(accepted('e1'));
	changes.applied(applied('e1', 0xffff_fff0));
	changes.displayed(0xffff_e000, 100);
	changes.displayed(0x0000_1000, 200);
	assert.equal((await (await asked).displayed).latencyMs, 200);
});

test('a frame that overtakes the word of its change counts', async () => {
	const changes = new PendingChanges();
	const asked = changes.add('e1', 0);
	changes.accepted(accepted('e1'));
	changes.displayed(5625, 90);
	changes.applied(applied('e1', 5625));
	assert.equal((await (await asked).displayed).latencyMs, 90);
});

test('a refused change rejects; one that was not ours is not taken for one', async () => {
	const changes = new PendingChanges();
	const asked = changes.add('e1', 0);
	const error = new TurbocastError('invalid_prompt', 'no');
	assert.equal(changes.refuse('other', error), false);
	assert.equal(changes.refuse('e1', error), true);
	await assert.rejects(asked, error);
	assert.equal(changes.refuse('e1', error), false);
});

test('the end of a session rejects what is still awaited, and nobody who does not wait is troubled', async () => {
	const changes = new PendingChanges();
	const asked = changes.add('e1', 0);
	changes.accepted(accepted('e1'));
	const change = await asked;
	changes.add('e2', 0).catch(() => undefined);
	changes.end(new TurbocastError('transport_failed', 'lost'));
	await assert.rejects(change.displayed, /lost/u);
});

test('every reader of events gets all of them in order, from when it began to the end', async () => {
	const stream = new EventStream<number>();
	stream.emit(0);
	const [first, second] = [stream.read(), stream.read()];
	stream.emit(1);
	assert.deepEqual(await first.next(), { value: 1, done: false });
	const waiting = first.next();
	stream.emit(2);
	stream.close();
	assert.deepEqual(await waiting, { value: 2, done: false });
	assert.deepEqual(await first.next(), { value: undefined, done: true });
	assert.deepEqual(await readAll(second), [1, 2]);
	assert.deepEqual(await readAll(stream.read()), []);
});

test('a slow reader loses its oldest events, and another loses none', async (context) => {
	const warned = context.mock.method(console, 'warn', () => undefined);
	const stream = new EventStream<number>();
	const [slow, quick] = [stream.read(), stream.read()];
	for (let event = 0; event < 1500; event++) {
		stream.emit(event);
		assert.equal((await quick.next()).value, event);
	}
	assert.equal((await slow.next()).value, 1500 - 1024);
	assert.equal(warned.mock.callCount(), 1);
});
