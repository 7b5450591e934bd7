/** A graph in the library: made, run with its inputs and outputs bound to memory, given back. */
import { addressOf, foreign, type Pointer } from '../../base/foreign.js';
import { TurbocastError } from '../../protocol/errors.js';
import { type Feeds, type Graph, isResident, type Tensor } from '../backend.js';
import { DATA_KINDS, isOnDisk, libraryMessage } from '../backends/graph-checks.js';
import type { Handle } from './functions.js';
import type { Kernels } from './kernels.js';
import type { OrtLibrary } from './library.js';
import { appendProvider, hostMemory, type Provider, residentMemory } from './provider.js';
import { faceOf, hostValue, NativeTensor, readValue, tensorBytes, viewOf } from './tensor.js';

export type NativeSessionOptions = {
	/** Threads inside one operator on the processor. */
	readonly threads: number;
	readonly provider: Provider;
	/** Whose operators the graph may have. */
	readonly kernels?: Kernels | undefined;
	/** See `Backend.load`. */
	readonly keepsWeights?: boolean;
	/** See `GraphLoading`. */
	readonly recordsRuns?: boolean;
};

/** Where an output goes: to us, to new memory of the device, or to a tensor there that it fits. */
export type OutputPlace = 'host' | 'resident' | NativeTensor;

export type NativeRun = {
	/** Ends the run between two of its operators; the session stays good. */
	readonly signal?: AbortSignal | undefined;
	/** Of a session that records: which recording this run is, or makes; any whole number from 0. Without one it is neither. */
	readonly graphId?: number | undefined;
};

export type NativeSession = {
	/** Runs on another thread. Throws the reason of the signal, `not_enough_memory` or `internal`. Outputs at a tensor are in neither result. */
	readonly run: (feeds: Feeds, outputs: ReadonlyMap<string, OutputPlace>, run?: NativeRun) => Promise<{ readonly host: { [name: string]: Tensor }; readonly resident: { [name: string]: NativeTensor } }>;
	/** Another tensor over the memory of `tensor`, which lives at least as long, and is closed with it if that is asked for. */
	readonly view: (tensor: NativeTensor, dims: readonly number[], closes?: 'closes the original') => NativeTensor;
	/** Waits for the runs at hand. Idempotent. */
	readonly close: () => Promise<void>;
};

/** What the library takes for a run that is no recording; without it all runs of a session that records are number 0. */
const NO_RECORDING = -1;

const [SEQUENTIAL, NO_OPTIMISATION, ALL_OPTIMISATIONS, ERRORS_ONLY] = [0, 0, 99, 3];

/** The same as the binding is given (backends/onnxruntime.ts), so that the numbers are the same bit for bit. */
const sessionOptions = (library: OrtLibrary, graph: Graph, { threads, provider, kernels, keepsWeights = false, recordsRuns = false }: NativeSessionOptions): Pointer => {
	const options = library.make('SessionOptions', 'CreateSessionOptions');
	try {
		library.call('SetSessionExecutionMode', options, SEQUENTIAL);
		library.call('SetSessionGraphOptimizationLevel', options, keepsWeights ? NO_OPTIMISATION : ALL_OPTIMISATIONS);
		library.call('SetSessionLogSeverityLevel', options, ERRORS_ONLY);
		library.call('SetIntraOpNumThreads', options, threads);
		library.call('SetInterOpNumThreads', options, 1);
		library.call('AddSessionConfigEntry', options, 'session.intra_op.allow_spinning', '0');
		library.call('AddSessionConfigEntry', options, 'session.x64quantprecision', '1');
		if (isOnDisk(graph)) {
			library.call('AddSessionConfigEntry', options, 'session.model_external_initializers_file_folder_path', '/');
		} else if (graph.external.length > 0) {
			const files = graph.external.flatMap((entry) => ('data' in entry ? [entry] : []));
			library.call('AddExternalInitializersFromFilesInMemory', options, files.map(({ location }) => location), files.map(({ data }) => addressOf(data)), files.map(({ data }) => data.byteLength), files.length);
		}
		appendProvider(library, options, provider.kind === 'cuda' && recordsRuns ? { ...provider, recordsGraphs: true } : provider);
		kernels?.register(library, options);
		return options;
	} catch (error) {
		library.release('SessionOptions', options);
		throw error;
	}
};

const runError = (graph: string, error: unknown): unknown => {
	const message = libraryMessage(error);
	return /allocate memory|out of memory|OUT_OF_MEMORY|bfc_arena/u.test(message)
		? new TurbocastError('not_enough_memory', `Graph ${graph} did not fit into the memory of the device. (${message})`, { cause: error })
		: new TurbocastError('internal', `Graph ${graph} failed. (${message})`, { cause: error });
};

/** What the library reads on another thread: nothing else may hold it. */
const read = new Set<object>();

const reading = async <Result>(what: object, call: () => Promise<Result>): Promise<Result> => {
	const held = { what };
	read.add(held);
	try {
		return await call();
	} finally {
		read.delete(held);
	}
};

let ends: Set<() => void> | undefined;

