/** Symmetric 8-bit quantisation of weights, one scale for each output. */

const MAX_INT8 = 127;

/** `weight` [outputs, inputs] (a convolution's kernel counts as inputs) is about `values * scales[output]`. */
export const quantizeColumns = (weight: Float32Array, outputs: number, inputs: number): { values: Int8Array; scales: Float32Array } => {
	const values = new Int8Array(weight.length);
	const scales = new Float32Array(outputs);
	for (let output = 0; output < outputs; output++) {
		const row = weight.subarray(output * inputs, (output + 1) * inputs);
		const largest = row.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
		// A row of zeros has any scale; 1 keeps it finite.
		const scale = largest === 0 ? 1 : Math.fround(largest / MAX_INT8);
		scales[output] = scale;
		for (const [index, value] of row.entries()) {
			values[output * inputs + index] = Math.max(-MAX_INT8, Math.min(MAX_INT8, Math.round(value / scale)));
		}
	}
	return { values, scales };
};
