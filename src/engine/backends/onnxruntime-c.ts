/**
 * ONNX Runtime through its C interface (`../c-api`): runs on other threads, can be ended in the middle, and state stays in the memory of the
 * provider, CUDA's on an NVIDIA card. With the CPU provider all of it runs on any machine, by the same calls.
 */
import { transferGraph } from '../../model/state-graphs.js';
import { TurbocastError } from '../../protocol/errors.js';
import { ortLibrary } from '../c-api/library.js';
import type { Kernels } from '../c-api/kernels.js';
import type { Pointer } from '../../base/foreign.js';
import { type Provider, residentMemory } from '../c-api/provider.js';
import { type NativeSession, openSession, type OutputPlace } from '../c-api/session.js';
import { type NativeTensor, tensorBytes, viewOf } from '../c-api/tensor.js';
import type { DeviceBackend, DeviceSession, Graph, GraphLoading, ResidentSession, Tensor } from '../backend.js';
import { checkFeeds, loadError } from './graph-checks.js';

export type NativeRuntimeOptions = {
	readonly threads: number;
	readonly provider: Provider;
	/** Opened for that provider. */
	readonly kernels?: Kernels | undefined;
};

const places = (names: readonly string[], place: OutputPlace): [string, OutputPlace][] => names.map((name) => [name, place]);

const deviceSession = ({ name: graph, inputs, outputs }: Graph, session: NativeSession): DeviceSession => {
	const runInto: DeviceSession['runInto'] = async (feeds, fetch, into, signal, graphId) => {
		checkFeeds(graph, inputs, feeds, true);
		for (const name of [...fetch, ...Object.keys(into)]) {
			if (!outputs.some((output) => output.name === name)) {
				throw new TurbocastError('internal', `Graph ${graph} gives no ${name}.`);
			}
		}
		const { host } = await session.run(feeds, new Map([...places(fetch, 'host'), ...Object.entries(into).map(([name, tensor]): [string, OutputPlace] => [name, tensor as NativeTensor])]), { signal, graphId });
		return host;
	};
	return { graph, inputs, outputs, runInto, run: (feeds, fetch = outputs.map(({ name }) => name), signal) => runInto(feeds, fetch, {}, signal), close: session.close };
};

const residentSession = ({ name: graph, inputs, outputs }: Graph, session: NativeSession, host: readonly string[]): ResidentSession => {
	const wanted = new Map(outputs.map(({ name }): [string, OutputPlace] => [name, host.includes(name) ? 'host' : 'resident']));
	return {
		inputs,
		run: async (feeds, signal) => {
			checkFeeds(graph, inputs, feeds, true);
			return session.run(feeds, wanted, { signal });
		},
		close: session.close,
	};
};

/** Throws `device_unavailable` when the library or the package that calls it is not there; what a provider lacks is said by the first `load`. */
export const createNativeRuntime = ({ threads, provider, kernels }: NativeRuntimeOptions): DeviceBackend => {
	const library = ortLibrary();
	const open = async (graph: Graph, { keepsWeights = false, recordsRuns = false }: GraphLoading = {}): Promise<NativeSession> => {
		try {
			return await openSession(library, graph, { threads, provider, kernels, keepsWeights, recordsRuns });
		} catch (error) {
			throw loadError(graph, error);
		}
	};
	/** Graphs that move state between us and the device, by direction and type. */
	const transfers = new Map<string, Promise<NativeSession>>();
	const transfer = (name: 'upload' | 'download', type: 'float32' | 'float16'): Promise<NativeSession> => {
		const key = `${name} ${type}`;
		const session = transfers.get(key) ?? open(name === 'upload' ? transferGraph(name, 'float32', type) : transferGraph(name, type, 'float32'));
		transfers.set(key, session);
		return session;
	};
	let memory: Pointer | undefined;
	let closing: Promise<void> | undefined;
	return {
		name: `onnxruntime ${library.version} ${provider.kind}`,
		hasKernels: kernels !== undefined,
		load: async (graph, loading) => deviceSession(graph, await open(graph, loading)),
		loadResident: async (graph, host = []) => residentSession(graph, await open(graph), host),
		upload: async (data, dims, type = 'float32') => {
			const session = await transfer('upload', type);
			const x: Tensor = { type: 'float32', dims: [data.length], data };
			const { resident: { y } } = await session.run({ x }, new Map([['y', 'resident']]));
			return session.view(y as NativeTensor, dims, 'closes the original');
		},
		download: async (tensor) => {
			const session = await transfer('download', tensor.type as 'float32' | 'float16');
			const size = tensor.dims.reduce((product, dimension) => product * dimension, 1);
			const flat = session.view(tensor as NativeTensor, [size]);
			try {
				return (await session.run({ x: flat }, new Map([['y', 'host']]))).host['y']?.data as Float32Array;
			} finally {
				flat.close();
			}
		},
		view: (tensor, dims, type = tensor.type) => {
			if (tensorBytes({ type, dims }) > tensorBytes(tensor)) {
				throw new TurbocastError('internal', `A tensor ${tensor.type} [${tensor.dims.join(', ')}] has no room for ${type} [${dims.join(', ')}].`);
			}
			return viewOf(library, memory ??= residentMemory(library, provider), tensor as NativeTensor, { type, dims });
		},
		address: (tensor) => (tensor as NativeTensor).data,
		close: () => (closing ??= (async () => {
			if (memory !== undefined) {
				library.release('MemoryInfo', memory);
			}
			for (const session of transfers.values()) {
				// One that could not be loaded has nothing to close.
				await session.then(({ close }) => close(), () => undefined);
			}
		})()),
	};
};
