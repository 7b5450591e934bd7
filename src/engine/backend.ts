/**
 * The narrow seam to a tensor library: load a graph, run it. Behind it stands ONNX Runtime
 * (`backends/onnxruntime.ts`), and for ever the slow, obvious reference (`backends/reference.ts`), the oracle of the tests.
 */

export const TENSOR_TYPES = ['float32', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const;
export type TensorType = (typeof TENSOR_TYPES)[number];

export type TensorData = Float32Array | Int8Array | Uint8Array | Int32Array | BigInt64Array;

/** A dense, row-major tensor. `data.length` is the product of `dims`. */
export type Tensor = { readonly type: TensorType; readonly dims: readonly number[]; readonly data: TensorData };

/** Bytes that a graph refers to by `location` (ONNX external data), for example the contents of a .safetensors file. */
export type ExternalData = { readonly location: string; readonly data: Uint8Array };

/** A graph as the builder leaves it: an ONNX model and the weight bytes it refers to. */
export type Graph = {
	readonly name: string;
	/** Serialised ONNX ModelProto. */
	readonly model: Uint8Array;
	readonly external: readonly ExternalData[];
	readonly inputs: readonly GraphValue[];
	readonly outputs: readonly GraphValue[];
};

/** A named input or output; a string dimension is symbolic (for example `past`, which may be 0). */
export type GraphValue = { readonly name: string; readonly type: TensorType; readonly dims: readonly (number | string)[] };

export type Feeds = { readonly [name: string]: Tensor };

export type GraphSession = {
	readonly graph: string;
	readonly inputs: readonly GraphValue[];
	readonly outputs: readonly GraphValue[];
	/**
	 * Runs once. `fetch` names the outputs wanted (all when left out). Names, types and shapes of the feeds are checked
	 * against the graph before the library sees them. Throws `internal` naming the graph and the input that does not fit.
	 */
	readonly run: (feeds: Feeds, fetch?: readonly string[]) => Promise<{ [name: string]: Tensor }>;
	readonly close: () => Promise<void>;
};

export type Backend = {
	readonly name: string;
	/** Throws `weights_corrupt` or `model_invalid`. */
	readonly load: (graph: Graph) => Promise<GraphSession>;
};
