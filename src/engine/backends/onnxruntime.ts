/** ONNX Runtime on the CPU: the one door to onnxruntime-node. */
import * as ort from 'onnxruntime-node';
import { TurbocastError } from '../../protocol/errors.js';
import type { Backend, Feeds, Graph, GraphSession, GraphValue, Tensor, TensorData } from '../backend.js';

export type OnnxRuntimeOptions = {
	/** Threads inside one operator. 1 is best beside an encoder and a viewer on two cores. */
	readonly threads: number;
};

const DATA_KINDS = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array } as const;

const misfit = (graph: string, input: string, sentence: string): never => {
	throw new TurbocastError('internal', `Graph ${graph}, input ${input}: ${sentence}.`);
};

/** ONNX Runtime ignores unknown names and names no graph in its messages, so feeds are checked before it sees them. */
const checkFeeds = (graph: string, inputs: readonly GraphValue[], feeds: Feeds): void => {
	const symbols = new Map<string, number>();
	for (const name of Object.keys(feeds)) {
		if (!inputs.some((input) => input.name === name)) {
			misfit(graph, name, 'the graph has no such input');
		}
	}
	for (const { name, type, dims } of inputs) {
		const tensor = feeds[name] ?? misfit(graph, name, 'nothing is fed');
		if (tensor.type !== type || !(tensor.data instanceof DATA_KINDS[type])) {
			misfit(graph, name, `${type} is expected, not ${tensor.type}`);
		}
		const fits = tensor.dims.length === dims.length && tensor.dims.every((size, axis) => {
			const expected = dims[axis] ?? 0;
			if (typeof expected === 'string' && !symbols.has(expected)) {
				symbols.set(expected, size);
			}
			return size === (typeof expected === 'string' ? symbols.get(expected) : expected);
		});
		if (!fits) {
			misfit(graph, name, `the shape [${tensor.dims.join(', ')}] does not fit [${dims.map((dim) => (typeof dim === 'string' ? `${dim}=${symbols.get(dim) ?? '?'}` : dim)).join(', ')}]`);
		}
		if (tensor.data.length !== tensor.dims.reduce((product, size) => product * size, 1)) {
			misfit(graph, name, `${tensor.data.length} numbers do not make [${tensor.dims.join(', ')}]`);
		}
	}
};

/** Weight bytes that do not reach as far as the graph says are a damaged file; anything else is a graph that cannot run. */
const loadError = (graph: Graph, error: unknown): TurbocastError => {
	const message = error instanceof Error ? error.message : String(error);
	return /out of bounds|read in full|external data/iu.test(message)
		? new TurbocastError('weights_corrupt', `The weights of the graph ${graph.name} cannot be read; fetch the model again. (${message})`, { cause: error })
		: new TurbocastError('model_invalid', `The graph ${graph.name} cannot be loaded. (${message})`, { cause: error });
};

const isOnDisk = (graph: Graph): boolean => graph.external.some((entry) => 'path' in entry);

/** Bytes in memory are handed over; files are mapped by the library itself, which takes paths below one folder: the root. */
const externalData = (graph: Graph): { externalData?: { path: string; data: Uint8Array }[] } =>
	(isOnDisk(graph) ? {} : { externalData: graph.external.flatMap((entry) => ('data' in entry ? [{ path: entry.location, data: entry.data }] : [])) });

/** Keeps nothing of the graph but its face: the library has its own copy of the weights, and ours may go. */
const createSession = ({ name: graph, inputs, outputs }: Graph, session: ort.InferenceSession): GraphSession => {
	const outputNames = outputs.map((output) => output.name);
	let closing: Promise<void> | undefined;
	return {
		graph,
		inputs,
		outputs,
		run: async (feeds, fetch = outputNames) => {
			if (closing !== undefined) {
				throw new TurbocastError('internal', `Graph ${graph} is closed.`);
			}
			checkFeeds(graph, inputs, feeds);
			const tensors = Object.fromEntries(Object.entries(feeds).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data as never, dims)]));
			const results = await session.run(tensors, fetch);
			return Object.fromEntries(fetch.map((name): [string, Tensor] => {
				const result = results[name];
				if (result === undefined) {
					throw new TurbocastError('internal', `Graph ${graph} gave no ${name}.`);
				}
				return [name, { type: result.type as Tensor['type'], dims: result.dims, data: result.data as TensorData }];
			}));
		},
		close: () => (closing ??= session.release()),
	};
};

export const createOnnxRuntime = (options: OnnxRuntimeOptions): Backend => ({
	name: `onnxruntime ${ort.env.versions.node ?? ''} cpu`.trim(),
	load: async (graph, { keepsWeights = false } = {}) => {
		try {
			const session = await ort.InferenceSession.create(graph.model, {
				executionProviders: ['cpu'],
				// Folding of constants is one of the optimisations, and cannot be left out alone.
				graphOptimizationLevel: keepsWeights ? 'disabled' : 'all',
				executionMode: 'sequential',
				intraOpNumThreads: options.threads,
				interOpNumThreads: 1,
				logSeverityLevel: 3,
				...externalData(graph),
				// Spinning threads take the core that the encoder and the viewer need; measured 2-3 times slower with one core busy.
				// Processors without VNNI add products of unsigned and signed bytes in 16 bits, which saturate: denoisers of the tests were off by up to 0.14.
				// With this the library makes weights unsigned there, and there alone, which is exact.
				extra: { session: { intra_op: { allow_spinning: '0' }, x64quantprecision: '1', ...(isOnDisk(graph) ? { model_external_initializers_file_folder_path: '/' } : {}) } },
			});
			return createSession(graph, session);
		} catch (error) {
			throw loadError(graph, error);
		}
	},
});
