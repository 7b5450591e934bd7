/**
 * The narrow seam to a tensor library: load a graph, run it. Behind it stands ONNX Runtime
 * (`backends/onnxruntime.ts`). The oracle of the tests stands one storey up: `backends/reference.ts` offers the same `Networks`
 * in plain loops that never see a graph, so that a mistake in a graph cannot hide in both.
 */

import type { Graph, GraphValue, TensorType } from '../model/graph.js';

export { TENSOR_TYPES, type Dimension, type ExternalData, type Graph, type GraphValue, type TensorType } from '../model/graph.js';

export type TensorData = Float32Array | Int8Array | Uint8Array | Int32Array | BigInt64Array;

/** A dense, row-major tensor. `data.length` is the product of `dims`. */
export type Tensor = { readonly type: TensorType; readonly dims: readonly number[]; readonly data: TensorData };

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
	/**
	 * `keepsWeights`: bfloat16 weights are not made float32 when the graph is loaded, but whenever it runs: it takes longer then, and its memory is
	 * a layer instead of twice the file. Throws `weights_corrupt` or `model_invalid`.
	 */
	readonly load: (graph: Graph, options?: { readonly keepsWeights?: boolean }) => Promise<GraphSession>;
};
