/** A file that is read here and there, never as a whole: checkpoints are larger than memory. */
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { TurbocastError } from '../../protocol/errors.js';

export type ByteSource = {
	/** How messages call the file. */
	readonly label: string;
	/** Bytes. */
	readonly size: number;
	/** Exactly `length` bytes from `offset`. Throws `weights_corrupt` when the file does not reach that far. */
	readonly read: (offset: number, length: number) => Promise<Uint8Array<ArrayBuffer>>;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

/** Throws `weights_corrupt` naming the file. */
export const damaged = (label: string, sentence: string): never => {
	throw new TurbocastError('weights_corrupt', `${label} is damaged or was cut short: ${sentence}. Fetch the file again.`);
};

/** Throws `invalid_option` when there is no such file. */
export const openByteSource = async (path: string): Promise<ByteSource> => {
	const label = basename(path);
	const handle = await open(path, 'r').catch((error: unknown) => {
		throw new TurbocastError('invalid_option', `${path} cannot be opened; give a checkpoint file or a folder of them.`, { cause: error });
	});
	const { size } = await handle.stat();
	let closing: Promise<void> | undefined;
	return {
		label,
		size,
		read: async (offset, length) => {
			if (offset < 0 || length < 0 || offset + length > size) {
				return damaged(label, `it has ${size} bytes, but ${length} are wanted from ${offset} on`);
			}
			const bytes = new Uint8Array(length);
			for (let done = 0; done < length;) {
				const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
				if (bytesRead === 0) {
					return damaged(label, 'it ended while it was being read');
				}
				done += bytesRead;
			}
			return bytes;
		},
		close: () => (closing ??= handle.close()),
	};
};
