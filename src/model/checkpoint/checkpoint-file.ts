/** Opens a checkpoint of any form that is read: PyTorch's zip archives and .safetensors, the latter also in several parts. */
import { LENGTH_BYTES, parseHeader, parseHeaderLength } from '../safetensors.js';
import { TurbocastError } from '../../protocol/errors.js';
import { type ByteSource, damaged, openByteSource } from './byte-source.js';
import { type StoredTensorInfo, PIECE_BYTES, type TensorStore } from './tensor-store.js';
import { isLegacyTorch, openTorchFile, refuseLegacy } from './torch-file.js';

const START_BYTES = 16;
const ZIP = [0x50, 0x4b];

const openSafetensors = async (source: ByteSource): Promise<TensorStore> => {
	const { label, size } = source;
	const length = parseHeaderLength(label, await source.read(0, Math.min(LENGTH_BYTES, size)), size);
	const entries = parseHeader(label, await source.read(LENGTH_BYTES, length), size);
	const pieces = async function* (offset: number, bytes: number): AsyncGenerator<Uint8Array> {
		for (let done = 0; done < bytes; done += PIECE_BYTES) {
			yield await source.read(offset + done, Math.min(PIECE_BYTES, bytes - done));
		}
	};
	const tensors = new Map([...entries].map(([name, { dtype, shape, offset, byteLength }]): [string, StoredTensorInfo] => [name, { dtype, shape, read: () => pieces(offset, byteLength) }]));
	return { label, tensors, close: source.close };
};

const openOne = async (path: string): Promise<TensorStore> => {
	const source = await openByteSource(path);
	try {
		const start = await source.read(0, Math.min(START_BYTES, source.size));
		if (ZIP.every((byte, index) => start[index] === byte)) {
			return await openTorchFile(source);
		}
		if (source.size === 0) {
			damaged(source.label, 'it is empty');
		}
		if (isLegacyTorch(start)) {
			refuseLegacy(source.label);
		}
		// A header of less than 100 MB: the upper bytes of its length are zero, and JSON begins.
		if (start[5] === 0 && start[6] === 0 && start[7] === 0 && start[8] === 0x7b) {
			return await openSafetensors(source);
		}
		throw new TurbocastError('invalid_option', `${source.label} is neither a PyTorch file nor .safetensors.`);
	} catch (error) {
		await source.close();
		throw error;
	}
};

/** Opens a checkpoint in one file or in several parts. Throws `weights_corrupt` or `invalid_option`. Closed by the caller. */
export const openCheckpoint = async (paths: readonly string[]): Promise<TensorStore> => {
	const stores: TensorStore[] = [];
	const close = async (): Promise<void> => {
		await Promise.all(stores.map((store) => store.close()));
	};
	try {
		const tensors = new Map<string, StoredTensorInfo>();
		for (const path of paths) {
			const store = await openOne(path);
			stores.push(store);
			for (const [name, tensor] of store.tensors) {
				if (tensors.has(name)) {
					damaged(store.label, `${name} stands in another part too`);
				}
				tensors.set(name, tensor);
			}
		}
		return { label: stores[0]?.label ?? '', tensors, root: stores[0]?.root, close };
	} catch (error) {
		await close();
		throw error;
	}
};
