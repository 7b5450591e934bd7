import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PendingChanges } from '../../client/change.js';
import type { ClockOffset } from '../../client/clock-sync.js';
import { EventStream } from '../../client/event-stream.js';
import type { ShownFrame } from '../../client/platform.js';
import { TimelineBook } from '../../client/timeline-book.js';
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

const newChanges = (): PendingChanges => new PendingChanges(new TimelineBook(() => undefined));
const update = (event_id: string) => ({ type: 'session.update' as const, event_id, prompt: 'a dog' });
const shown = (rtpTimestamp: number, atMs: number): ShownFrame => ({ rtpTimestamp, atMs, receivedAtMs: atMs - 8, decodeMs: 2, presentedAtMs: atMs - 4, presentedFrames: 1 });
const meta = (rtpTimestamp: number, chunkIndex: number) => ({
	type: 'frame.meta' as const, frame_id: 24, rtp_timestamp: rtpTimestamp, chunk_index: chunkIndex, media_ms: 1500, keyframe: false,
	t_generated_ms: 50_250, t_taken_ms: 50_290, t_encoded_ms: 50_294, t_sent_ms: 50_300, applied_event_ids: [],
});
const chunk = (index: number) => ({
	type: 'chunk.completed' as const, chunk_index: index, frames: 8, first_frame_id: 24, media_ms: 1500, steps: 4, seed: 1,
	timings: { queue_ms: 5, text_ms: 10, recache_ms: 20, denoise_ms: 60, clean_ms: 15, decode_ms: 20 }, t_started_ms: 50_100, t_completed_ms: 50_280, lead_ms: 300, fps: 16, deadline_missed: false,
});

test('a change has three moments: accepted, applied, displayed', async () => {
	const changes = newChanges();
	const asked = changes.add('e1', update('e1'), 1000);
	changes.accepted(accepted('e1'));
	const change = await asked;
	assert.deepEqual([change.eventId, change.chunkIndex, change.unknownWords], ['e1', 3, ['gnu']]);
	changes.shown(shown(500, 1100));
	changes.applied(applied('e1', 5625));
	assert.deepEqual(await change.applied, { chunkIndex: 3, frameId: 24, rtpTimestamp: 5625, serverLatencyMs: 300 });
	changes.shown(shown(5000, 1350));
	changes.shown(shown(5625, 1400));
	assert.deepEqual(await change.displayed, { latencyMs: 400, rtpTimestamp: 5625 });
});

test('a frame that was never shown is made up for by the next one, also across the wrap of the timestamp', async () => {
	const changes = newChanges();
	const asked = changes.add('e1', update('e1'), 0);
	changes.accepted(accepted('e1'));
	changes.applied(applied('e1', 0xffff_fff0));
	changes.shown(shown(0xffff_e000, 100));
	changes.shown(shown(0x0000_1000, 200));
	assert.equal((await (await asked).displayed).latencyMs, 200);
});

test('a frame that overtakes the word of its change counts', async () => {
	const changes = newChanges();
	const asked = changes.add('e1', update('e1'), 0);
	changes.accepted(accepted('e1'));
	changes.shown(shown(5625, 90));
	changes.applied(applied('e1', 5625));
	assert.equal((await (await asked).displayed).latencyMs, 90);
});

test('the time of a change is laid out over both clocks, and its stages add up to the whole', async () => {
	const clock: ClockOffset = { offsetMs: 49_000, uncertaintyMs: 1.5, roundTripMs: 3 };
	const book = new TimelineBook(() => clock);
	const changes = new PendingChanges(book);
	const asked = changes.add('e1', update('e1'), 990);
	changes.accepted(accepted('e1'));
	const change = await asked;
	changes.applied(applied('e1', 5625));
	changes.shown(shown(5625, 1320));
	book.meta(meta(5625, 3));
	book.chunk(chunk(2));
	book.chunk(chunk(3));
	const { stagesMs, totalMs, uncertaintyMs } = await change.timeline;
	assert.deepEqual(stagesMs, { uplink: 10, wait: 105, denoise: 90, decode: 55, pace: 40, encode: 10, network: 12, buffer: 2, unpack: 2, display: 4 } satisfies typeof stagesMs);
	assert.equal(totalMs, 330);
	assert.equal(Object.values(stagesMs).reduce((sum, ms) => sum + ms, 0), totalMs);
	assert.equal(uncertaintyMs, 1.5);
	assert.deepEqual(book.frame(shown(5625, 1320))?.timeline?.stagesMs, { pace: 40, encode: 10, network: 12, buffer: 2, unpack: 2, display: 4 });
});

test('what a browser does not tell, and a clock that is wrong, leave no stage negative and no millisecond out', async () => {
	const book = new TimelineBook(() => ({ offsetMs: 49_020, uncertaintyMs: 30, roundTripMs: 60 }));
	const changes = new PendingChanges(book);
	const asked = changes.add('e1', update('e1'), 990);
	changes.accepted(accepted('e1'));
	changes.applied(applied('e1', 5625));
	changes.shown({ rtpTimestamp: 5625, atMs: 1320, receivedAtMs: undefined, decodeMs: undefined, presentedAtMs: undefined, presentedFrames: 1 });
	book.chunk(chunk(3));
	book.meta(meta(5625, 3));
	const { stagesMs, totalMs } = await (await asked).timeline;
	assert.ok(Object.values(stagesMs).every((ms) => ms >= 0), JSON.stringify(stagesMs));
	assert.deepEqual([stagesMs.network, stagesMs.buffer, stagesMs.display], [0, 0, 0]);
	assert.equal(Object.values(stagesMs).reduce((sum, ms) => sum + ms, 0), totalMs);
});

