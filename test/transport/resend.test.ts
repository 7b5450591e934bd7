import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, type Clock } from '../../src/base/time.js';
import { Resender, type KeptPacket } from '../../src/transport/resend.js';
import { playOver } from './lossy-way.js';

/** Transport-wide numbers are those from 60000 on for the first sendings, and from 100 on for repeats. */
const setUp = (roundTripMs?: number, loss = 0, isWayFull = false): { resender: Resender<KeptPacket>; sent: number[]; lost: () => number; at: (nowMs: number) => void } => {
	let nowMs = 0;
	let lost = 0;
	const sent: number[] = [];
	const clock: Clock = { nowMs: () => nowMs, sleep: systemClock.sleep };
	const resender = new Resender<KeptPacket>({
		clock,
		send: (packet) => 99 + sent.push(packet.sequence),
		onLost: () => {
			lost += 1;
		},
		roundTripMs: () => roundTripMs,
		loss: () => loss,
		isWayFull: () => isWayFull,
	});
	return { resender, sent, lost: () => lost, at: (ms) => { nowMs = ms; } };
};

test('a lost packet is sent again once a round trip, however often it is asked for', () => {
	const { resender, sent, at, lost } = setUp(40);
	resender.remember({ sequence: 65_535, bytes: 1000 });
	resender.remember({ sequence: 0, bytes: 1000 });
	resender.request([65_535, 0]);
	at(39);
	resender.request([65_535, 0]);
	assert.deepEqual(sent, [65_535, 0]);
	at(40);
	resender.request([0]);
	assert.deepEqual(sent, [65_535, 0, 0]);
	assert.equal(lost(), 0);
	assert.equal(resender.resent, 3);
});

test('what is too old, was never sent or has left the history needs a key frame', () => {
	const { resender, sent, lost, at } = setUp();
	resender.request([5]);
	assert.equal(lost(), 1);
	for (let sequence = 0; sequence <= 1024; sequence += 1) {
		resender.remember({ sequence, bytes: 10 });
	}
	resender.request([0]);
	assert.equal(lost(), 2);
	resender.request([1]);
	assert.deepEqual([sent, lost()], [[1], 2]);
	at(1001);
	resender.request([2, 3]);
	assert.deepEqual([sent, lost()], [[1], 3], 'one request, one key frame');
});

test('on a full way repeats take a quarter of what is sent at most', () => {
	const { resender, sent, lost, at } = setUp(undefined, 0, true);
	for (let sequence = 0; sequence < 1000; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 });
		at(sequence / 2);
		resender.request([sequence]);
	}
	assert.ok(sent.length >= 250 && sent.length <= 250 + 32, `${sent.length}`);
	assert.equal(sent.length + lost(), 1000);
});

test('where much is lost a repeat goes so often that hardly one is lost in all its copies, until half of the budget is used', () => {
	for (const [loss, copies] of [[0.01, 1], [0.025, 2], [0.05, 3], [0.3, 3]] as const) {
		const { resender, sent } = setUp(20, loss);
		resender.remember({ sequence: 1, bytes: 1000 });
		resender.request([1]);
		assert.deepEqual(sent, new Array(copies).fill(1), `${loss}`);
	}
	const { resender, sent } = setUp(20, 0.05);
	for (let sequence = 0; sequence < 40; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 });
	}
	resender.request(Array.from({ length: 20 }, (_, index) => index + 10));
	assert.ok(sent.length > 20 && sent.length < 40, `${sent.length} packets`);
	assert.deepEqual(sent.slice(-2), [28, 29], 'the last ones once');
});

const missing = (sequence: number): { sequence: number; arrivedAtMs: undefined } => ({ sequence, arrivedAtMs: undefined });
const there = (sequence: number): { sequence: number; arrivedAtMs: number } => ({ sequence, arrivedAtMs: 1 });

