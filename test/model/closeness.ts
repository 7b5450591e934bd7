/** Tolerances that NaN never passes. */
import assert from 'node:assert/strict';

/** ‖actual - expected‖ / ‖expected‖; NaN when anything is not a number. */
export const relativeError = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
	if (actual.length !== expected.length) {
		return Number.NaN;
	}
	let [difference, size] = [0, 0];
	for (let index = 0; index < expected.length; index++) {
		difference += ((actual[index] ?? Number.NaN) - (expected[index] ?? Number.NaN)) ** 2;
		size += (expected[index] ?? Number.NaN) ** 2;
	}
	return Math.sqrt(difference / size);
};

export const assertClose = (actual: ArrayLike<number> | undefined, expected: ArrayLike<number> | undefined, tolerance: number, what: string): void => {
	const error = relativeError(actual ?? [Number.NaN], expected ?? [Number.NaN]);
	assert.ok(error <= tolerance, `${what}: relative error ${error} is not at most ${tolerance}`);
};

/** Like `assertClose`, for values that may be near zero: the largest difference. */
export const assertWithin = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void => {
	assert.equal(actual.length, expected.length, what);
	for (let index = 0; index < expected.length; index++) {
		const difference = Math.abs((actual[index] ?? Number.NaN) - (expected[index] ?? Number.NaN));
		assert.ok(difference <= tolerance, `${what}: element ${index} is ${actual[index]}, not ${expected[index]}`);
	}
};
