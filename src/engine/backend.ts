/**
 * The narrow seam to a tensor library: load a graph, run it. Behind it stands ONNX Runtime
 * (`backends/onnxruntime.ts` through its binding, `backends/onnxruntime-c.ts` through its C interface). The oracle of the tests stands one storey up: `backends/reference.ts` offers the same `Networks`
 * in plain loops that never see a graph, so that a mistake in a graph cannot hide in both.
 */

import type { Graph, GraphValue, TensorType } from '../model/graph.js';

export { TENSOR_TYPES, type Dimension, type ExternalData, type Graph, type GraphValue, type TensorType } from '../model/graph.js';

/** Numbers in float16 are the bits of IEEE 754 binary16 (float16.ts). */
export type TensorData = Float32Array | Uint16Array | Int8Array | Uint8Array | Int32Array | BigInt64Array;

/** A dense, row-major tensor. `data.length` is the product of `dims`. */
export type Tensor = { readonly type: TensorType; readonly dims: readonly number[]; readonly data: TensorData };

/**
 * A tensor that lies on a device, where a graph left it; only graphs on the same device take it. Closed by whoever it was handed to: the
 * garbage collector frees it too, but does not know how large it is.
 */
export type ResidentTensor = {
	readonly type: TensorType;
	readonly dims: readonly number[];
	readonly isResident: true;
	/** Idempotent. */
	readonly close: () => void;
};

export type Feeds = { readonly [name: string]: Tensor | ResidentTensor };

export type GraphSession = {
	readonly graph: string;
	readonly inputs: readonly GraphValue[];
	readonly outputs: readonly GraphValue[];
	/**
	 * Runs once. `fetch` names the outputs wanted (all when left out). Names, types and shapes of the feeds are checked
	 * against the graph before the library sees them. Throws `internal` naming the graph and the input that does not fit. A backend that can
	 * ends the run when `signal` is aborted and throws its reason; others run to the end.
	 */
	readonly run: (feeds: Feeds, fetch?: readonly string[], signal?: AbortSignal) => Promise<{ [name: string]: Tensor }>;
	readonly close: () => Promise<void>;
};

/** What a graph may take less memory by, for more time. */
export type GraphLoading = {
	/** Weights in bfloat16 are not made float32 when the graph is loaded, but whenever it runs: its memory is a layer instead of twice the file. */
	readonly keepsWeights?: boolean | undefined;
	/** What is computed on the way is given back to the system at once, not kept for the next run: of large pictures several times what is in use at any moment. */
	readonly returnsMemory?: boolean | undefined;
	/** Runs that name a recording are recorded and replayed, by a device that can: all of their tensors lie there, at the same addresses whenever the recording is the same. */
	readonly recordsRuns?: boolean | undefined;
};

export type Backend = {
	readonly name: string;
	/** Whether graphs may have operators of our own (../model/kernel-operators.ts). Default: no. */
	readonly hasKernels?: boolean | undefined;
	/** Throws `weights_corrupt` or `model_invalid`. */
	readonly load: (graph: Graph, options?: GraphLoading) => Promise<GraphSession>;
};

export type DeviceSession = GraphSession & {
	/** As `run`; those of `into` are written where they lie, and are not among the results. `recording` numbers what is recorded or replayed, of a session that was loaded for that. */
	readonly runInto: (feeds: Feeds, fetch: readonly string[], into: { readonly [name: string]: ResidentTensor }, signal?: AbortSignal, recording?: number) => Promise<{ [name: string]: Tensor }>;
};

/** A session whose outputs, but those for the host, stay on the device. */
export type ResidentSession = {
	readonly inputs: readonly GraphValue[];
	/** Always computes everything. */
	readonly run: (feeds: Feeds, signal?: AbortSignal) => Promise<{ readonly host: { [name: string]: Tensor }; readonly resident: { [name: string]: ResidentTensor } }>;
	readonly close: () => Promise<void>;
};

/** A backend with memory of its own, where tensors may stay between runs. */
export type DeviceBackend = Omit<Backend, 'load'> & {
	readonly load: (graph: Graph, options?: GraphLoading) => Promise<DeviceSession>;
	/** Outputs stay on the device, but those of `host`. */
	readonly loadResident: (graph: Graph, host?: readonly string[]) => Promise<ResidentSession>;
	/** Float32 numbers to a tensor of the device, in float16 if asked for. */
	readonly upload: (data: Float32Array, dims: readonly number[], type?: 'float32' | 'float16') => Promise<ResidentTensor>;
	/** The numbers of a float32 or float16 tensor. */
	readonly download: (tensor: ResidentTensor) => Promise<Float32Array>;
	/**
	 * The beginning of a tensor's memory as a tensor of its own, of other dimensions, or of other numbers: what is written into one is read in the other. Each is closed by itself, the
	 * memory lives as long as either. Absent where outputs cannot be written over inputs.
	 */
	readonly view?: (tensor: ResidentTensor, dims: readonly number[], type?: TensorType) => ResidentTensor;
	/** Where a tensor lies, which does not change while it lives. Absent where runs cannot be recorded. */
	readonly address?: (tensor: ResidentTensor) => bigint;
	/** Resolves when all that the device was given is done. Absent where each run waits for its end. */
	readonly settle?: () => Promise<void>;
	/** Ends the sessions of its own; those that were loaded are closed by whoever loaded them. Idempotent. */
	readonly close: () => Promise<void>;
};

/** State of a stream: numbers of ours, or what lies on a device. */
export type StateTensor = Float32Array | ResidentTensor;

/** Frees what lies on a device. */
export const closeState = (tensors: readonly StateTensor[]): void => {
	for (const tensor of tensors) {
		if (isResident(tensor)) {
			tensor.close();
		}
	}
};

export const isResident = (tensor: Tensor | ResidentTensor | Float32Array): tensor is ResidentTensor => 'isResident' in tensor;
