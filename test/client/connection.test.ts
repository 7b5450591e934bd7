import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClockSync } from '../../client/clock-sync.js';
import { defaultReconnect, reconnectDelayMs } from '../../client/reconnect.js';
import { resumeStore } from '../../client/resume-store.js';
import { socketUrl } from '../../client/socket-url.js';
import { TurbocastError } from '../../src/protocol/errors.js';

test('an address may be that of the page, of the server, or of the socket', () => {
	const base = 'https://video.example/page?x=1#top';
	assert.equal(socketUrl('/', base), 'wss://video.example/v1/realtime/video');
	assert.equal(socketUrl('http://127.0.0.1:8080', base), 'ws://127.0.0.1:8080/v1/realtime/video');
	assert.equal(socketUrl('ws://127.0.0.1:8080', base), 'ws://127.0.0.1:8080/v1/realtime/video');
	assert.equal(socketUrl('wss://other.example/behind/proxy?token=1', base), 'wss://other.example/behind/proxy?token=1');
	assert.throws(() => socketUrl('http://', base));
});

test('waits twice as long after each failure, up to eight seconds, with some chance in it', () => {
	const most = [0, 1, 2, 3, 4, 5, 6, 20].map((attempt) => reconnectDelayMs(attempt, undefined, () => 1));
	assert.deepEqual(most, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
	assert.equal(reconnectDelayMs(2, undefined, () => 0), 500);
});

test('waits at least as long as the server asked, and not at all for what will not go away', () => {
	assert.equal(reconnectDelayMs(0, new TurbocastError('capacity_exhausted', 'full', { retryAfterMs: 10_000 }), () => 0), 10_000);
	assert.equal(reconnectDelayMs(3, new TurbocastError('transport_failed', 'lost'), () => 1), 2000);
	assert.equal(reconnectDelayMs(0, new TurbocastError('forbidden', 'no'), () => 1), undefined);
});

test('by default a connection that was up is gone after for two minutes, one that never was is not', () => {
	const error = new TurbocastError('transport_failed', 'lost');
	assert.equal(defaultReconnect({ attempt: 0, sinceMs: 0, error, wasConnected: false }), undefined);
	assert.ok((defaultReconnect({ attempt: 3, sinceMs: 119_000, error, wasConnected: true }) ?? 0) >= 1000);
	assert.equal(defaultReconnect({ attempt: 9, sinceMs: 120_000, error, wasConnected: true }), undefined);
	assert.equal(defaultReconnect({ attempt: 0, sinceMs: 0, error: new TurbocastError('unauthorized', 'no'), wasConnected: true }), undefined);
});

test('a storage that is full or forbidden is no reason to fail; one that works keeps a token for each server', () => {
	const kept = new Map<string, string>();
	const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value), removeItem: (key: string) => void kept.delete(key) };
	const store = resumeStore(storage, 'ws://one.example/');
	store.save('token');
	assert.deepEqual([store.load(), resumeStore(storage, 'ws://two.example/').load()], ['token', undefined]);
	store.save(undefined);
	assert.deepEqual([store.load(), kept.size], [undefined, 0]);
	const fail = (): never => {
		throw new Error('forbidden');
	};
	const forbidden = resumeStore({ getItem: fail, setItem: fail, removeItem: fail }, 'ws://one.example/');
	forbidden.save('token');
	assert.equal(forbidden.load(), undefined);
});

test('the offset of the server clock is that of the shortest round trip, with half of it as uncertainty', (context) => {
	context.mock.timers.enable({ apis: ['setTimeout'] });
	let nowMs = 1000;
	const sent: number[] = [];
	let isSilent = false;
	const clock = new ClockSync({ sendPing: (atMs) => sent.push(atMs), onSynced: () => undefined, onSilence: () => { isSilent = true; }, nowMs: () => nowMs });
	assert.equal(clock.offset, undefined);
	clock.start();
	// Server clock = ours + 500; the way there takes `up`, the way back `down`.
	for (const [up, down] of [[10, 30], [3, 5], [20, 20], [1, 30]] as const) {
		const sentAtMs = sent.at(-1) ?? Number.NaN;
		nowMs = sentAtMs + up + down;
		clock.received(sentAtMs, sentAtMs + up + 500);
	}
	assert.deepEqual(clock.offset, { offsetMs: 499, uncertaintyMs: 4, roundTripMs: 8 });
	assert.ok(Math.abs(499 - 500) <= 4, 'the truth lies within the uncertainty');
	assert.equal(sent.length, 4, 'then it rests');
	context.mock.timers.tick(5000);
	assert.equal(sent.length, 5);
	context.mock.timers.tick(5000);
	assert.equal(isSilent, true, 'a ping that is not answered is told of');
	clock.stop();
});
