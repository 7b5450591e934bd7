/** Rounding to bfloat16, the upper half of a float32: to nearest, ties to even. */

const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** The bfloat16 number nearest to the float32 number nearest to `value`. */
export const roundToBfloat16 = (value: number): number => {
	floats[0] = value;
	const word = words[0] ?? 0;
	if (!Number.isFinite(value)) {
		return value;
	}
	// Adding just under half of the last kept bit, and one more when that bit is odd.
	words[0] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
	return floats[0] ?? Number.NaN;
};
