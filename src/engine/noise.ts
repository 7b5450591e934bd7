/**
 * Gaussian noise that is a pure function of (seed, chunk, step, element): batching, interleaved streams, a restart or a
 * resumed stream reproduce it, because nothing depends on who asked first. Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011, section 4.3) makes the bits, Box-Muller the bell.
 */

/** What names one noise tensor; all unsigned 32-bit. */
export type NoiseKey = { readonly seed: number; readonly chunkIndex: number; readonly stepIndex: number };

// Multipliers and Weyl constants of Philox4x32 (table 2 of the paper and its reference code).
const MULTIPLIER_0 = 0xd251_1f53;
const MULTIPLIER_1 = 0xcd9e_8d57;
const WEYL_0 = 0x9e37_79b9;
const WEYL_1 = 0xbb67_ae85;
const ROUNDS = 10;
/** Second word of the Philox key: keeps this use of a seed apart from any other the product may find for it. */
const DOMAIN = 0x6c61_7465;
const TWO_TO_32 = 2 ** 32;

/** The upper half of the 64-bit product of two unsigned 32-bit numbers, in pieces that a double holds exactly. */
const multiplyHigh = (a: number, b: number): number => {
	const aLow = a & 0xffff;
	const aHigh = a >>> 16;
	const bLow = b & 0xffff;
	const bHigh = b >>> 16;
	const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
	const cross = aLow * bHigh + (middle & 0xffff);
	return (aHigh * bHigh + (middle >>> 16) + (cross >>> 16)) >>> 0;
};

/** Four unsigned 32-bit words in `words` (the counter) become four random ones, in place. */
export const philox4x32 = (words: Uint32Array, key0: number, key1: number): void => {
	let c0 = words[0] ?? 0;
	let c1 = words[1] ?? 0;
	let c2 = words[2] ?? 0;
	let c3 = words[3] ?? 0;
	let k0 = key0;
	let k1 = key1;
	for (let round = 0; round < ROUNDS; round++) {
		const high0 = multiplyHigh(MULTIPLIER_0, c0);
		const low0 = Math.imul(MULTIPLIER_0, c0);
		const high1 = multiplyHigh(MULTIPLIER_1, c2);
		const low1 = Math.imul(MULTIPLIER_1, c2);
		c0 = (high1 ^ c1 ^ k0) >>> 0;
		c1 = low1 >>> 0;
		c2 = (high0 ^ c3 ^ k1) >>> 0;
		c3 = low0 >>> 0;
		k0 = (k0 + WEYL_0) >>> 0;
		k1 = (k1 + WEYL_1) >>> 0;
	}
	words[0] = c0;
	words[1] = c1;
	words[2] = c2;
	words[3] = c3;
};

/**
 * Writes the four numbers of one counter block. Uniforms lie in (0, 1], so the logarithm is finite and |z| <= 6.67.
 * `Math.log`, `cos` and `sin` are V8's own port of fdlibm, not the system's: the same bits on every machine.
 */
const gaussianBlock = (key: NoiseKey, block: number, words: Uint32Array, out: Float32Array): void => {
	words[0] = block;
	words[1] = key.stepIndex;
	words[2] = key.chunkIndex;
	words[3] = 0;
	philox4x32(words, key.seed, DOMAIN);
	for (let pair = 0; pair < 4; pair += 2) {
		const radius = Math.sqrt(-2 * Math.log(((words[pair] ?? 0) + 1) / TWO_TO_32));
		const angle = (2 * Math.PI * (words[pair + 1] ?? 0)) / TWO_TO_32;
		out[pair] = radius * Math.cos(angle);
		out[pair + 1] = radius * Math.sin(angle);
	}
};

/** The first `count` elements of the tensor that `key` names: independent, mean 0, variance 1. */
export const gaussianNoise = (key: NoiseKey, count: number): Float32Array => {
	const noise = new Float32Array(count);
	const words = new Uint32Array(4);
	const four = new Float32Array(4);
	for (let first = 0; first < count; first += 4) {
		gaussianBlock(key, first >>> 2, words, four);
		noise.set(count - first >= 4 ? four : four.subarray(0, count - first), first);
	}
	return noise;
};

/** One element alone: `gaussianNoise(key, n)[element]` for any `n` above it. */
export const gaussianAt = (key: NoiseKey, element: number): number => {
	const four = new Float32Array(4);
	gaussianBlock(key, element >>> 2, new Uint32Array(4), four);
	return four[element & 3] ?? 0;
};