/** How the runs at hand are ended. A process that exits waits for its threads: for a long run, unless that is ended. */
const endable = (): Set<() => void> => {
	if (ends === undefined) {
		const all = new Set<() => void>();
		process.once('exit', () => all.forEach((end) => end()));
		ends = all;
	}
	return ends;
};

/** Loads on another thread. Throws what the library says. */
export const openSession = async (library: OrtLibrary, graph: Graph, options: NativeSessionOptions): Promise<NativeSession> => {
	const { name: graphName, model } = graph;
	const made = sessionOptions(library, graph, options);
	const session = await reading(graph, () => library.makeAsync('Session', 'CreateSessionFromArray', library.env, addressOf(model), model.byteLength, made))
		.finally(() => library.release('SessionOptions', made));
	const [host, device] = [hostMemory(library), residentMemory(library, options.provider)];
	const allocator = library.make(undefined, 'GetAllocatorWithDefaultOptions');

	/** The values of the outputs in the order in which they were bound, each now ours. */
	const boundValues = (binding: Pointer): Pointer[] => {
		const [array, count]: [[Pointer | null], [number | bigint]] = [[null], [0]];
		library.call('GetBoundOutputValues', binding, allocator, array, count);
		const first = array[0];
		if (first === null) {
			return [];
		}
		const values = Array.from({ length: Number(count[0]) }, (_, index) => foreign().decode(first + BigInt(8 * index), 'void *') as Pointer);
		library.call('AllocatorFree', allocator, first);
		values.forEach(() => library.adopt('Value'));
		return values;
	};

	const run: NativeSession['run'] = async (feeds, outputs, { signal, graphId } = {}) => {
		const taken: (() => void)[] = [];
		const own = (handle: Handle, pointer: Pointer): Pointer => {
			taken.push(() => library.release(handle, pointer));
			return pointer;
		};
		const entered = (tensor: NativeTensor): Pointer => {
			const value = tensor.enter();
			taken.push(() => tensor.leave());
			return value;
		};
		try {
			const binding = own('IoBinding', library.make('IoBinding', 'CreateIoBinding', session));
			for (const [name, tensor] of Object.entries(feeds)) {
				library.call('BindInput', binding, name, isResident(tensor) ? entered(tensor as NativeTensor) : own('Value', hostValue(library, host, tensor)));
			}
			for (const [name, place] of outputs) {
				if (place instanceof NativeTensor) {
					library.call('BindOutput', binding, name, entered(place));
				} else {
					library.call('BindOutputToDevice', binding, name, place === 'host' ? host : device);
				}
			}
			const runOptions = own('RunOptions', library.make('RunOptions', 'CreateRunOptions'));
			library.call('RunOptionsSetRunLogSeverityLevel', runOptions, ERRORS_ONLY + 1);
			if (options.recordsRuns === true) {
				library.call('AddRunConfigEntry', runOptions, 'gpu_graph_id', String(graphId ?? NO_RECORDING));
			}
			const terminate = (): void => library.call('RunOptionsSetTerminate', runOptions);
			endable().add(terminate);
			signal?.addEventListener('abort', terminate, { once: true });
			try {
				await reading(feeds, () => library.callAsync('RunWithBinding', session, runOptions, binding));
			} finally {
				signal?.removeEventListener('abort', terminate);
				endable().delete(terminate);
			}
			const results: { readonly host: { [name: string]: Tensor }; readonly resident: { [name: string]: NativeTensor } } = { host: {}, resident: {} };
			const names = [...outputs.keys()];
			for (const [index, value] of boundValues(binding).entries()) {
				const name = names[index] ?? '';
				if (outputs.get(name) === 'resident') {
					results.resident[name] = new NativeTensor(library, value, faceOf(library, value));
				} else {
					own('Value', value);
				}
				if (outputs.get(name) === 'host') {
					const face = faceOf(library, value);
					results.host[name] = { ...face, data: new DATA_KINDS[face.type](readValue(library, value, tensorBytes(face)).buffer) };
				}
			}
			return results;
		} catch (error) {
			signal?.throwIfAborted();
			throw error instanceof TurbocastError ? error : runError(graphName, error);
		} finally {
			taken.reverse().forEach((release) => release());
		}
	};

	const running = new Set<Promise<unknown>>();
	let closing: Promise<void> | undefined;
	return {
		run: (feeds, outputs, options) => {
			if (closing !== undefined) {
				return Promise.reject(new TurbocastError('internal', `Graph ${graphName} is closed.`));
			}
			if (options?.signal?.aborted === true) {
				return Promise.reject(options.signal.reason as Error);
			}
			const result = run(feeds, outputs, options);
			running.add(result);
			const forget = (): void => void running.delete(result);
			result.then(forget, forget);
			return result;
		},
		view: (tensor, dims, closes) => viewOf(library, device, tensor, { type: tensor.type, dims }, closes),
		close: () => (closing ??= (async () => {
			await Promise.allSettled(running);
			library.release('Session', session);
			library.release('MemoryInfo', host);
			library.release('MemoryInfo', device);
		})()),
	};
};
