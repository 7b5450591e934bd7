/** A checkpoint as the importer sees it: names, types and shapes at once; numbers only when they are asked for, piece by piece. */
import type { Dtype } from '../safetensors.js';

export type StoredTensorInfo = {
	readonly dtype: Dtype;
	readonly shape: readonly number[];
	/** The numbers, row-major, in pieces of a few MB. Throws `weights_corrupt`. */
	readonly read: () => AsyncIterable<Uint8Array>;
};

export type TensorStore = {
	/** How messages call the file, or the first of several. */
	readonly label: string;
	readonly tensors: ReadonlyMap<string, StoredTensorInfo>;
	/** Which of several dicts of a file was taken, such as `generator_ema`. */
	readonly root?: string | undefined;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

/** Bytes of a piece. */
export const PIECE_BYTES = 4 * 1024 * 1024;

/** Elements of a shape; NaN when that is not a number that can be counted with. */
export const countOf = (shape: readonly number[]): number => {
	const count = shape.reduce((product, size) => product * size, 1);
	return shape.every((size) => Number.isSafeInteger(size) && size >= 0) && Number.isSafeInteger(count) ? count : Number.NaN;
};
