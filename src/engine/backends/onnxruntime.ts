/** ONNX Runtime: the one door to onnxruntime-node. On the CPU, and on graphics cards through its WebGPU provider. */
import * as ort from 'onnxruntime-node';
import { transferGraph } from '../../model/state-graphs.js';
import { TurbocastError } from '../../protocol/errors.js';
import { type Backend, type DeviceBackend, type DeviceSession, type Feeds, type Graph, type GraphLoading, isResident, type ResidentSession, type ResidentTensor, type Tensor, type TensorData, type TensorType } from '../backend.js';
import { checkFeeds, isOnDisk, loadError } from './graph-checks.js';

export type OnnxRuntimeOptions = {
	/** Threads inside one operator. 1 is best beside an encoder and a viewer on two cores. */
	readonly threads: number;
};

/** What lies on the graphics card, as the library has it. */
class GpuTensor implements ResidentTensor {
	readonly isResident = true;
	readonly tensor: ort.Tensor;
	readonly type: TensorType;
	readonly dims: readonly number[];
	readonly #owner: ort.Tensor;
	#isClosed = false;

	/** `owner` holds the memory; it is the tensor itself unless that is another view. */
	constructor(tensor: ort.Tensor, owner = tensor) {
		this.tensor = tensor;
		this.type = tensor.type as TensorType;
		this.dims = tensor.dims;
		this.#owner = owner;
	}

	/** The same memory with other dimensions; closed with `owner`, not by itself. */
	view(dims: readonly number[]): ort.Tensor {
		if (this.#isClosed) {
			throw new TurbocastError('internal', `A tensor [${this.dims.join(', ')}] was used after it was closed.`);
		}
		return ort.Tensor.fromGpuBuffer(this.tensor.gpuBuffer, { dataType: this.type as 'float32', dims: [...dims] });
	}

	close(): void {
		if (!this.#isClosed) {
			this.#isClosed = true;
			this.#owner.dispose();
		}
	}
}

/** Bytes in memory are handed over; files are mapped by the library itself, which takes paths below one folder: the root. */
const externalData = (graph: Graph): { externalData?: { path: string; data: Uint8Array }[] } =>
	(isOnDisk(graph) ? {} : { externalData: graph.external.flatMap((entry) => ('data' in entry ? [{ path: entry.location, data: entry.data }] : [])) });

const ortFeeds = (feeds: Feeds): { [name: string]: ort.Tensor } =>
	Object.fromEntries(Object.entries(feeds).map(([name, tensor]) =>
		[name, isResident(tensor) ? (tensor as GpuTensor).view(tensor.dims) : new ort.Tensor(tensor.type, tensor.data as never, tensor.dims)]));

const hostTensor = (result: ort.Tensor): Tensor => ({ type: result.type as TensorType, dims: result.dims, data: result.data as TensorData });

/** Keeps nothing of the graph but its face: the library has its own copy of the weights, and ours may go. */
const createSession = ({ name: graph, inputs, outputs }: Graph, session: ort.InferenceSession, takesResident: boolean): DeviceSession => {
	const outputNames = outputs.map((output) => output.name);
	let closing: Promise<void> | undefined;
	const runInto: DeviceSession['runInto'] = async (feeds, fetch, into) => {
		if (closing !== undefined) {
			throw new TurbocastError('internal', `Graph ${graph} is closed.`);
		}
		checkFeeds(graph, inputs, feeds, takesResident);
		const places = Object.entries(into).map(([name, tensor]) => [name, (tensor as GpuTensor).view(tensor.dims)] as const);
		const results = places.length === 0
			? await session.run(ortFeeds(feeds), fetch)
			: await session.run(ortFeeds(feeds), Object.fromEntries([...fetch.map((name): [string, null] => [name, null]), ...places]));
		return Object.fromEntries(fetch.map((name): [string, Tensor] => {
			const result = results[name];
			if (result === undefined) {
				throw new TurbocastError('internal', `Graph ${graph} gave no ${name}.`);
			}
			return [name, hostTensor(result)];
		}));
	};
	return { graph, inputs, outputs, run: (feeds, fetch = outputNames) => runInto(feeds, fetch, {}), runInto, close: () => (closing ??= session.release()) };
};

const createResidentSession = ({ name: graph, inputs, outputs }: Graph, session: ort.InferenceSession, host: readonly string[]): ResidentSession => {
	let closing: Promise<void> | undefined;
	return {
		inputs,
		run: async (feeds) => {
			if (closing !== undefined) {
				throw new TurbocastError('internal', `Graph ${graph} is closed.`);
			}
			checkFeeds(graph, inputs, feeds, true);
			// All of them, in their order: the library binds places to positions and keeps them from run to run.
			const results = await session.run(ortFeeds(feeds), outputs.map(({ name }) => name));
			const entries = Object.entries(results);
			return {
				host: Object.fromEntries(entries.filter(([name]) => host.includes(name)).map(([name, result]) => [name, hostTensor(result)])),
				resident: Object.fromEntries(entries.filter(([name]) => !host.includes(name)).map(([name, result]) => [name, new GpuTensor(result)])),
			};
		},
		close: () => (closing ??= session.release()),
	};
};

