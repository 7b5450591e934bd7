/**
 * The .safetensors format: eight bytes with the length of the header (little endian), the header as JSON
 * (`name → { dtype, shape, data_offsets }`), then the bytes of the tensors. Reads by name, and writes.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { TurbocastError } from '../protocol/errors.js';

/** Longest header, bytes; the reference implementation's own limit. */
export const MAX_HEADER_BYTES = 100_000_000;
/** Bytes of the length in front of the header. */
export const LENGTH_BYTES = 8;

/** Element types and their size in bytes. Weights are F32 or BF16; the others occur in golden files. */
export const DTYPE_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 } as const;
export type Dtype = keyof typeof DTYPE_BYTES;

/** One tensor of a file. */
export type TensorEntry = {
	readonly name: string;
	readonly dtype: Dtype;
	readonly shape: readonly number[];
	/** From the start of the file, bytes. */
	readonly offset: number;
	readonly byteLength: number;
};

export type Safetensors = {
	/** How messages call the file. */
	readonly label: string;
	readonly bytes: Uint8Array;
	readonly tensors: ReadonlyMap<string, TensorEntry>;
};

/** A file that stays on disk: its tensors are read one by one, or mapped by the tensor library. */
export type MappedSafetensors = Omit<Safetensors, 'bytes'> & { readonly path: string };

const corrupt = (label: string, sentence: string): never => {
	throw new TurbocastError('weights_corrupt', `${label} is damaged: ${sentence}. Fetch the file again.`);
};

const isIndex = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

const parseEntry = (label: string, name: string, value: unknown, dataStart: number, dataBytes: number): TensorEntry => {
	const { dtype, shape, data_offsets: offsets } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
	if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
		return corrupt(label, `the tensor ${name} has an unknown type`);
	}
	if (!Array.isArray(shape) || !shape.every(isIndex) || !Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isIndex)) {
		return corrupt(label, `the header entry of ${name} has the wrong form`);
	}
	const [begin = 0, end = 0] = offsets;
	const byteLength = shape.reduce((product, dimension) => product * dimension, DTYPE_BYTES[dtype as Dtype]);
	if (end > dataBytes || end - begin !== byteLength) {
		return corrupt(label, `the tensor ${name} lies outside the file or does not have the size of its shape`);
	}
	return { name, dtype: dtype as Dtype, shape, offset: dataStart + begin, byteLength };
};

/** Length of the header from the first eight bytes of a file of `fileBytes` bytes. Throws `weights_corrupt`. */
export const parseHeaderLength = (label: string, start: Uint8Array, fileBytes: number): number => {
	if (start.length < LENGTH_BYTES) {
		return corrupt(label, `it has ${fileBytes} bytes, fewer than the length of a header`);
	}
	const headerBytes = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
	if (headerBytes > BigInt(MAX_HEADER_BYTES)) {
		return corrupt(label, `its header claims ${headerBytes.toString()} bytes, more than ${MAX_HEADER_BYTES}`);
	}
	return LENGTH_BYTES + Number(headerBytes) > fileBytes ? corrupt(label, 'it ends inside its header') : Number(headerBytes);
};

/** The tensors that a header (without its length) names. Throws `weights_corrupt`, saying what does not fit. */
export const parseHeader = (label: string, headerText: Uint8Array, fileBytes: number): ReadonlyMap<string, TensorEntry> => {
	const dataStart = LENGTH_BYTES + headerText.length;
	let header: unknown;
	try {
		header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(headerText));
	} catch {
		return corrupt(label, 'its header is not JSON text');
	}
	if (typeof header !== 'object' || header === null || Array.isArray(header)) {
		return corrupt(label, 'its header is not an object');
	}
	const tensors = new Map<string, TensorEntry>();
	for (const [name, value] of Object.entries(header)) {
		if (name !== '__metadata__') {
			tensors.set(name, parseEntry(label, name, value, dataStart, fileBytes - dataStart));
		}
	}
	return tensors;
};

/** Reads the header. Throws `weights_corrupt`, saying what does not fit. The bytes are referred to, not copied. */
export const parseSafetensors = (label: string, bytes: Uint8Array): Safetensors => {
	const headerBytes = parseHeaderLength(label, bytes, bytes.length);
	return { label, bytes, tensors: parseHeader(label, bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + headerBytes), bytes.length) };
};

/** Bytes of one call: more than 2 GB cannot be read at once. */
const PIECE_BYTES = 2 ** 30;

const readPiece = (label: string, path: string, offset: number, length: number): Uint8Array<ArrayBuffer> => {
	const bytes = new Uint8Array(length);
	const file = openSync(path, 'r');
	try {
		for (let done = 0; done < length;) {
			const count = readSync(file, bytes, done, Math.min(PIECE_BYTES, length - done), offset + done);
			if (count === 0) {
				return corrupt(label, 'it ended while it was being read');
			}
			done += count;
		}
	} finally {
		closeSync(file);
	}
	return bytes;
};

