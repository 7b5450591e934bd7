/** The input channels of image-to-video networks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withImage } from '../../src/engine/image-condition.js';

test('the latent comes first, then four mask channels set at the first latent frame alone, then the picture', () => {
	const [frames, pixels] = [3, 2];
	const latent = Float32Array.from({ length: 2 * frames * pixels }, (_, index) => 10 + index);
	const image = Float32Array.from({ length: frames * pixels }, (_, index) => -1 - index);
	const mask = [1, 1, 0, 0, 0, 0];
	assert.deepEqual([...withImage(latent, image, frames, pixels)], [...latent, ...mask, ...mask, ...mask, ...mask, ...image]);
});

test('numbers that are no whole channels are refused', () => {
	assert.throws(() => withImage(new Float32Array(7), new Float32Array(6), 3, 2), /no whole channels/u);
});
