import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, type Clock } from '../../src/base/time.js';
import { Resender, type KeptPacket } from '../../src/transport/resend.js';

const setUp = (roundTripMs?: number, loss = 0): { resender: Resender<KeptPacket>; sent: number[]; lost: () => number; at: (nowMs: number) => void } => {
	let nowMs = 0;
	let lost = 0;
	const sent: number[] = [];
	const clock: Clock = { nowMs: () => nowMs, sleep: systemClock.sleep };
	const resender = new Resender<KeptPacket>({
		clock,
		send: (packet) => sent.push(packet.sequence),
		onLost: () => {
			lost += 1;
		},
		roundTripMs: () => roundTripMs,
		loss: () => loss,
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

test('repeats take a quarter of what is sent at most', () => {
	const { resender, sent, lost, at } = setUp();
	for (let sequence = 0; sequence < 1000; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 });
		at(sequence / 2);
		resender.request([sequence]);
	}
	assert.ok(sent.length >= 250 && sent.length <= 250 + 32, `${sent.length}`);
	assert.equal(sent.length + lost(), 1000);
});

test('where much is lost a repeat goes twice, until half of the budget is used', () => {
	const { resender, sent } = setUp(20, 0.05);
	for (let sequence = 0; sequence < 40; sequence += 1) {
		resender.remember({ sequence, bytes: 1000 });
	}
	resender.request([1]);
	assert.deepEqual(sent, [1, 1]);
	resender.request(Array.from({ length: 20 }, (_, index) => index + 10));
	assert.ok(sent.length > 22 && sent.length < 42, `${sent.length} packets`);
	assert.deepEqual([sent.at(-1), sent.at(-2)], [29, 28], 'the last ones once');
});
