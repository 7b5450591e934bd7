/** Symmetric 8-bit quantisation of weights, one scale for each output. */

const MAX_INT8 = 127;

/**
 * `weight` [outputs, inputs] (a convolution's kernel counts as inputs) is about `values * scales[output]`. Plain indexed loops:
 * iterators made loading a model five times slower.
 */
export const quantizeColumns = (weight: Float32Array, outputs: number, inputs: number): { values: Int8Array; scales: Float32Array } => {
	const values = new Int8Array(weight.length);
	const scales = new Float32Array(outputs);
	for (let output = 0; output < outputs; output++) {
		const start = output * inputs;
		const end = start + inputs;
		let largest = 0;
		for (let index = start; index < end; index++) {
			largest = Math.max(largest, Math.abs(weight[index] ?? 0));
		}
		// A row of zeros has any scale; 1 keeps it finite.
		const scale = largest === 0 ? 1 : Math.fround(largest / MAX_INT8);
		scales[output] = scale;
		for (let index = start; index < end; index++) {
			values[index] = Math.max(-MAX_INT8, Math.min(MAX_INT8, Math.round((weight[index] ?? 0) / scale)));
		}
	}
	return { values, scales };
};
