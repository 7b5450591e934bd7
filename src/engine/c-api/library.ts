/**
 * ONNX Runtime through its C interface: the shared library that comes with onnxruntime-node, without the binding, which knows no memory of a
 * CUDA device, no streams, no asynchronous runs and no cancellation (1.30).
 */
import { join } from 'node:path';
import { foreign, type ForeignFunction, type Pointer } from '../../base/foreign.js';
import { TurbocastError } from '../../protocol/errors.js';
import { API_VERSION, GET_ERROR_CODE, GET_ERROR_MESSAGE, type Handle, RELEASE_FUNCTIONS, STATUS_FUNCTIONS, type StatusFunction } from './functions.js';
import { libraryFolder } from './library-folder.js';

/** What a function of the library reports: `ortCode` is an OrtErrorCode. */
export class OrtError extends Error {
	readonly ortCode: number;

	constructor(message: string, ortCode: number) {
		super(message);
		this.ortCode = ortCode;
	}
}

export type OrtLibrary = {
	readonly version: string;
	readonly path: string;
	/** The process's one environment; never given back. */
	readonly env: Pointer;
	/** Throws OrtError. */
	readonly call: (name: StatusFunction, ...args: readonly unknown[]) => void;
	/** The same on another thread, without holding up this one. */
	readonly callAsync: (name: StatusFunction, ...args: readonly unknown[]) => Promise<void>;
	/** What a function writes where its last parameter points. With `handle` it counts as open until it is released. */
	readonly make: (handle: Handle | undefined, name: StatusFunction, ...args: readonly unknown[]) => Pointer;
	readonly makeAsync: (handle: Handle, name: StatusFunction, ...args: readonly unknown[]) => Promise<Pointer>;
	/** A number written there. */
	readonly number: (name: StatusFunction, ...args: readonly unknown[]) => number;
	/** Counts what functions give in arrays, to be released by us. */
	readonly adopt: (handle: Handle) => void;
	readonly release: (handle: Handle, pointer: Pointer) => void;
	/** How many of each kind are open: a number that only grows is a leak. */
	readonly open: () => { readonly [H in Handle]?: number };
};

const LOG_ERRORS_ONLY = 3;

const FILES: { readonly [platform: string]: string } = { linux: 'libonnxruntime.so.1', darwin: 'libonnxruntime.1.dylib', win32: 'onnxruntime.dll' };

const at = (table: Pointer, slot: number): Pointer => foreign().decode(table + BigInt(slot * 8), 'void *') as Pointer;

/** koffi unloads a library whose handle is lost to the garbage collector, and its functions with it. */
const loaded = new Set<object>();

const open = (path: string): OrtLibrary => {
	const koffi = foreign();
	const functionAt = (table: Pointer, slot: number, result: string, parameters: readonly string[]): ForeignFunction =>
		koffi.decode(at(table, slot), koffi.proto(result, parameters.map((parameter) => (parameter.startsWith('_Out_ ') ? koffi.out(parameter.slice('_Out_ '.length)) : parameter)))) as ForeignFunction;
	const fail = (why: string, cause?: unknown): never => {
		throw new TurbocastError('device_unavailable', `ONNX Runtime's library ${path} cannot be used: ${why}.`, { cause });
	};
	const base = (() => {
		try {
			const handle = koffi.load(path);
			loaded.add(handle);
			return (handle.func('OrtGetApiBase', 'void *', []) as ForeignFunction)() as Pointer;
		} catch (error) {
			return fail(error instanceof Error ? error.message : String(error), error);
		}
	})();
	const version = functionAt(base, 1, 'str', [])() as string;
	const api = (functionAt(base, 0, 'void *', ['uint32_t'])(API_VERSION) as Pointer | null) ?? fail(`its release ${version} is older than what is needed`);

	const statusOf = Object.fromEntries(Object.entries(STATUS_FUNCTIONS).map(([name, [slot, ...parameters]]) => [name, functionAt(api, slot, 'void *', parameters)])) as { [F in StatusFunction]: ForeignFunction };
	const releaseOf = Object.fromEntries(Object.entries(RELEASE_FUNCTIONS).map(([name, slot]) => [name, functionAt(api, slot, 'void', ['void *'])])) as { [H in Handle]: ForeignFunction };
	const [errorCode, errorMessage] = [functionAt(api, GET_ERROR_CODE, 'int', ['void *']), functionAt(api, GET_ERROR_MESSAGE, 'str', ['void *'])];
	const check = (status: unknown): void => {
		if (status !== null) {
			const error = new OrtError(errorMessage(status) as string, errorCode(status) as number);
			releaseOf.Status(status);
			throw error;
		}
	};
	const counts = new Map<Handle, number>();
	const count = (handle: Handle | undefined, change: number): void => {
		if (handle !== undefined) {
			counts.set(handle, (counts.get(handle) ?? 0) + change);
		}
	};
	const call: OrtLibrary['call'] = (name, ...args) => check(statusOf[name](...args));
	const callAsync: OrtLibrary['callAsync'] = async (name, ...args) => check(await new Promise<unknown>((resolve, reject) => {
		statusOf[name].async(...args, (error: Error | null, status: unknown) => (error === null ? resolve(status) : reject(error)));
	}));
	const make: OrtLibrary['make'] = (handle, name, ...args) => {
		const place: [Pointer | null] = [null];
		call(name, ...args, place);
		count(handle, 1);
		return place[0] as Pointer;
	};
	return {
		version, path, call, callAsync, make,
		env: make('Env', 'CreateEnv', LOG_ERRORS_ONLY, 'turbocast'),
		makeAsync: async (handle, name, ...args) => {
			const place: [Pointer | null] = [null];
			await callAsync(name, ...args, place);
			count(handle, 1);
			return place[0] as Pointer;
		},
		number: (name, ...args) => {
			const place: [number | bigint] = [0];
			call(name, ...args, place);
			return Number(place[0]);
		},
		adopt: (handle) => count(handle, 1),
		release: (handle, pointer) => {
			releaseOf[handle](pointer);
			count(handle, -1);
		},
		open: () => Object.fromEntries([...counts].filter(([, open]) => open !== 0)),
	};
};

const libraries = new Map<string, OrtLibrary>();

/** Loads the library once a process. Throws `device_unavailable`. */
export const ortLibrary = (path = join(libraryFolder(), FILES[process.platform] ?? '')): OrtLibrary => {
	const library = libraries.get(path) ?? open(path);
	libraries.set(path, library);
	return library;
};