test('what feedback says is lost is sent again without being asked for, and so is a repeat, at once; what was only overtaken is not', () => {
	const { resender, sent, lost, at } = setUp(40);
	// Numbers wrap at 2^16.
	for (let sequence = 0; sequence < 8; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 }, (65_533 + sequence) & 0xffff);
	}
	resender.reported([there(65_533), missing(65_534), there(65_535), there(0)]);
	assert.deepEqual(sent, [], 'overtaken by two');
	resender.reported([there(65_534)]);
	resender.reported([missing(1), there(2), there(3), there(4)]);
	assert.deepEqual(sent, [4]);
	at(10);
	resender.request([4]);
	assert.deepEqual(sent, [4], 'the repeat is under way');
	resender.reported([missing(100), there(101), there(102)]);
	assert.deepEqual(sent, [4]);
	for (let sequence = 8; sequence < 14; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 }, 95 + sequence);
	}
	resender.reported([there(103), there(104), there(105)]);
	assert.deepEqual(sent, [4, 4], 'the repeat was lost');
	at(1001);
	resender.reported([missing(106), missing(107), there(108), there(109), there(110)]);
	assert.deepEqual([sent, lost()], [[4, 4], 0], 'of no use any more, and not asked for');
});

test('a packet that is reported missing again and again is lost once', () => {
	const { resender, sent } = setUp(40);
	for (let sequence = 0; sequence < 4; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 }, 60_000 + sequence);
	}
	for (let times = 0; times < 3; times += 1) {
		resender.reported([missing(60_000)]);
	}
	resender.reported([there(60_001), there(60_002), there(60_003)]);
	assert.deepEqual(sent, [0]);
});

test('when feedback itself is lost on a lossy way, all that it spoke of goes once more', () => {
	const opened = (loss: number): ReturnType<typeof setUp> => {
		const set = setUp(40, loss);
		for (let sequence = 0; sequence < 12; sequence += 1) {
			set.resender.remember({ sequence, bytes: 1000 }, 60_000 + sequence);
		}
		set.resender.reported([there(60_000), there(60_001)]);
		set.resender.request([3]);
		set.sent.length = 0;
		set.resender.reported([there(60_006), there(60_007)]);
		return set;
	};
	assert.deepEqual(opened(0.05).sent, [2, 4, 5], 'but for what has been sent again already');
	assert.deepEqual(opened(0).sent, []);
});

test('the end of a picture goes twice where packets are lost: nothing else shows soon that it is missing', () => {
	for (const [loss, expected] of [[0, []], [0.01, []], [0.03, [2]]] as const) {
		const { resender, sent } = setUp(40, loss);
		resender.remember({ sequence: 1, bytes: 1000 });
		resender.remember({ sequence: 2, bytes: 1000 });
		resender.pictureSent(2);
		assert.deepEqual(sent, expected);
	}
});

/** Of all runs together; the first second is that in which the loss is not known yet. */
const played = (loss: number): { p95Ms: number; longestGapMs: number; extra: number; keyframesAsked: number } => {
	const runs = [1, 2, 3, 4, 5, 6].map((seed) => playOver({ seed, loss, delayMs: 20, packetsPerFrame: 14, seconds: 60 }));
	const latencyMs = runs.flatMap((run) => run.latencyMs.slice(16)).sort((a, b) => a - b);
	const sum = (of: (run: (typeof runs)[number]) => number): number => runs.reduce((total, run) => total + of(run), 0);
	return {
		p95Ms: latencyMs[Math.floor(latencyMs.length * 0.95)] ?? Number.NaN,
		longestGapMs: runs.reduce((most, run) => Math.max(most, run.longestGapMs), 0),
		extra: sum((run) => run.extra) / sum((run) => run.sent),
		keyframesAsked: sum((run) => run.keyframesAsked),
	};
};

test('six minutes of five percent of random loss: a frame in twenty waits for one repeat, and no picture stands for a quarter of a second', () => {
	const { p95Ms, longestGapMs, extra, keyframesAsked } = played(0.05);
	assert.ok(p95Ms <= 65, `p95 ${p95Ms} ms`);
	assert.ok(longestGapMs <= 230, `longest gap ${longestGapMs} ms`);
	assert.ok(extra <= 0.3, `${extra} more packets`);
	assert.equal(keyframesAsked, 0);
});

test('and of ten percent', () => {
	const { p95Ms, longestGapMs, extra, keyframesAsked } = played(0.1);
	assert.ok(p95Ms <= 130, `p95 ${p95Ms} ms`);
	assert.ok(longestGapMs <= 320, `longest gap ${longestGapMs} ms`);
	assert.ok(extra <= 0.45, `${extra} more packets`);
	assert.equal(keyframesAsked, 0);
});
