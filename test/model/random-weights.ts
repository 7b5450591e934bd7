/** Weights of any network by its list of tensors: seeded, and of a size that keeps activations near 1. */
import type { Shapes } from '../../src/model/checkpoint/network-tensors.js';
import { encodeSafetensors, parseSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import { Weights } from '../../src/model/weights.js';
import { randomNormals } from './random-model.js';

export const randomTensors = (shapes: Shapes, seed: number): { [name: string]: TensorToWrite & { readonly data: Float32Array } } =>
	Object.fromEntries(Object.entries(shapes).map(([name, shape], index) => {
		const count = shape.reduce((product, size) => product * size, 1);
		const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
		const data = /gamma$|norm.*weight$/u.test(name)
			? randomNormals(count, seed + index, 0.1).map((value) => 1 + value)
			: randomNormals(count, seed + index, shape.length === 1 ? 0.1 : 1 / Math.sqrt(fanIn));
		return [name, { dtype: 'F32' as const, shape, data }];
	}));

export const randomWeights = (shapes: Shapes, seed: number): Weights =>
	new Weights(parseSafetensors('random.safetensors', encodeSafetensors(randomTensors(shapes, seed))));
