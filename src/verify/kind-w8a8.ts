/** `w8a8`: TurboDiffusion's 8-bit linear layer: how weights and activations become bytes, exactly, and what comes out. */
import { quantizeTiles, tilesAcross, w8a8Linear } from '../model/w8a8.js';
import { closeTo, exactly, type Verifier } from './verifier.js';

export const verifyW8a8: Verifier = async function* (folder) {
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const [rows = 0, inputs = 0] = tensors.shape('x', [undefined, undefined]);
		const [outputs = 0] = tensors.shape('weight', [undefined, inputs]);
		const x = quantizeTiles(tensors.floats('x'), rows, inputs);
		const weight = quantizeTiles(tensors.floats('weight'), outputs, inputs);
		yield {
			case: name,
			outputs: [
				exactly('int8_weight', weight.values, tensors.integers('int8_weight', [outputs, inputs])),
				exactly('scale', weight.scales, tensors.floats('scale', [tilesAcross(outputs), tilesAcross(inputs)])),
				exactly('x_int8', x.values, tensors.integers('x_int8', [rows, inputs])),
				exactly('x_scale', x.scales, tensors.floats('x_scale', [tilesAcross(rows), tilesAcross(inputs)])),
				closeTo('out', w8a8Linear(x, weight, tensors.floats('bias', [outputs])), tensors.floats('out', [rows, outputs])),
			],
		};
	}
};
