/**
 * TurboDiffusion's `-quant` checkpoints: the linear layers of the blocks as 8-bit tiles (`w8a8.ts`), `X.int8_weight` and `X.scale`
 * in the place of `X.weight`; biases, norms, embeddings, the head and `proj_l` as they were.
 */
import { TurbocastError } from '../protocol/errors.js';
import { LINEAR_BRANCH } from './linear-branch.js';
import { type MappedSafetensors, readFloats, readTensor, type Safetensors, tensorEntry, type TensorEntry, type TensorToWrite } from './safetensors.js';
import { type QuantizedTiles, quantizeTiles, tilesAcross } from './w8a8.js';

const BLOCK_WEIGHT = /^blocks\.\d+\..+\.weight$/u;
const [WEIGHT, INT8_WEIGHT, SCALE] = ['.weight', '.int8_weight', '.scale'];

const replaced = (name: string, ending: string, by: string): string | undefined =>
	(name.endsWith(ending) ? `${name.slice(0, -ending.length)}${by}` : undefined);

/** Whether a `-quant` checkpoint holds this weight in tiles. */
export const isTiled = (name: string, shape: readonly number[]): boolean =>
	shape.length === 2 && BLOCK_WEIGHT.test(name) && !name.includes(LINEAR_BRANCH);

/** The two tensors that stand for the weight `name` [outputs, inputs]. */
export const tiledTensors = (name: string, weight: Float32Array, [outputs, inputs]: readonly [number, number]): { readonly [name: string]: TensorToWrite } => {
	const { values, scales } = quantizeTiles(weight, outputs, inputs);
	const at = name.slice(0, -WEIGHT.length);
	return {
		[`${at}${INT8_WEIGHT}`]: { dtype: 'I8', shape: [outputs, inputs], data: values },
		[`${at}${SCALE}`]: { dtype: 'F32', shape: [tilesAcross(outputs), tilesAcross(inputs)], data: scales },
	};
};

/** Names and shapes as they are without tiles: `X.weight` for each `X.int8_weight` and its scales. */
export const untiledShapes = (file: Pick<Safetensors, 'tensors'>): ReadonlyMap<string, readonly number[]> =>
	new Map([...file.tensors].flatMap(([name, { shape }]): [string, readonly number[]][] => {
		const int8Weight = replaced(name, SCALE, INT8_WEIGHT);
		return int8Weight !== undefined && file.tensors.has(int8Weight) ? [] : [[replaced(name, INT8_WEIGHT, WEIGHT) ?? name, shape]];
	}));

/** Where the tiles of the weight `name` and their scales lie, or `undefined` when it is no tiled one. Throws `model_invalid` for other types or shapes. */
export const tileEntries = (file: Safetensors | MappedSafetensors, name: string, shape: readonly number[]): { readonly values: TensorEntry; readonly scales: TensorEntry } | undefined => {
	const [int8Weight, scale] = [replaced(name, WEIGHT, INT8_WEIGHT), replaced(name, WEIGHT, SCALE)];
	if (int8Weight === undefined || scale === undefined || !file.tensors.has(int8Weight)) {
		return undefined;
	}
	const values = tensorEntry(file, int8Weight, shape);
	const [rows = 0, columns = 0] = shape;
	if (values.dtype !== 'I8' || shape.length !== 2) {
		throw new TurbocastError('model_invalid', `${file.label}: ${int8Weight} is ${values.dtype} [${shape.join(', ')}]; tiles are I8 matrices.`);
	}
	return { values, scales: tensorEntry(file, scale, [tilesAcross(rows), tilesAcross(columns)]) };
};

/** The tiles of the weight `name`, or `undefined` when it is no tiled one. Throws `model_invalid` for other types or shapes. */
export const readTiles = (file: Safetensors | MappedSafetensors, name: string, shape: readonly number[]): QuantizedTiles | undefined => {
	const entries = tileEntries(file, name, shape);
	if (entries === undefined) {
		return undefined;
	}
	const [rows = 0, columns = 0] = shape;
	return { values: new Int8Array(readTensor(file, entries.values).buffer), scales: readFloats(file, entries.scales), rows, columns };
};