const newTimed = () => {
	const book = new TimelineBook(() => ({ offsetMs: 0, uncertaintyMs: 1, roundTripMs: 2 }));
	const changes = new PendingChanges(book);
	return { book, changes, display: async (eventId: string, rtpTimestamp: number) => {
		const asked = changes.add(eventId, update(eventId), 990);
		changes.accepted(accepted(eventId));
		changes.applied(applied(eventId, rtpTimestamp));
		changes.shown(shown(rtpTimestamp, 1320));
		return asked;
	} };
};

/** Whether a promise has settled by the time that everything has which is settled already. */
const isSettled = async (promise: Promise<unknown>): Promise<boolean> => {
	const pending = Symbol('pending');
	return await Promise.race([promise.catch(() => undefined), new Promise((resolve) => setImmediate(resolve, pending))]) !== pending;
};

test('a change whose chunk or frame was never reported is left without its timeline, with a reason, after some other chunks', async () => {
	for (const isFrameKnown of [true, false]) {
		const { book, display } = newTimed();
		const change = await display('e1', 5625);
		if (isFrameKnown) {
			book.meta(meta(5625, 3));
		} else {
			book.meta(meta(9000, 3));
		}
		for (const index of [4, 5, 6]) {
			book.chunk(chunk(index));
		}
		assert.equal(await isSettled(change.timeline), false, 'it may still come');
		book.chunk(chunk(7));
		await assert.rejects(change.timeline, { code: 'transport_failed' });
	}
});

test('a report that comes late is not too late', async () => {
	const { book, display } = newTimed();
	const change = await display('e1', 5625);
	book.chunk(chunk(4));
	book.chunk(chunk(5));
	book.meta(meta(5625, 3));
	book.chunk(chunk(3));
	assert.equal((await change.timeline).totalMs, 330);
});

test('changes whose records are all lost do not pile up while no chunk comes, and those of a program that looks at no picture neither', async () => {
	const { display, changes } = newTimed();
	const first = await display('first', 5625);
	for (let index = 0; index < 255; index += 1) {
		await display(`e${index}`, 5625);
	}
	assert.equal(await isSettled(first.timeline), false);
	await display('one more', 5625);
	await assert.rejects(first.timeline, { code: 'transport_failed' });

	const asked = changes.add('unseen', update('unseen'), 0);
	changes.accepted(accepted('unseen'));
	changes.applied(applied('unseen', 9000));
	const unseen = await asked;
	for (let index = 0; index < 256; index += 1) {
		assert.equal(await isSettled(unseen.displayed), false);
		void changes.add(`u${index}`, update(`u${index}`), 0);
		changes.accepted(accepted(`u${index}`));
		changes.applied(applied(`u${index}`, 9000 + index));
	}
	await assert.rejects(unseen.displayed, { code: 'invalid_state' });
	assert.equal((await unseen.applied).rtpTimestamp, 9000, 'what is known of it stays');
});

test('after a connection was lost, an unanswered change is known, and one whose word was lost is applied by a frame of a later chunk', async () => {
	const changes = newChanges();
	const first = changes.add('e1', update('e1'), 0);
	changes.add('e2', update('e2'), 0).catch(() => undefined);
	changes.accepted(accepted('e1'));
	assert.deepEqual(changes.unanswered.map((message) => message.event_id), ['e2']);
	changes.resumed(meta(5000, 3));
	changes.resumed(meta(9000, 4));
	assert.deepEqual(await (await first).applied, { chunkIndex: 4, frameId: 24, rtpTimestamp: 9000, serverLatencyMs: undefined });
});

test('a refused change rejects; one that was not ours is not taken for one', async () => {
	const changes = newChanges();
	const asked = changes.add('e1', update('e1'), 0);
	const error = new TurbocastError('invalid_prompt', 'no');
	assert.equal(changes.refuse('other', error), false);
	assert.equal(changes.refuse('e1', error), true);
	await assert.rejects(asked, error);
	assert.equal(changes.refuse('e1', error), false);
});

test('the end of a session rejects what is still awaited, and nobody who does not wait is troubled', async () => {
	const changes = newChanges();
	const asked = changes.add('e1', update('e1'), 0);
	changes.accepted(accepted('e1'));
	const change = await asked;
	changes.add('e2', update('e2'), 0).catch(() => undefined);
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

test('a signal ends the reading of events without an error, also while it waits', async () => {
	const stream = new EventStream<number>();
	const stop = new AbortController();
	const reading = readAll(stream.read(stop.signal));
	stream.emit(1);
	await Promise.resolve();
	stop.abort();
	stream.emit(2);
	assert.deepEqual(await reading, [1]);
	assert.deepEqual(await readAll(stream.read(AbortSignal.abort())), []);
});
