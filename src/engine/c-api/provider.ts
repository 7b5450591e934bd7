/** Where sessions compute: on the processor, or on a CUDA device with its options. */
import type { Pointer } from '../../base/foreign.js';
import type { OrtLibrary } from './library.js';

export type Provider =
	| { readonly kind: 'cpu' }
	| {
		readonly kind: 'cuda';
		/** Counted from 0, as CUDA_VISIBLE_DEVICES leaves them. */
		readonly deviceId: number;
		/** A cudaStream_t on which everything runs; a stream of the provider's own when left out. It must outlive the sessions. */
		readonly stream?: Pointer | undefined;
		/**
		 * Runs are recorded as CUDA graphs the first time and replayed after that, by their `gpu_graph_id`: all of their tensors must lie on the device, at the same addresses each time, and all of
		 * their operators must be the device's. A recording belongs to the thread that made it.
		 */
		readonly recordsGraphs?: boolean;
		/** Products of float32 in TensorFloat-32: faster, three digits less. Default: no. */
		readonly usesTf32?: boolean;
	};

/** A mistyped key would be noticed by the library; a value that is not of its kind, too. */
const cudaOptions = ({ deviceId, recordsGraphs = false, usesTf32 = false }: Extract<Provider, { kind: 'cuda' }>): { readonly [key: string]: string } => ({
	device_id: String(deviceId),
	use_tf32: usesTf32 ? '1' : '0',
	enable_cuda_graph: recordsGraphs ? '1' : '0',
	// Not the next power of two: weights take most of the memory and are allocated once.
	arena_extend_strategy: 'kSameAsRequested',
});

/** Options of the CUDA provider, to be released by the caller. Throws OrtError where the library knows no such option. */
export const makeCudaOptions = (library: OrtLibrary, provider: Extract<Provider, { kind: 'cuda' }>): Pointer => {
	const made = library.make('CUDAProviderOptions', 'CreateCUDAProviderOptions');
	try {
		const options = cudaOptions(provider);
		library.call('UpdateCUDAProviderOptions', made, Object.keys(options), Object.values(options), Object.keys(options).length);
		if (provider.stream !== undefined) {
			library.call('UpdateCUDAProviderOptionsWithValue', made, 'user_compute_stream', provider.stream);
		}
		return made;
	} catch (error) {
		library.release('CUDAProviderOptions', made);
		throw error;
	}
};

/** Adds the provider to the options of a session; the processor is always there for what a device cannot do. */
export const appendProvider = (library: OrtLibrary, sessionOptions: Pointer, provider: Provider): void => {
	if (provider.kind === 'cpu') {
		return;
	}
	const options = makeCudaOptions(library, provider);
	try {
		library.call('SessionOptionsAppendExecutionProvider_CUDA_V2', sessionOptions, options);
	} finally {
		library.release('CUDAProviderOptions', options);
	}
};

const [DEVICE_ALLOCATOR, DEFAULT_MEMORY] = [0, 0];

export const hostMemory = (library: OrtLibrary): Pointer => library.make('MemoryInfo', 'CreateMemoryInfo', 'Cpu', DEVICE_ALLOCATOR, 0, DEFAULT_MEMORY);

/** The memory where tensors of the provider stay between runs. Released by the caller. */
export const residentMemory = (library: OrtLibrary, provider: Provider): Pointer =>
	(provider.kind === 'cpu' ? hostMemory(library) : library.make('MemoryInfo', 'CreateMemoryInfo', 'Cuda', DEVICE_ALLOCATOR, provider.deviceId, DEFAULT_MEMORY));
