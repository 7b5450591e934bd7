/** Peak signal-to-noise ratio of two runs of 8-bit samples, dB; infinite when they are equal. Throws when lengths differ. */
export const psnrDb = (a: Uint8Array, b: Uint8Array): number => {
	if (a.length !== b.length || a.length === 0) {
		throw new RangeError(`PSNR needs two pictures of one size, not ${a.length} and ${b.length} samples.`);
	}
	let sum = 0;
	for (let index = 0; index < a.length; index += 1) {
		const difference = (a[index] as number) - (b[index] as number);
		sum += difference * difference;
	}
	return 10 * Math.log10((255 * 255 * a.length) / sum);
};
