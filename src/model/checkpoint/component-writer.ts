/** Writes a recognised network as .safetensors, a piece at a time: a checkpoint of any size needs the memory of one piece. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { cannotWrite } from '../../base/write-failure.js';
import { TurbocastError } from '../../protocol/errors.js';
import { encodeHeader, tensorBytes, type TensorHeaders } from '../safetensors.js';
import type { ComponentTensor, RecognisedComponent } from './component.js';

export type WrittenFile = { readonly bytes: number; readonly sha256: string };

/** IEEE 754 half precision to float32. */
export const floatsOfHalves = (piece: Uint8Array): Uint8Array => {
	const view = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
	const floats = new Float32Array(piece.length / 2);
	for (let index = 0; index < floats.length; index++) {
		const half = view.getUint16(2 * index, true);
		const [exponent, fraction] = [(half >> 10) & 0x1f, half & 0x3ff];
		const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 0x1f ? (fraction === 0 ? Infinity : Number.NaN) : (1 + fraction / 1024) * 2 ** (exponent - 15);
		floats[index] = half >= 0x8000 ? -size : size;
	}
	return new Uint8Array(floats.buffer);
};

/** Half precision is written as float32, which the graphs read; everything else as it is. */
const writtenType = ({ dtype }: ComponentTensor): ComponentTensor['dtype'] => (dtype === 'F16' ? 'F32' : dtype);

const headersOf = ({ tensors }: RecognisedComponent): TensorHeaders =>
	Object.fromEntries(tensors.map((tensor) => [tensor.name, { dtype: writtenType(tensor), shape: tensor.shape }]));

const sizeOf = (headers: TensorHeaders, header: Uint8Array): number => Object.values(headers).reduce((sum, tensor) => sum + tensorBytes(tensor), header.length);

/** Bytes of the file that the network becomes. */
export const writtenBytes = (component: RecognisedComponent): number => {
	const headers = headersOf(component);
	return sizeOf(headers, encodeHeader(headers));
};

/**
 * Writes the file and returns its size and SHA-256. Aborting `signal` stops between two pieces. `onProgress` hears the bytes written so far.
 * Throws `output_failed` or `weights_corrupt`; the caller removes what was written then.
 */
export const writeComponent = async (
	path: string, component: RecognisedComponent, options: { readonly signal: AbortSignal; readonly onProgress?: (bytes: number, of: number) => void },
): Promise<WrittenFile> => {
	const headers = headersOf(component);
	const header = encodeHeader(headers);
	const total = sizeOf(headers, header);
	const hash = createHash('sha256');
	let bytes = 0;
	const file = await open(path, 'wx').catch(cannotWrite(path));
	const write = async (piece: Uint8Array): Promise<void> => {
		options.signal.throwIfAborted();
		await file.writeFile(piece).catch(cannotWrite(path));
		hash.update(piece);
		bytes += piece.length;
		options.onProgress?.(bytes, total);
	};
	try {
		await write(header);
		for (const tensor of component.tensors) {
			const before = bytes;
			for await (const piece of tensor.stored.read()) {
				await write(tensor.dtype === 'F16' ? floatsOfHalves(piece) : piece);
			}
			const expected = tensorBytes({ dtype: writtenType(tensor), shape: tensor.shape });
			if (bytes - before !== expected) {
				throw new TurbocastError('weights_corrupt', `${tensor.name} has ${bytes - before} bytes instead of ${expected}.`);
			}
		}
	} finally {
		await file.close();
	}
	return { bytes, sha256: hash.digest('hex') };
};
