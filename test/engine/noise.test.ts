import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gaussianAt, gaussianNoise, philox4x32 } from '../../src/engine/noise.js';

const philox = (counter: readonly number[], key0: number, key1: number): number[] => {
	const words = Uint32Array.from(counter);
	philox4x32(words, key0, key1);
	return [...words];
};

test('the bits are those of Philox4x32-10 (known answers of Random123)', () => {
	assert.deepEqual(philox([0, 0, 0, 0], 0, 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
	const ones = 0xffffffff;
	assert.deepEqual(philox([ones, ones, ones, ones], ones, ones), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
	assert.deepEqual(
		philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0xa4093822, 0x299f31d0),
		[0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
	);
});

// Computed by a second implementation (big integers and libm, in Python).
test('golden values: noise never changes between releases', () => {
	const close = (actual: Float32Array, expected: readonly number[]): void => {
		assert.equal(actual.length, expected.length);
		for (const [index, value] of expected.entries()) {
			assert.ok(Math.abs((actual[index] ?? Number.NaN) - value) <= 1e-7, `element ${index}: ${actual[index]} is not ${value}`);
		}
	};
	close(
		gaussianNoise({ seed: 7, chunkIndex: 3, stepIndex: 1 }, 6),
		[-0.11153819411993027, -0.12942463159561157, -0.15422815084457397, 1.125040054321289, 1.1669152975082397, -0.8226635456085205],
	);
	close(gaussianNoise({ seed: 0xffffffff, chunkIndex: 1_000_000, stepIndex: 3 }, 2), [-0.6060889363288879, -0.6996588706970215]);
});

test('any element can be computed alone, whatever the length of the tensor', () => {
	const key = { seed: 1, chunkIndex: 2, stepIndex: 3 };
	const noise = gaussianNoise(key, 103);
	for (const [element, value] of noise.entries()) {
		assert.equal(gaussianAt(key, element), value);
	}
	assert.deepEqual(gaussianNoise(key, 50), noise.subarray(0, 50));
});

test('seed, chunk, step and element each give other numbers', () => {
	const key = { seed: 5, chunkIndex: 5, stepIndex: 5 };
	const tensors = [key, { ...key, seed: 6 }, { ...key, chunkIndex: 6 }, { ...key, stepIndex: 6 }, { seed: 5, chunkIndex: 4, stepIndex: 6 }];
	assert.equal(new Set(tensors.map((each) => gaussianAt(each, 0))).size, tensors.length);
	assert.equal(new Set(gaussianNoise(key, 4096)).size, 4096);
});

test('mean 0, variance 1, tails of a Gaussian, and no number that is not finite', () => {
	const noise = gaussianNoise({ seed: 42, chunkIndex: 0, stepIndex: 0 }, 200_000);
	assert.ok(noise.every(Number.isFinite));
	const mean = noise.reduce((sum, value) => sum + value, 0) / noise.length;
	const variance = noise.reduce((sum, value) => sum + (value - mean) ** 2, 0) / noise.length;
	const beyond2 = noise.filter((value) => Math.abs(value) > 2).length / noise.length;
	const neighbours = noise.reduce((sum, value, index) => sum + value * (noise[index + 1] ?? 0), 0) / noise.length;
	// Five standard errors of each statistic at this sample size.
	assert.ok(Math.abs(mean) < 0.0112, `mean ${mean}`);
	assert.ok(Math.abs(variance - 1) < 0.0158, `variance ${variance}`);
	assert.ok(Math.abs(beyond2 - 0.0455) < 0.0023, `beyond two sigmas ${beyond2}`);
	assert.ok(Math.abs(neighbours) < 0.0112, `correlation of neighbours ${neighbours}`);
});
