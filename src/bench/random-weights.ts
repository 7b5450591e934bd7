/** A file of weights of any shapes with random numbers, for measuring networks whose weights are not here. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gaussianNoise } from '../engine/noise.js';
import type { Shapes } from '../model/checkpoint/network-tensors.js';
import { encodeHeader, type MappedSafetensors, mapSafetensors } from '../model/safetensors.js';

/** Numbers that are really drawn; what is larger repeats them, which no product of matrices is faster for. */
const DRAWN = 1 << 18;

/** Seeded normal numbers times `scale`. */
export const repeatedNoise = (count: number, scale: number, seed = 11): Float32Array => {
	const drawn = gaussianNoise({ seed, chunkIndex: 0, stepIndex: 0 }, Math.min(count, DRAWN)).map((value) => scale * value);
	const numbers = new Float32Array(count);
	for (let start = 0; start < count; start += DRAWN) {
		numbers.set(drawn.subarray(0, Math.min(DRAWN, count - start)), start);
	}
	return numbers;
};

export type RandomWeights = { readonly file: MappedSafetensors; readonly bytes: number; readonly remove: () => void };

const product = (shape: readonly number[]): number => shape.reduce((total, size) => total * size, 1);

/**
 * bfloat16, each tensor of a size that keeps activations near 1; norms are 1 and what is added to them. The caller removes the file, which lies in the
 * system's folder for temporary files.
 */
export const writeRandomWeights = (shapes: Shapes): RandomWeights => {
	const folder = mkdtempSync(join(tmpdir(), 'turbocast-bench-'));
	const path = join(folder, 'random.safetensors');
	const remove = (): void => rmSync(folder, { recursive: true, force: true });
	const file = openSync(path, 'w');
	let bytes = 0;
	try {
		const write = (data: Uint8Array): void => {
			for (let done = 0; done < data.length;) {
				done += writeSync(file, data, done);
			}
			bytes += data.length;
		};
		write(encodeHeader(Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'BF16' as const, shape }]))));
		const drawn = gaussianNoise({ seed: 11, chunkIndex: 0, stepIndex: 0 }, DRAWN);
		for (const [name, shape] of Object.entries(shapes)) {
			const [isNorm, scale] = [/norm|gamma/u.test(name), 1 / Math.sqrt(Math.max(1, product(shape.slice(1))))];
			const count = product(shape);
			const numbers = drawn.slice(0, count);
			for (let index = 0; index < numbers.length; index++) {
				numbers[index] = isNorm ? 1 + 0.1 * (numbers[index] ?? 0) : scale * (numbers[index] ?? 0);
			}
			// The upper half of a float32 is a bfloat16.
			const [bits, halves] = [new Uint32Array(numbers.buffer), new Uint16Array(numbers.length)];
			for (let index = 0; index < halves.length; index++) {
				halves[index] = (bits[index] ?? 0) >>> 16;
			}
			for (let left = count; left > 0; left -= DRAWN) {
				write(new Uint8Array(halves.buffer, 0, 2 * Math.min(left, DRAWN)));
			}
		}
	} catch (error) {
		remove();
		throw error;
	} finally {
		closeSync(file);
	}
	return { file: mapSafetensors('random.safetensors', path), bytes, remove };
};
