/** Weights of any size without their numbers: names and shapes are true, every number that is asked for is zero, and large ones may not be. */
import type { Shapes } from './checkpoint/network-tensors.js';
import { tensorBytes, type TensorEntry } from './safetensors.js';
import { Weights } from './weights.js';

/** What graphs read rather than refer to: modulation tables, kernels that are cut up. */
const LONGEST_READ_BYTES = 64 * 1024 * 1024;

export const headerOnlyWeights = (shapes: Shapes): Weights => {
	const tensors = new Map(Object.entries(shapes).map(([name, shape]): [string, TensorEntry] => {
		const byteLength = tensorBytes({ dtype: 'F32', shape });
		return [name, { name, dtype: 'F32', shape, offset: 0, byteLength }];
	}));
	return new Weights({ label: 'header-only.safetensors', bytes: new Uint8Array(LONGEST_READ_BYTES), tensors });
};
