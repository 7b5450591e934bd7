import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromFloat16, toFloat16 } from '../../src/model/float16.js';

test('every number of float16 comes back with its bits, NaN as NaN', () => {
	const bits = Uint16Array.from({ length: 65_536 }, (_, index) => index);
	const values = fromFloat16(bits);
	for (const [index, back] of toFloat16(values).entries()) {
		assert.ok(Number.isNaN(values[index]) ? (index & 0x7fff) > 0x7c00 && (back & 0x7fff) > 0x7c00 : back === index, `${index} came back as ${back}`);
	}
});

test('rounds to the nearest, ties to even, tiny ones too, and too large ones to infinity', () => {
	const cases = [[1 + 2 ** -11, 0x3c00], [1 + 3 * 2 ** -11, 0x3c02], [1 + 2 ** -11 + 2 ** -20, 0x3c01], [2 ** -25, 0], [3 * 2 ** -25, 2], [2 ** -24, 1], [65_519, 0x7bff], [65_520, 0x7c00], [-65_520, 0xfc00], [-0, 0x8000]] as const;
	assert.deepEqual([...toFloat16(Float32Array.from(cases, ([value]) => value))], cases.map(([, bits]) => bits));
});
