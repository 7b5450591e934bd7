import assert from 'node:assert/strict';
import { test } from 'node:test';
import { restartDelayMs, RESTART_POLICY } from '../../src/engine/restart-policy.js';

const POLICY = { maxCrashes: 4, withinMs: 1000, firstDelayMs: 10, maxDelayMs: 35 };

test('the first restart comes at once, further ones in ever longer bounded intervals', () => {
	assert.equal(restartDelayMs([0], 0, POLICY), 10);
	assert.equal(restartDelayMs([0, 1], 1, POLICY), 20);
	assert.equal(restartDelayMs([0, 1, 2], 2, POLICY), 35);
});

test('too many crashes within the time and the engine is given up', () => {
	assert.equal(restartDelayMs([0, 1, 2, 999], 999, POLICY), undefined);
});

test('crashes of long ago are forgiven', () => {
	assert.equal(restartDelayMs([0, 1, 2, 1500], 1500, POLICY), 10);
});

test('the shipped policy gives a person watching the first restart within a tenth of a second', () => {
	assert.ok((restartDelayMs([0], 0) ?? Infinity) <= 100);
	assert.equal(restartDelayMs(Array.from({ length: RESTART_POLICY.maxCrashes }, () => 0), 0), undefined);
});
