/**
 * Operators of our own, in the domain `turbocast`: the kernels of native/cuda, where native/cuda/operators.cpp says what each takes and gives. Only a backend that
 * has their library loads graphs with them (`DeviceBackend.hasKernels`). What no kernel takes is asked before: then a graph does the same with standard operators.
 *
 * Letters in shapes: L tokens, N heads, d = head size, D = N * d; tensors are float16 or bfloat16 unless they say otherwise.
 */
import { elements, type GraphBuilder, OWN_DOMAIN, shapeText, type Value } from './graph-builder.js';
import type { ElementType } from './onnx-proto.js';
import { keptBlocks, type SparseShape } from './sparse-linear-attention.js';
import { tilesAcross } from './w8a8.js';

const HEAD_SIZES: readonly number[] = [64, 128];
const QUERY_BLOCKS: readonly number[] = [64, 128];
/** Keys of a tile, whose multiple a block must be. */
const TILE_KEYS = 64;
/** An output that nobody reads; its size is the kernel's business. */
const WORKSPACE: { readonly type: ElementType; readonly dims: readonly number[] } = { type: 'uint8', dims: [0] };

export const kernelTakesHeads = (headDim: number): boolean => HEAD_SIZES.includes(headDim);

export const kernelTakesBlocks = ({ blockQueries, blockKeys }: SparseShape): boolean => QUERY_BLOCKS.includes(blockQueries) && blockKeys % TILE_KEYS === 0;

/** 16 bytes of inputs, and of outputs, at once. */
export const kernelTakesLinear = ({ inputs, outputs }: { readonly inputs: number; readonly outputs: number }): boolean => inputs % 16 === 0 && outputs % 8 === 0;

export const kernelTakesNorm = (dim: number): boolean => dim % 8 === 0;

/** x [rows, columns] in tiles of 128 x 128: int8, and a float32 scale each. */
export const w8a8Quantize = (g: GraphBuilder, name: string, x: Value): { readonly values: Value; readonly scales: Value } => {
	const [rows, columns] = x.dims as [number, number];
	const [values, scales] = g.nodes({
		op: 'W8A8Quantize', domain: OWN_DOMAIN, name, inputs: [x],
		results: [{ type: 'int8', dims: [rows, columns] }, { type: 'float32', dims: [tilesAcross(rows), tilesAcross(columns)] }],
	}) as [Value, Value];
	return { values, scales };
};

/** x [rows, inputs] times weight [outputs, inputs] transposed, both in tiles, plus bias [outputs], whose type the result [rows, outputs] has. */
export const w8a8Linear = (g: GraphBuilder, name: string, x: { readonly values: Value; readonly scales: Value }, weight: { readonly values: Value; readonly scales: Value }, bias: Value): Value => {
	const [rows, inputs] = x.values.dims as [number, number];
	const [outputs, same] = weight.values.dims as [number, number];
	if (inputs !== same || bias.dims[0] !== outputs) {
		g.fail(name, `${shapeText(x.values.dims)}, ${shapeText(weight.values.dims)} and ${shapeText(bias.dims)} do not fit`);
	}
	return g.node({ op: 'W8A8Linear', domain: OWN_DOMAIN, name, inputs: [x.values, x.scales, weight.values, weight.scales, bias], type: bias.type, dims: [rows, outputs] });
};

type Attended = { readonly q: Value; readonly k: Value; readonly v: Value };

/** q, k, v and the result [L, D]. `proj` [d, d] and [d] in float32, without it the exact branch alone. `wantsChosen`: also the blocks, int32 [N, query blocks, kept]. */
export const sparseLinearKernel = (
	g: GraphBuilder, { q, k, v }: Attended, heads: number, shape: SparseShape, proj: { readonly weight: Value; readonly bias: Value } | undefined, wantsChosen = false,
): { readonly out: Value; readonly chosen?: Value | undefined } => {
	const [tokens] = q.dims as [number];
	const { kept } = keptBlocks(shape, tokens);
	const [out, , chosen] = g.nodes({
		op: 'SparseLinearAttention', domain: OWN_DOMAIN, name: 'sla', inputs: [q, k, v, proj?.weight, proj?.bias],
		attributes: { heads: { int: heads }, block_queries: { int: shape.blockQueries }, block_keys: { int: shape.blockKeys }, kept: { int: kept } },
		results: [{ type: q.type, dims: q.dims }, WORKSPACE, ...(wantsChosen ? [{ type: 'int32' as const, dims: [heads, Math.ceil(tokens / shape.blockQueries), kept] }] : [])],
	}) as [Value, Value, Value | undefined];
	return { out, chosen };
};

/** softmax(q k^T / sqrt(d)) v: q and the result [L, D], k and v [keys, D]. */
export const int8Kernel = (g: GraphBuilder, { q, k, v }: Attended, heads: number): Value =>
	g.nodes({ op: 'Int8Attention', domain: OWN_DOMAIN, name: 'int8', inputs: [q, k, v], attributes: { heads: { int: heads } }, results: [{ type: q.type, dims: q.dims }, WORKSPACE] })[0] as Value;

/** Layer norm of x [T, S, D], times 1 + scale plus shift [T, 1, D], all float32, to float16 [T * S, D]. */
export const normModulateKernel = (g: GraphBuilder, name: string, x: Value, shift: Value, scale: Value, epsilon: number): Value => {
	const [tables, rows, dim] = x.dims as [number, number, number];
	if (elements(scale.dims) !== tables * dim || elements(shift.dims) !== tables * dim) {
		g.fail(name, `${shapeText(scale.dims)} and ${shapeText(shift.dims)} do not modulate ${shapeText(x.dims)}`);
	}
	return g.node({ op: 'NormModulate', domain: OWN_DOMAIN, name, inputs: [x, scale, shift], attributes: { epsilon: { float: epsilon } }, type: 'float16', dims: [tables * rows, dim] });
};