/**
 * NCHW because with the default, NHWC, convolutions of the provider give wrong numbers where the channels are no multiple of four
 * (onnxruntime 1.30, on SwiftShader and lavapipe alike).
 */
const PROVIDERS = { cpu: ['cpu'], webgpu: [{ name: 'webgpu', preferredLayout: 'NCHW' }, 'cpu'] } as const;

const open = async (graph: Graph, device: keyof typeof PROVIDERS, options: OnnxRuntimeOptions, { keepsWeights = false, returnsMemory = false, host }: GraphLoading & { readonly host?: readonly string[] } = {}): Promise<ort.InferenceSession> => {
	try {
		return await ort.InferenceSession.create(graph.model, {
			executionProviders: [...PROVIDERS[device]],
			// Folding of constants is one of the optimisations, and cannot be left out alone.
			graphOptimizationLevel: keepsWeights ? 'disabled' : 'all',
			...(returnsMemory ? { enableCpuMemArena: false, enableMemPattern: false } : {}),
			executionMode: 'sequential',
			intraOpNumThreads: options.threads,
			interOpNumThreads: 1,
			// That nodes without a kernel on the card run on the CPU is a warning at 2; what cannot run is an error either way.
			logSeverityLevel: 3,
			...externalData(graph),
			...(host === undefined ? {} : { preferredOutputLocation: Object.fromEntries(graph.outputs.map(({ name }) => [name, host.includes(name) ? 'cpu' as const : 'gpu-buffer' as const])) }),
			// Spinning threads take the core that the encoder and the viewer need; measured 2-3 times slower with one core busy.
			// Processors without VNNI add products of unsigned and signed bytes in 16 bits, which saturate: denoisers of the tests were off by up to 0.14.
			// With this the library makes weights unsigned there, and there alone, which is exact.
			extra: { session: { intra_op: { allow_spinning: '0' }, x64quantprecision: '1', ...(isOnDisk(graph) ? { model_external_initializers_file_folder_path: '/' } : {}) } },
		});
	} catch (error) {
		throw loadError(graph, error);
	}
};

export const createOnnxRuntime = (options: OnnxRuntimeOptions): Backend => ({
	name: `onnxruntime ${ort.env.versions.node ?? ''} cpu`.trim(),
	load: async (graph, loading) => createSession(graph, await open(graph, 'cpu', options, loading), false),
});

/**
 * The graphics card that WebGPU finds first (Vulkan, Metal or Direct3D 12). One such backend a process, used by one caller at a time: the library
 * fails when two threads make their first sessions at once. A process with one may abort rather than throw when the driver fails.
 */
export const createWebGpu = (options: OnnxRuntimeOptions): DeviceBackend => {
	const loadResident: DeviceBackend['loadResident'] = async (graph, host = []) => createResidentSession(graph, await open(graph, 'webgpu', options, { host }), host);
	/** Copies between host and card; reading a tensor of the card directly ends the process in 1.30. */
	const uploads = new Map<string, Promise<ResidentSession>>();
	const downloads = new Map<string, Promise<DeviceSession>>();
	const once = <Session>(sessions: Map<string, Promise<Session>>, key: string, load: () => Promise<Session>): Promise<Session> => {
		const session = sessions.get(key) ?? load();
		sessions.set(key, session);
		return session;
	};
	const upload: DeviceBackend['upload'] = async (data, dims, type = 'float32') => {
		const session = await once(uploads, type, () => loadResident(transferGraph('upload', 'float32', type)));
		const { resident: { y } } = await session.run({ x: { type: 'float32', dims: [data.length], data } });
		const flat = y as GpuTensor;
		return new GpuTensor(flat.view(dims), flat.tensor);
	};
	const download: DeviceBackend['download'] = async (tensor) => {
		const type = tensor.type as 'float32' | 'float16';
		const session = await once(downloads, type, async () => createSession(transferGraph('download', type, 'float32'), await open(transferGraph('download', type, 'float32'), 'webgpu', options), true));
		const size = tensor.dims.reduce((product, dimension) => product * dimension, 1);
		const flat = new GpuTensor((tensor as GpuTensor).view([size]));
		return (await session.run({ x: flat }))['y']?.data as Float32Array;
	};
	let closing: Promise<void> | undefined;
	return {
		name: `onnxruntime ${ort.env.versions.node ?? ''} webgpu`.trim(),
		load: async (graph, loading) => createSession(graph, await open(graph, 'webgpu', options, loading), true),
		loadResident, upload, download,
		// Runs whose outputs all stay on the card are over here when they are in its queue; what is read comes after all that was queued before.
		settle: async () => {
			const one = await upload(new Float32Array(1), [1]);
			await download(one);
			one.close();
		},
		close: () => (closing ??= (async () => {
			for (const session of [...uploads.values(), ...downloads.values()]) {
				await (await session).close();
			}
		})()),
	};
};
