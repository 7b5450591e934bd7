/** Tensors as PyTorch stores them: a view of a storage by offset and strides, which may be transposed or a slice of something larger. */
import { damaged, type ByteSource } from './byte-source.js';
import { PIECE_BYTES } from './tensor-store.js';

export type StridedView = {
	readonly name: string;
	readonly shape: readonly number[];
	/** In elements. */
	readonly strides: readonly number[];
	/** Bytes of an element. */
	readonly elementBytes: number;
	/** Of the first element, from the start of the file, bytes. */
	readonly start: () => Promise<number>;
};

/** A view that is not dense is gathered in memory; larger ones do not occur in checkpoints. */
const MAX_GATHERED_BYTES = 1024 * 1024 * 1024;

export const isDense = (shape: readonly number[], strides: readonly number[]): boolean => {
	let expected = 1;
	for (let axis = shape.length - 1; axis >= 0; axis--) {
		if (shape[axis] !== 1 && strides[axis] !== expected) {
			return false;
		}
		expected *= shape[axis] ?? 0;
	}
	return true;
};

/** Elements from the first to the last that the view touches; 0 for an empty one. */
export const spanOf = (shape: readonly number[], strides: readonly number[]): number =>
	shape.includes(0) ? 0 : shape.reduce((last, size, axis) => last + (size - 1) * (strides[axis] ?? 0), 1);

const gather = (source: ByteSource, view: StridedView, storage: Uint8Array): Uint8Array => {
	const { shape, strides, elementBytes } = view;
	const count = shape.reduce((product, size) => product * size, 1);
	if (count * elementBytes > MAX_GATHERED_BYTES) {
		return damaged(source.label, `${view.name} is ${count} numbers made of ${storage.length} bytes`);
	}
	const gathered = new Uint8Array(count * elementBytes);
	const index = shape.map(() => 0);
	let from = 0;
	for (let element = 0; element < count; element++) {
		for (let byte = 0; byte < elementBytes; byte++) {
			gathered[element * elementBytes + byte] = storage[from * elementBytes + byte] ?? 0;
		}
		for (let axis = shape.length - 1; axis >= 0; axis--) {
			const next = (index[axis] ?? 0) + 1;
			from += strides[axis] ?? 0;
			if (next < (shape[axis] ?? 0)) {
				index[axis] = next;
				break;
			}
			index[axis] = 0;
			from -= next * (strides[axis] ?? 0);
		}
	}
	return gathered;
};

/** The numbers of a view, row-major, in pieces. */
export const readStrided = async function* (source: ByteSource, view: StridedView): AsyncGenerator<Uint8Array> {
	const start = await view.start();
	const bytes = spanOf(view.shape, view.strides) * view.elementBytes;
	if (isDense(view.shape, view.strides)) {
		for (let offset = 0; offset < bytes; offset += PIECE_BYTES) {
			yield await source.read(start + offset, Math.min(PIECE_BYTES, bytes - offset));
		}
		return;
	}
	if (bytes > MAX_GATHERED_BYTES) {
		damaged(source.label, `${view.name} is scattered over ${bytes} bytes`);
	}
	yield gather(source, view, await source.read(start, bytes));
};
