import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rtpDifference, systemClock } from '../../src/base/time.js';

test('RTP timestamps compare across their wrap, in both directions', () => {
	assert.equal(rtpDifference(5, 3), 2);
	assert.equal(rtpDifference(3, 5), -2);
	assert.equal(rtpDifference(1, 0xffff_ffff), 2);
	assert.equal(rtpDifference(0xffff_ffff, 1), -2);
	assert.equal(rtpDifference(0x8000_0000, 0), -0x8000_0000);
	assert.equal(rtpDifference(0x7fff_ffff, 0), 0x7fff_ffff);
});

test('the clock never goes back', () => {
	const before = systemClock.nowMs();
	assert.ok(systemClock.nowMs() >= before);
});

test('a sleep ends with the reason of its signal, whether it aborts before or during', async () => {
	const reason = new Error('enough');
	await assert.rejects(systemClock.sleep(60_000, AbortSignal.abort(reason)), reason);
	const controller = new AbortController();
	const sleeping = systemClock.sleep(60_000, controller.signal);
	controller.abort(reason);
	await assert.rejects(sleeping, reason);
});

test('a sleep that ran its time, or a negative one, resolves', async () => {
	await systemClock.sleep(-5);
	await systemClock.sleep(1, new AbortController().signal);
});
