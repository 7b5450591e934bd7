import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Countdown } from '../../src/server/countdown.js';
import { SteppedClock } from './stepped-clock.js';

const newCountdown = () => {
	const clock = new SteppedClock();
	const heard: string[] = [];
	const countdown = new Countdown(clock, {
		onWarning: (left) => heard.push(`${clock.nowMs()}: ${left ?? 'taken back'}`),
		onElapsed: () => heard.push(`${clock.nowMs()}: end`),
	});
	return { clock, heard, countdown };
};

test('warns when 60, 30 and 10 seconds are left, then ends', async () => {
	const { clock, heard, countdown } = newCountdown();
	countdown.start(100_000);
	await clock.advanceTo(39_999);
	assert.deepEqual(heard, []);
	assert.equal(countdown.leftMs, 60_001);
	await clock.advanceTo(200_000);
	assert.deepEqual(heard, ['40000: 60', '70000: 30', '90000: 10', '100000: end']);
	assert.equal(countdown.leftMs, undefined);
	countdown.stop();
	assert.equal(heard.length, 4, 'what has ended has nothing to take back');
});

test('a short countdown gives only the warnings that it has time for', async () => {
	const { clock, heard, countdown } = newCountdown();
	countdown.start(30_000);
	await clock.advanceTo(30_000);
	assert.deepEqual(heard, ['0: 30', '20000: 10', '30000: end']);
	countdown.start(500);
	await clock.advanceTo(30_500);
	assert.equal(heard.at(-1), '30500: end');
});

test('stopping takes a warning back, and only one that was given; starting again begins anew', async () => {
	const { clock, heard, countdown } = newCountdown();
	countdown.start(100_000);
	await clock.advanceTo(10_000);
	countdown.stop();
	await clock.advanceTo(50_000);
	assert.deepEqual(heard, []);
	countdown.start(61_000);
	await clock.advanceTo(51_000);
	countdown.start(100_000);
	countdown.stop();
	await clock.advanceTo(1_000_000);
	assert.deepEqual(heard, ['51000: 60', '51000: taken back']);
});
