/** What a graph is once it is built: an ONNX model, the weight bytes that it refers to, and what goes in and comes out. */

export const TENSOR_TYPES = ['float32', 'float16', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const;
export type TensorType = (typeof TENSOR_TYPES)[number];

/** A dimension; text is symbolic (for example `past`, which may be 0). */
export type Dimension = number | string;

/**
 * Bytes that a graph refers to by `location` (ONNX external data), for example the contents of a .safetensors file: in memory, or in a file,
 * whose `location` is its path from the root of the file system. A graph has the one or the other.
 */
export type ExternalData = { readonly location: string; readonly data: Uint8Array } | { readonly location: string; readonly path: string };

/** A named input or output. */
export type GraphValue = { readonly name: string; readonly type: TensorType; readonly dims: readonly Dimension[] };

/** What a node of a graph does, and to what: enough to count its work. */
export type Operation = {
	readonly op: string;
	readonly name: string;
	/** Whole numbers that its work depends on. */
	readonly sizes?: { readonly [attribute: string]: number } | undefined;
	readonly inputs: readonly { readonly type: string; readonly dims: readonly Dimension[]; readonly isConstant: boolean }[];
	readonly outputs: readonly { readonly name: string; readonly type: string; readonly dims: readonly Dimension[] }[];
};

/** A graph as the builder leaves it. */
export type Graph = {
	readonly name: string;
	/** Serialised ONNX ModelProto. */
	readonly model: Uint8Array;
	readonly external: readonly ExternalData[];
	readonly inputs: readonly GraphValue[];
	readonly outputs: readonly GraphValue[];
	/** In the order of running; the copies that make outputs are not among them. */
	readonly operations: readonly Operation[];
};
