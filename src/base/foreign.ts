/** The one door to koffi, which calls functions of shared libraries. It is an optional package: CUDA needs it, and sending UDP packets together. */
import { createRequire } from 'node:module';
import { TurbocastError } from '../protocol/errors.js';

type Koffi = typeof import('koffi');

/** An address. */
export type Pointer = bigint;

/** A C function; `async` runs it on another thread and tells the last argument what came of it. */
export type ForeignFunction = {
	(...args: readonly unknown[]): unknown;
	readonly async: (...args: readonly unknown[]) => void;
};

/** Operators of networks run on the calling thread, with more on their stacks than the 128 KiB that koffi gives such calls. */
const ASYNC_STACK_BYTES = 8 * 1024 * 1024;

let loaded: Koffi | undefined;

/** Throws `device_unavailable` where the package is not installed. */
export const foreign = (): Koffi => {
	if (loaded === undefined) {
		try {
			loaded = createRequire(import.meta.url)('koffi') as Koffi;
		} catch (error) {
			throw new TurbocastError('device_unavailable', 'The package koffi, through which functions of other libraries are called, is not installed: npm install koffi.', { cause: error });
		}
		loaded.config({ async_stack_size: ASYNC_STACK_BYTES });
	}
	return loaded;
};

/** Where the numbers of an array lie, good for as long as the array is kept alive by the caller. */
export const addressOf = (data: NodeJS.TypedArray): Pointer => {
	// Reading `buffer` moves small arrays out of the heap that the garbage collector rearranges.
	void data.buffer;
	return foreign().address(data);
};

/** A copy of bytes that lie at `pointer`. */
export const copyBytes = (pointer: Pointer, bytes: number): Uint8Array<ArrayBuffer> => (bytes === 0 ? new Uint8Array(0) : new Uint8Array(foreign().view(pointer, bytes)).slice());
