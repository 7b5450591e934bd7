/** IEEE 754 binary16, the numbers that graphics cards multiply fastest: bits in a Uint16Array, since JavaScript of this age has no such array. */

const scratch = new DataView(new ArrayBuffer(4));

/** Rounds to nearest, ties to even; beyond 65504 to infinity. NaN stays NaN. */
const encode = (value: number): number => {
	scratch.setFloat32(0, value);
	const bits = scratch.getUint32(0);
	const sign = (bits >>> 16) & 0x8000;
	const magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000) {
		return sign | 0x7e00;
	}
	// 65520, half a step above the largest number.
	if (magnitude >= 0x477ff000) {
		return sign | 0x7c00;
	}
	// Below 2^-14 steps are 2^-24 wide: the product is exact, and so is the rounding.
	if (magnitude < 0x38800000) {
		const steps = Math.abs(Math.fround(value)) * 2 ** 24;
		const whole = Math.floor(steps);
		const rest = steps - whole;
		return sign | (whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0));
	}
	const half = (magnitude - 0x38000000) >>> 13;
	const rest = magnitude & 0x1fff;
	return sign | (half + (rest > 0x1000 || (rest === 0x1000 && half % 2 === 1) ? 1 : 0));
};

const decode = (bits: number): number => {
	const sign = (bits & 0x8000) === 0 ? 1 : -1;
	const exponent = (bits >>> 10) & 0x1f;
	const fraction = bits & 0x3ff;
	if (exponent === 0x1f) {
		return fraction === 0 ? sign * Infinity : Number.NaN;
	}
	return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
};

export const toFloat16 = (values: Float32Array): Uint16Array => Uint16Array.from(values, encode);

export const fromFloat16 = (bits: Uint16Array): Float32Array => Float32Array.from(bits, decode);
