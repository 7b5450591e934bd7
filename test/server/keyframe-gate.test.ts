import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyframeGate, LEAST_KEYFRAME_INTERVAL_MS } from '../../src/server/keyframe-gate.js';

test('the first request is met at once, many at once by one, and those after it by one at the end of the interval', () => {
	const gate = new KeyframeGate();
	assert.equal(gate.isDue('h264', 0), false);
	for (let viewer = 0; viewer < 50; viewer += 1) {
		gate.request('h264');
	}
	assert.equal(gate.isDue('h264', 10), true);
	gate.produced('h264', 10);
	assert.equal(gate.isDue('h264', 1000), false, 'one was enough');
	gate.produced('h264', 1000);
	gate.request('h264');
	assert.equal(gate.isDue('h264', 1000 + LEAST_KEYFRAME_INTERVAL_MS - 1), false);
	assert.equal(gate.isDue('h264', 1000 + LEAST_KEYFRAME_INTERVAL_MS), true, 'it waits, and is not forgotten');
});

test('codecs do not share key frames', () => {
	const gate = new KeyframeGate();
	gate.request('h264');
	gate.request('vp8');
	gate.produced('h264', 0);
	assert.equal(gate.isDue('vp8', 0), true);
});
