import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertClose, assertWithin, relativeError } from './closeness.js';

test('NaN passes no tolerance, on either side', () => {
	for (const [actual, expected] of [[[1, Number.NaN], [1, 2]], [[1, 2], [1, Number.NaN]], [[Number.NaN], [Number.NaN]]] as const) {
		assert.throws(() => assertClose(actual, expected, Infinity, 'x'));
		assert.throws(() => assertWithin(actual, expected, Infinity, 'x'));
	}
});

test('tensors of different lengths are never close', () => {
	assert.throws(() => assertClose([1, 2], [1], 1, 'x'));
	assert.throws(() => assertWithin([1], [1, 2], 1, 'x'));
});

test('the relative error is the length of the difference over the length of what was expected', () => {
	assert.equal(relativeError([3, 4.5], [3, 4]), 0.1);
});
