/**
 * The library of our own kernels (native/cuda), as operators of sessions. It is optional and built on the machine (`npm run build:cuda`); there are two of it, for the
 * CUDA provider and, as an emulation for proofs, for the processor's.
 */
import { foreign, type ForeignFunction, type Pointer } from '../../base/foreign.js';
import { TurbocastError } from '../../protocol/errors.js';
import { builtKernels, missingKernels } from './library-folder.js';
import type { OrtLibrary } from './library.js';
import type { Provider } from './provider.js';

/** TC_VERSION of native/cuda/turbocast_cuda.h. */
export const KERNELS_VERSION = 2;

const EXECUTION_PROVIDERS: { readonly [K in Provider['kind']]: string } = { cpu: 'CPUExecutionProvider', cuda: 'CUDAExecutionProvider' };

/** A library that was found to be the right one. */
export type Kernels = { readonly path: string; /** Makes its operators known to a session that is made with these options. Throws OrtError. */ readonly register: (library: OrtLibrary, sessionOptions: Pointer) => void };

/** Never unloaded: sessions and the runtime point into it. */
const opened = new Map<string, { readonly version: number; readonly provider: string }>();
const handles = new Set<object>();

const open = (path: string): { readonly version: number; readonly provider: string } => {
	const handle = foreign().load(path);
	handles.add(handle);
	const call = (name: string, result: string): unknown => (handle.func(name, result, []) as ForeignFunction)();
	return { version: call('tc_version', 'int') as number, provider: call('tc_provider', 'str') as string };
};

/** Throws `device_unavailable` with the reason: not built, not loadable, of another version, or for another provider. */
export const openKernels = (kind: Provider['kind'], path = builtKernels): Kernels => {
	const refuse = (why: string, cause?: unknown): never => {
		throw new TurbocastError('device_unavailable', `The kernels of turbocast cannot be used: ${why}.`, { cause });
	};
	const missing = missingKernels(path);
	if (missing !== undefined) {
		return refuse(missing);
	}
	const found = (() => {
		try {
			return opened.get(path) ?? open(path);
		} catch (error) {
			return error instanceof TurbocastError ? refuse(error.message.replace(/\.$/u, ''), error) : refuse(`${path} cannot be loaded (${error instanceof Error ? error.message : String(error)})`, error);
		}
	})();
	opened.set(path, found);
	if (found.version !== KERNELS_VERSION) {
		return refuse(`${path} is of version ${found.version}, and ${KERNELS_VERSION} is needed; npm run build:cuda makes it anew`);
	}
	if (found.provider !== EXECUTION_PROVIDERS[kind]) {
		return refuse(`${path} is for ${found.provider}, not for ${EXECUTION_PROVIDERS[kind]}`);
	}
	return { path, register: (library, sessionOptions) => library.call('RegisterCustomOpsLibrary_V2', sessionOptions, path) };
};
