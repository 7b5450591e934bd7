import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { ClockSync } from '../../client/clock-sync.js';
import { ControlSocket, type SocketClass } from '../../client/control-socket.js';
import { Liveness } from '../../client/liveness.js';
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
	const clock = new ClockSync({ sendPing: (atMs) => sent.push(atMs), onSynced: () => undefined, nowMs: () => nowMs });
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
	assert.equal(sent.length, 6, 'also when one was not answered');
	clock.ping();
	assert.equal(sent.length, 7);
	clock.stop();
	context.mock.timers.tick(20_000);
	assert.equal(sent.length, 7);
});

/** In counted time; `standStill` lets the process sleep for as long. */
const newLiveness = (context: TestContext) => {
	context.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
	let sleptMs = 0;
	const told: string[] = [];
	const nowMs = (): number => Date.now() + sleptMs;
	const liveness = new Liveness({ ask: () => told.push(`ask ${nowMs()}`), onSilence: () => told.push(`silent ${nowMs()}`), nowMs });
	return {
		liveness, told,
		pass: (ms: number) => context.mock.timers.tick(ms),
		standStill: (ms: number) => {
			sleptMs += ms;
		},
	};
};

test('a server that says nothing is asked after 2.5 seconds, and given up when it does not answer', (context) => {
	const { liveness, told, pass } = newLiveness(context);
	liveness.start();
	for (let word = 0; word < 20; word += 1) {
		pass(500);
		liveness.heard();
	}
	assert.deepEqual(told, [], 'whoever speaks is not asked');
	pass(2500);
	assert.deepEqual(told, ['ask 12500']);
	liveness.heard();
	pass(2500);
	assert.deepEqual(told, ['ask 12500', 'ask 15000']);
	pass(4000);
	assert.deepEqual(told, ['ask 12500', 'ask 15000', 'silent 19000']);
	pass(60_000);
	assert.equal(told.length, 3, 'once');
});

test('where the way of before may be gone it is asked at once, and waited for less', (context) => {
	const { liveness, told, pass } = newLiveness(context);
	liveness.doubt();
	assert.deepEqual(told, [], 'without a connection nobody is asked');
	liveness.start();
	pass(1000);
	liveness.doubt();
	liveness.doubt();
	pass(1999);
	assert.deepEqual(told, ['ask 1000']);
	pass(1);
	assert.deepEqual(told, ['ask 1000', 'silent 3000']);
	liveness.start();
	pass(2500);
	pass(1000);
	liveness.doubt();
	pass(2000);
	assert.deepEqual(told.slice(2), ['ask 5500', 'ask 6500', 'silent 8500'], 'a question that was asked patiently is asked again');
	liveness.start();
	liveness.doubt();
	liveness.stop();
	pass(60_000);
	assert.equal(told.length, 6);
});

test('a process that slept asks again before it gives up: what came meanwhile is not read yet', (context) => {
	const { liveness, told, pass, standStill } = newLiveness(context);
	liveness.start();
	pass(2500);
	standStill(60_000);
	pass(4000);
	assert.deepEqual(told, ['ask 2500', 'ask 66500']);
	pass(4000);
	assert.deepEqual(told, ['ask 2500', 'ask 66500', 'silent 70500']);
});

/** A socket that opens, or does not, and says what it is told to. */
class QuietSocket extends EventTarget {
	static opened: QuietSocket[] = [];
	binaryType = '';
	readyState = 0;
	closedWith: number | undefined;

	constructor() {
		super();
		QuietSocket.opened.push(this);
	}

	close(code: number): void {
		this.closedWith = code;
	}
}

test('a server that cannot be reached and does not say so is given up after ten seconds; one that has greeted is not', (context) => {
	context.mock.timers.enable({ apis: ['setTimeout'] });
	const closes: (TurbocastError | undefined)[] = [];
	const open = (): QuietSocket => {
		new ControlSocket(QuietSocket as unknown as SocketClass, 'ws://video.example', undefined, {
			onHeard: () => undefined, onMessage: () => undefined, onUnit: () => undefined, onFrameMeta: () => undefined, onClose: (error) => closes.push(error),
		});
		return QuietSocket.opened.at(-1) ?? assert.fail();
	};
	const [silent, greeted] = [open(), open()];
	greeted.dispatchEvent(new MessageEvent('message', { data: '{"type":"something"}' }));
	context.mock.timers.tick(10_000);
	assert.deepEqual(closes.map((error) => error?.code), ['transport_failed']);
	assert.deepEqual([silent.closedWith, greeted.closedWith], [1000, undefined]);
	silent.dispatchEvent(new Event('close'));
	assert.equal(closes.length, 1, 'told once');
});
