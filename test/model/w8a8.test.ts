/** 8-bit tiles and bfloat16, where rounding has to be exact. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { roundToBfloat16 } from '../../src/model/bfloat16.js';
import { dequantizeTiles, quantizeTiles, roundTiesToEven, w8a8Linear } from '../../src/model/w8a8.js';
import { relativeError } from './closeness.js';
import { randomNormals } from './random-model.js';

test('bfloat16 keeps 8 bits, rounds to nearest and ties to even', () => {
	assert.deepEqual([987.65, 933.78, 852.9, 608.98, 995.02].map(roundToBfloat16), [988, 932, 852, 608, 996]);
	// Halfway between 256 and 258, and between 258 and 260.
	assert.deepEqual([257, 259, -257, -259].map(roundToBfloat16), [256, 260, -256, -260]);
	assert.deepEqual([0, -0, Infinity, -Infinity].map(roundToBfloat16), [0, -0, Infinity, -Infinity]);
	assert.ok(Number.isNaN(roundToBfloat16(Number.NaN)));
	assert.equal(roundToBfloat16(3.4e38), Infinity);
});

test('whole numbers come from ties to even', () => {
	assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1.4999, -1.5001].map(roundTiesToEven).map((value) => value + 0), [0, 2, 2, 0, -2, -2, 1, -2]);
});

test('the positive end of a tile saturates at 127, the negative end reaches -128', () => {
	const { values, scales } = quantizeTiles(Float32Array.of(2, -2, 1, 0.0234375, 0), 1, 5);
	// 1 is 64 steps of 2 / 128; 0.0234375 is 1.5 steps, a tie.
	assert.deepEqual([...values], [127, -128, 64, 2, 0]);
	assert.deepEqual([...scales], [2 / 128]);
});

test('every tile has its own scale, tails included, and a tile of zeros has a finite one', () => {
	const [rows, columns] = [130, 140];
	const x = new Float32Array(rows * columns);
	x[0] = 1;
	x[139] = -4; // first row, second tile
	x[129 * columns] = 8; // second row of tiles
	const { values, scales } = quantizeTiles(x, rows, columns);
	assert.deepEqual([...scales].slice(0, 3), [1 / 128, 4 / 128, 8 / 128]);
	assert.equal(scales[3], Math.fround(Math.fround(1e-8) / 128));
	assert.deepEqual([values[0], values[139], values[129 * columns]], [127, -128, 127]);
});

test('numbers that are not finite cannot become bytes', () => {
	assert.throws(() => quantizeTiles(Float32Array.of(1, Number.NaN), 1, 2), /not finite/u);
});

test('the layer is x W^T + bias to what 8 bits allow, with tails everywhere', () => {
	const [rows, inputs, outputs] = [131, 150, 141];
	const [x, weight, bias] = [randomNormals(rows * inputs, 1), randomNormals(outputs * inputs, 2), randomNormals(outputs, 3).map(roundToBfloat16)];
	const [qx, qw] = [quantizeTiles(x, rows, inputs), quantizeTiles(weight, outputs, inputs)];
	assert.ok(relativeError(dequantizeTiles(qx), x) < 1e-2);
	const exact = (a: Float32Array, b: Float32Array): Float32Array => Float32Array.from({ length: rows * outputs }, (_, index) => {
		const [row, output] = [Math.floor(index / outputs), index % outputs];
		let total = bias[output] ?? Number.NaN;
		for (let input = 0; input < inputs; input++) {
			total += (a[row * inputs + input] ?? Number.NaN) * (b[output * inputs + input] ?? Number.NaN);
		}
		return total;
	});
	const y = w8a8Linear(qx, qw, bias);
	assert.ok(relativeError(y, exact(dequantizeTiles(qx), dequantizeTiles(qw))) < 4e-3, 'nothing but bfloat16 is lost after the tiles');
	assert.ok(relativeError(y, exact(x, weight)) < 3e-2);
});

test('the bias is added after the sum became bfloat16', () => {
	const [x, weight] = [quantizeTiles(Float32Array.of(-1), 1, 1), quantizeTiles(Float32Array.of(-1.01171875), 1, 1)];
	// The product 1.01171875 is a tie between 1.0078125 and 1.015625 and becomes the latter; with the bias added before it would be 1.0117.. - 1.
	const [sum] = w8a8Linear(x, weight, Float32Array.of(-1));
	assert.equal(sum, 0.015625);
});

test('sizes that do not fit are refused', () => {
	assert.throws(() => w8a8Linear(quantizeTiles(new Float32Array(4), 2, 2), quantizeTiles(new Float32Array(3), 1, 3), undefined), /do not fit/u);
});