/** Reads the header alone. Throws `weights_corrupt`, saying what does not fit. */
export const mapSafetensors = (label: string, path: string): MappedSafetensors => {
	const { size } = statSync(path);
	const headerBytes = parseHeaderLength(label, readPiece(label, path, 0, Math.min(LENGTH_BYTES, size)), size);
	return { label, path, tensors: parseHeader(label, readPiece(label, path, LENGTH_BYTES, headerBytes), size) };
};

/** The tensor of that name and shape. Throws `model_invalid` when it is missing or has another shape. */
export const tensorEntry = (file: Pick<Safetensors, 'label' | 'tensors'>, name: string, shape: readonly number[]): TensorEntry => {
	const entry = file.tensors.get(name);
	if (entry === undefined) {
		throw new TurbocastError('model_invalid', `${file.label} has no tensor ${name}; the configuration beside it describes another network than the file holds.`);
	}
	if (entry.shape.length !== shape.length || entry.shape.some((dimension, index) => dimension !== shape[index])) {
		throw new TurbocastError('model_invalid', `${file.label}: ${name} is [${entry.shape.join(', ')}], but the configuration beside it asks for [${shape.join(', ')}].`);
	}
	return entry;
};

/** A copy of a tensor's bytes. Throws `weights_corrupt` when a file on disk has become shorter. */
export const readTensor = (file: Safetensors | MappedSafetensors, entry: TensorEntry): Uint8Array<ArrayBuffer> =>
	// Copied by the constructor: `slice` of a Buffer would be a view, at an offset that may not be a multiple of four.
	('bytes' in file ? new Uint8Array(file.bytes.subarray(entry.offset, entry.offset + entry.byteLength)) : readPiece(file.label, file.path, entry.offset, entry.byteLength));

/** A copy of a tensor's numbers as float32 (BF16 is the upper half of it). Throws `model_invalid` for types that are no weights. */
export const readFloats = (file: Safetensors | MappedSafetensors, entry: TensorEntry): Float32Array => {
	const bytes = readTensor(file, entry);
	switch (entry.dtype) {
		case 'F32':
			return new Float32Array(bytes.buffer);
		case 'BF16': {
			const halves = new Uint16Array(bytes.buffer);
			const words = new Uint32Array(halves.length);
			for (let index = 0; index < halves.length; index++) {
				words[index] = (halves[index] ?? 0) << 16;
			}
			return new Float32Array(words.buffer);
		}
		default:
			throw new TurbocastError('model_invalid', `${file.label}: ${entry.name} is ${entry.dtype}; weights must be F32 or BF16.`);
	}
};

export type TensorToWrite = { readonly dtype: Dtype; readonly shape: readonly number[]; readonly data: ArrayBufferView };

/** Shapes and types alone, for a file that is written piece by piece. */
export type TensorHeaders = { readonly [name: string]: { readonly dtype: Dtype; readonly shape: readonly number[] } };

/** Bytes of a tensor. */
export const tensorBytes = ({ dtype, shape }: { readonly dtype: Dtype; readonly shape: readonly number[] }): number =>
	shape.reduce((product, dimension) => product * dimension, DTYPE_BYTES[dtype]);

/** Everything before the data of a file: tensors in the order given, the header padded with spaces so that data begins at a multiple of 8. */
export const encodeHeader = (tensors: TensorHeaders): Uint8Array => {
	let offset = 0;
	const header: Record<string, unknown> = {};
	for (const [name, tensor] of Object.entries(tensors)) {
		const { dtype, shape } = tensor;
		header[name] = { dtype, shape, data_offsets: [offset, offset + tensorBytes(tensor)] };
		offset += tensorBytes(tensor);
	}
	const text = new TextEncoder().encode(JSON.stringify(header));
	const padded = Math.ceil(text.length / 8) * 8;
	const bytes = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
	new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
	bytes.set(text, LENGTH_BYTES);
	return bytes;
};

/** A whole file. */
export const encodeSafetensors = (tensors: { readonly [name: string]: TensorToWrite }): Uint8Array => {
	for (const [name, tensor] of Object.entries(tensors)) {
		if (tensor.data.byteLength !== tensorBytes(tensor)) {
			throw new TurbocastError('internal', `The tensor ${name} has ${tensor.data.byteLength} bytes, which do not make ${tensor.dtype} [${tensor.shape.join(', ')}].`);
		}
	}
	const header = encodeHeader(tensors);
	const bytes = new Uint8Array(Object.values(tensors).reduce((sum, { data }) => sum + data.byteLength, header.length));
	bytes.set(header);
	let position = header.length;
	for (const { data } of Object.values(tensors)) {
		bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), position);
		position += data.byteLength;
	}
	return bytes;
};
