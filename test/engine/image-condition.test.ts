/** The input channels of image-to-video networks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imageCondition } from '../../src/engine/image-condition.js';

test('four mask channels set at the first latent frame alone come first, then the picture', () => {
	const [frames, pixels] = [3, 2];
	const image = Float32Array.from({ length: frames * pixels }, (_, index) => -1 - index);
	const mask = [1, 1, 0, 0, 0, 0];
	assert.deepEqual([...imageCondition(image, frames, pixels)], [...mask, ...mask, ...mask, ...mask, ...image]);
});

test('numbers that are no whole channels are refused', () => {
	assert.throws(() => imageCondition(new Float32Array(7), 3, 2), /no whole channels/u);
});
