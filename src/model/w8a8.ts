/**
 * TurboDiffusion's 8-bit linear layer (W8A8), to the bit: weights and activations in tiles of 128 x 128, symmetric, one float32
 * scale a tile. Not the int8 of the cpu-int8 profile (`linear-layers.ts`), whose scales are those that fast kernels take: this
 * reads and makes the weights of `-quant` checkpoints and says what their layers give.
 */
import { TurbocastError } from '../protocol/errors.js';
import { roundToBfloat16 } from './bfloat16.js';

export const TILE = 128;

/** Keeps the scale of a tile of zeros finite. */
const SMALLEST_RANGE = 1e-8;
const [MIN_INT8, MAX_INT8] = [-128, 127];
/** What a tile's largest magnitude is scaled to; that it equals the side of a tile is chance. */
const FULL_SCALE = 128;

export type QuantizedTiles = {
	/** [rows, columns] */
	readonly values: Int8Array;
	/** [ceil(rows / 128), ceil(columns / 128)] */
	readonly scales: Float32Array;
	readonly rows: number;
	readonly columns: number;
};

/** To the nearest whole number, ties to the even one, as the hardware's conversion does. */
export const roundTiesToEven = (value: number): number => {
	const floor = Math.floor(value);
	const above = value - floor;
	if (above !== 0.5) {
		return above < 0.5 ? floor : floor + 1;
	}
	return floor % 2 === 0 ? floor : floor + 1;
};

export const tilesAcross = (size: number): number => Math.ceil(size / TILE);

/** A tile's largest magnitude becomes 128: the positive end saturates at 127, the negative one reaches -128. */
export const quantizeTiles = (x: Float32Array, rows: number, columns: number): QuantizedTiles => {
	const across = tilesAcross(columns);
	const values = new Int8Array(rows * columns);
	const scales = new Float32Array(tilesAcross(rows) * across);
	for (let top = 0; top < rows; top += TILE) {
		const bottom = Math.min(rows, top + TILE);
		for (let left = 0; left < columns; left += TILE) {
			const right = Math.min(columns, left + TILE);
			let largest = SMALLEST_RANGE;
			for (let row = top; row < bottom; row++) {
				for (let column = left; column < right; column++) {
					largest = Math.max(largest, Math.abs(x[row * columns + column] ?? Number.NaN));
				}
			}
			if (!Number.isFinite(largest)) {
				throw new TurbocastError('model_invalid', `The tile at row ${top}, column ${left} has elements that are not finite; 8 bits cannot hold it.`);
			}
			const factor = Math.fround(FULL_SCALE / Math.fround(largest));
			scales[(top / TILE) * across + left / TILE] = Math.fround(largest) / FULL_SCALE;
			for (let row = top; row < bottom; row++) {
				for (let column = left; column < right; column++) {
					const scaled = roundTiesToEven(Math.fround((x[row * columns + column] ?? Number.NaN) * factor));
					values[row * columns + column] = Math.max(MIN_INT8, Math.min(MAX_INT8, scaled));
				}
			}
		}
	}
	return { values, scales, rows, columns };
};

/** The float32 numbers that the tiles stand for. */
export const dequantizeTiles = ({ values, scales, rows, columns }: QuantizedTiles): Float32Array => {
	const across = tilesAcross(columns);
	const x = new Float32Array(rows * columns);
	for (let row = 0; row < rows; row++) {
		for (let column = 0; column < columns; column++) {
			const index = row * columns + column;
			x[index] = (values[index] ?? Number.NaN) * (scales[Math.floor(row / TILE) * across + Math.floor(column / TILE)] ?? Number.NaN);
		}
	}
	return x;
};

/**
 * x W^T + bias: x [m, k] and weight [n, k] in tiles, bias [n] in bfloat16. Whole-number products of 128 channels are scaled and
 * added up in float32; the sum becomes bfloat16 once, and the bias is added after that, in bfloat16. Returns [m, n].
 */
export const w8a8Linear = (x: QuantizedTiles, weight: QuantizedTiles, bias: Float32Array | undefined): Float32Array => {
	const { rows, columns: inputs } = x;
	const outputs = weight.rows;
	if (weight.columns !== inputs || (bias !== undefined && bias.length !== outputs)) {
		throw new TurbocastError('model_invalid', `An input [${rows}, ${inputs}], a weight [${outputs}, ${weight.columns}] and a bias [${bias?.length ?? outputs}] do not fit.`);
	}
	const across = tilesAcross(inputs);
	const y = new Float32Array(rows * outputs);
	for (let row = 0; row < rows; row++) {
		for (let output = 0; output < outputs; output++) {
			let total = 0;
			for (let tile = 0; tile < across; tile++) {
				let dot = 0;
				for (let input = tile * TILE, end = Math.min(inputs, input + TILE); input < end; input++) {
					dot += (x.values[row * inputs + input] ?? Number.NaN) * (weight.values[output * inputs + input] ?? Number.NaN);
				}
				const scale = Math.fround((x.scales[Math.floor(row / TILE) * across + tile] ?? Number.NaN) * (weight.scales[Math.floor(output / TILE) * across + tile] ?? Number.NaN));
				total = Math.fround(total + Math.fround(dot * scale));
			}
			const product = roundToBfloat16(total);
			y[row * outputs + output] = bias === undefined ? product : roundToBfloat16(product + (bias[output] ?? Number.NaN));
		}
	}
	return y;
};
