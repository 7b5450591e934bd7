/** What every backend checks before the library sees anything, and what it makes of the library's failures. */
import { TurbocastError } from '../../protocol/errors.js';
import { type Feeds, type Graph, type GraphValue, isResident } from '../backend.js';

export const DATA_KINDS = { float32: Float32Array, float16: Uint16Array, int8: Int8Array, uint8: Uint8Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array } as const;

const misfit = (graph: string, input: string, sentence: string): never => {
	throw new TurbocastError('internal', `Graph ${graph}, input ${input}: ${sentence}.`);
};

/** ONNX Runtime ignores unknown names and names no graph in its messages, so feeds are checked before it sees them. */
export const checkFeeds = (graph: string, inputs: readonly GraphValue[], feeds: Feeds, takesResident: boolean): void => {
	const symbols = new Map<string, number>();
	for (const name of Object.keys(feeds)) {
		if (!inputs.some((input) => input.name === name)) {
			misfit(graph, name, 'the graph has no such input');
		}
	}
	for (const { name, type, dims } of inputs) {
		const tensor = feeds[name] ?? misfit(graph, name, 'nothing is fed');
		// A session on the CPU would read such memory as it is, and give numbers that mean nothing.
		if (isResident(tensor) && !takesResident) {
			misfit(graph, name, 'a tensor on a graphics card is fed to a graph on the CPU');
		}
		if (tensor.type !== type || (!isResident(tensor) && !(tensor.data instanceof DATA_KINDS[type]))) {
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
		if (!isResident(tensor) && tensor.data.length !== tensor.dims.reduce((product, size) => product * size, 1)) {
			misfit(graph, name, `${tensor.data.length} numbers do not make [${tensor.dims.join(', ')}]`);
		}
	}
};

/** Some messages of the library go on with whole graphs. */
const MAX_MESSAGE = 400;

/** What the library says, in a line, without the place in its source that some messages begin with. */
export const libraryMessage = (error: unknown): string => {
	const [line = ''] = (error instanceof Error ? error.message : String(error)).replace(/^.*\[ONNXRuntimeError\] : \d+ : \w+ : /su, '').trim().split('\n');
	return line.length > MAX_MESSAGE ? `${line.slice(0, MAX_MESSAGE)} ...` : line;
};

/** Weight bytes that do not reach as far as the graph says are a damaged file; anything else is a graph that cannot run. */
export const loadError = (graph: Graph, error: unknown): TurbocastError => {
	if (error instanceof TurbocastError) {
		return error;
	}
	const message = libraryMessage(error);
	if (/webgpu/iu.test(message) && /adapter|device/iu.test(message)) {
		return new TurbocastError('device_unavailable', `There is no graphics card that WebGPU could use; set engine.device to cpu, or see docs/gpu.md. (${message})`, { cause: error });
	}
	if (/cuda|cudnn|cublas|libonnxruntime_providers/iu.test(message)) {
		return new TurbocastError('device_unavailable', `CUDA cannot be used; see docs/gpu.md for what must be installed. (${message})`, { cause: error });
	}
	return /out of bounds|read in full|external data/iu.test(message)
		? new TurbocastError('weights_corrupt', `The weights of the graph ${graph.name} cannot be read; fetch the model again. (${message})`, { cause: error })
		: new TurbocastError('model_invalid', `The graph ${graph.name} cannot be loaded. (${message})`, { cause: error });
};

export const isOnDisk = (graph: Graph): boolean => graph.external.some((entry) => 'path' in entry);
