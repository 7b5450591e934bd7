/** Symmetric 8-bit quantisation of weights, one scale for each output. */

const MAX_INT8 = 127;

/**
 * `weight` [outputs, inputs] (a convolution's kernel counts as inputs) is about `values * scales[output]`. Plain indexed loops:
 * iterators made loading a model five times slower, and Math.max and Math.round for each number four times.
 */
export const quantizeColumns = (weight: Float32Array, outputs: number, inputs: number): { values: Int8Array; scales: Float32Array } => {
	const values = new Int8Array(weight.length);
	const scales = new Float32Array(outputs);
	for (let output = 0; output < outputs; output++) {
		const start = output * inputs;
		const end = start + inputs;
		let largest = 0;
		for (let index = start; index < end; index++) {
			const magnitude = Math.abs(weight[index] ?? 0);
			// What is not a number must not be lost: it makes the scale one that is none.
			if (magnitude > largest || Number.isNaN(magnitude)) {
				largest = magnitude;
			}
		}
		// A row of zeros has any scale; 1 keeps it finite.
		const scale = largest === 0 ? 1 : Math.fround(largest / MAX_INT8);
		scales[output] = scale;
		for (let index = start; index < end; index++) {
			// From -127 to 127, whatever the scale was rounded to.
			values[index] = Math.floor((weight[index] ?? 0) / scale + 0.5);
		}
	}
	return { values, scales };
};
