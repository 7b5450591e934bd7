/** Sinusoids of the timesteps (Wan 2.1): cosines first, base 10000, float64 until the last moment. */

const BASE = 10_000;

/** [timesteps, frequencies]; `frequencies` is even. */
export const timeSinusoids = (timesteps: readonly number[], frequencies: number): Float32Array => {
	const half = frequencies / 2;
	const table = new Float32Array(timesteps.length * frequencies);
	for (const [row, timestep] of timesteps.entries()) {
		for (let index = 0; index < half; index++) {
			const angle = timestep * BASE ** (-index / half);
			table[row * frequencies + index] = Math.cos(angle);
			table[row * frequencies + half + index] = Math.sin(angle);
		}
	}
	return table;
};
