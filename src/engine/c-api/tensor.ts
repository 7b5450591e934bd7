/** Tensors that the library holds, on a device or, with the CPU provider, in memory of its own. */
import { addressOf, copyBytes, type Pointer } from '../../base/foreign.js';
import { ELEMENT_BYTES, ELEMENT_TYPES } from '../../model/onnx-proto.js';
import { TurbocastError } from '../../protocol/errors.js';
import type { ResidentTensor, Tensor, TensorType } from '../backend.js';
import type { OrtLibrary } from './library.js';

const TYPES = new Map<number, TensorType>(Object.entries(ELEMENT_TYPES).filter(([type]) => type !== 'bfloat16').map(([type, code]) => [code, type as TensorType]));

const product = (dims: readonly number[]): number => dims.reduce((total, size) => total * size, 1);

export const tensorBytes = ({ type, dims }: { readonly type: TensorType; readonly dims: readonly number[] }): number => ELEMENT_BYTES[type] * product(dims);

const shapeOf = (dims: readonly number[]): BigInt64Array => BigInt64Array.from(dims, BigInt);

/** An OrtValue over memory that somebody else keeps. Released by the caller. */
export const borrowedValue = (library: OrtLibrary, memory: Pointer, data: Pointer, face: { readonly type: TensorType; readonly dims: readonly number[] }): Pointer =>
	library.make('Value', 'CreateTensorWithDataAsOrtValue', memory, data, tensorBytes(face), shapeOf(face.dims), face.dims.length, ELEMENT_TYPES[face.type]);

/** The same over an array of ours, which must live and stay as it is for as long. */
export const hostValue = (library: OrtLibrary, memory: Pointer, tensor: Tensor): Pointer => borrowedValue(library, memory, addressOf(tensor.data), tensor);

/** Type and dimensions of an OrtValue. */
export const faceOf = (library: OrtLibrary, value: Pointer): { readonly type: TensorType; readonly dims: readonly number[] } => {
	const info = library.make('TensorTypeAndShapeInfo', 'GetTensorTypeAndShape', value);
	try {
		const dims = new BigInt64Array(library.number('GetDimensionsCount', info));
		library.call('GetDimensions', info, dims, dims.length);
		const type = TYPES.get(library.number('GetTensorElementType', info));
		if (type === undefined) {
			throw new TurbocastError('internal', 'A graph gave numbers of a type that cannot leave it.');
		}
		return { type, dims: Array.from(dims, Number) };
	} finally {
		library.release('TensorTypeAndShapeInfo', info);
	}
};

export const dataOf = (library: OrtLibrary, value: Pointer): Pointer => library.make(undefined, 'GetTensorMutableData', value);

/** The bytes of an OrtValue that lies in memory of the CPU. */
export const readValue = (library: OrtLibrary, value: Pointer, bytes: number): Uint8Array<ArrayBuffer> => copyBytes(dataOf(library, value), bytes);

/** Tensors that were lost without being closed, freed when the garbage collector finds out. */
const lost = new FinalizationRegistry<() => void>((free) => free());

export class NativeTensor implements ResidentTensor {
	readonly isResident = true;
	readonly type: TensorType;
	readonly dims: readonly number[];
	readonly #library: OrtLibrary;
	readonly #value: Pointer;
	readonly #free: () => void;
	#users = 0;
	#isClosed = false;

	/** Takes over `value`; `onFree` is for whoever keeps its memory. */
	constructor(library: OrtLibrary, value: Pointer, face: { readonly type: TensorType; readonly dims: readonly number[] }, onFree?: () => void) {
		this.type = face.type;
		this.dims = face.dims;
		this.#library = library;
		this.#value = value;
		this.#free = () => {
			library.release('Value', value);
			onFree?.();
		};
		lost.register(this, this.#free, this);
	}

	/** Where the numbers lie: an address of the device. */
	get data(): Pointer {
		return dataOf(this.#library, this.#alive());
	}

	/** The value for a run, which must `leave` when it is over: until then closing waits. */
	enter(): Pointer {
		const value = this.#alive();
		this.#users += 1;
		return value;
	}

	leave(): void {
		this.#users -= 1;
		this.#freeIfDone();
	}

	close(): void {
		if (!this.#isClosed) {
			this.#isClosed = true;
			this.#freeIfDone();
		}
	}

	#alive(): Pointer {
		if (this.#isClosed) {
			throw new TurbocastError('internal', `A tensor [${this.dims.join(', ')}] was used after it was closed.`);
		}
		return this.#value;
	}

	#freeIfDone(): void {
		if (this.#isClosed && this.#users === 0) {
			lost.unregister(this);
			this.#free();
		}
	}
}

/** Another tensor over the memory of `tensor`, which lives at least as long, and is closed with it if that is asked for. `memory` says where that is. */
export const viewOf = (library: OrtLibrary, memory: Pointer, tensor: NativeTensor, face: { readonly type: TensorType; readonly dims: readonly number[] }, closes?: 'closes the original'): NativeTensor => {
	const value = borrowedValue(library, memory, tensor.data, face);
	tensor.enter();
	return new NativeTensor(library, value, face, () => {
		tensor.leave();
		if (closes !== undefined) {
			tensor.close();
		}
	});
};
