import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateLimit } from '../../src/server/rate-limit.js';

test('allows a burst of the whole limit, then says how long until the next', () => {
	const limit = new RateLimit(3, 1000, 0);
	assert.deepEqual([limit.take(0), limit.take(0), limit.take(0)], [0, 0, 0]);
	assert.equal(limit.take(0), 334);
	assert.equal(limit.take(333), 1);
	assert.equal(limit.take(334), 0);
	assert.ok(limit.take(334) > 0);
});

test('never saves up more than one interval', () => {
	const limit = new RateLimit(2, 1000, 0);
	assert.deepEqual([limit.take(60_000), limit.take(60_000)], [0, 0]);
	assert.ok(limit.take(60_000) > 0);
});

test('holds the rate over a long time', () => {
	const limit = new RateLimit(10, 1000, 0);
	let taken = 0;
	for (let nowMs = 0; nowMs < 100_000; nowMs += 7) {
		taken += limit.take(nowMs) === 0 ? 1 : 0;
	}
	assert.ok(taken >= 1000 && taken <= 1011, `${taken} of 1000`);
});
