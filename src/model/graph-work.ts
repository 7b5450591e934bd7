/** How much a graph computes and moves, counted from its nodes: for the distance to what a processor could do. */
import { TurbocastError } from '../protocol/errors.js';
import { elements } from './graph-builder.js';
import type { Dimension, Graph, Operation } from './graph.js';
import { ELEMENT_BYTES, type ElementType } from './onnx-proto.js';

/** Multiplications by weights, multiplications of activations with each other (attention), convolutions. */
export const WORK_KINDS = ['linear', 'attention', 'convolution'] as const;
export type WorkKind = (typeof WORK_KINDS)[number];

export type GraphWork = {
	/** A multiplication with its addition counts 2. What works element by element is not counted: it is bound by memory. */
	readonly flops: { readonly [K in WorkKind]: number };
	/** Float32 bytes that all nodes read and write when none are fused. */
	readonly trafficBytes: number;
};

/** Sizes of symbolic dimensions. */
export type Symbols = { readonly [name: string]: number };

export const scaleWork = ({ flops, trafficBytes }: GraphWork, times: number): GraphWork => ({
	flops: { linear: times * flops.linear, attention: times * flops.attention, convolution: times * flops.convolution }, trafficBytes: times * trafficBytes,
});

export const addWork = (a: GraphWork, b: GraphWork): GraphWork => ({
	flops: { linear: a.flops.linear + b.flops.linear, attention: a.flops.attention + b.flops.attention, convolution: a.flops.convolution + b.flops.convolution },
	trafficBytes: a.trafficBytes + b.trafficBytes,
});

const FLOAT_BYTES = 4;
/** Which input of a convolution is its kernel [outputs, inputs, height, width]. */
const KERNEL_INPUT: { readonly [op: string]: number } = { Conv: 1, QLinearConv: 3 };
const FUSED_ATTENTION = 'MultiHeadAttention';
const W8A8 = 'W8A8Linear';
const PRODUCTS: ReadonlySet<string> = new Set(['Gemm', 'MatMul', 'MatMulInteger', 'MatMulIntegerToFloat', 'DynamicQuantizeMatMul', W8A8]);
/** Writes updates [rows, ...] into a table, of which nothing else is touched where its output is bound to the memory of that input, as windows of keys and values are. */
const WRITES_INTO = 'ScatterND';
/** They only name the same numbers anew. */
const FREE: ReadonlySet<string> = new Set(['Reshape', 'Identity']);

/** Sums that make one output: the inner size of a product, or a convolution's inputs times its kernel. */
const sumsOf = ({ op, name, inputs }: Operation): number => {
	const kernel = KERNEL_INPUT[op];
	const inner = kernel === undefined ? inputs[0]?.dims.at(-1) : elements(inputs[kernel]?.dims.slice(1) ?? []);
	if (typeof inner !== 'number' || !Number.isFinite(inner)) {
		throw new TurbocastError('internal', `The work of ${name} cannot be counted: its size is not known.`);
	}
	return inner;
};

/** Both products of fused attention: q [1, L, N * d], k and v [1, N, keys, d] or [1, keys, N * d]. */
const fusedFlops = ({ inputs: [q, k] }: Operation): number => 4 * elements(q?.dims ?? []) * elements(k?.dims.slice(-2, k.dims.length === 4 ? -1 : undefined).slice(0, 1) ?? []);

/** Attention by our kernels, q, k and v [tokens, D] (kernel-operators.ts). */
const KERNEL_FLOPS: { readonly [op: string]: (operation: Operation) => number } = {
	Int8Attention: ({ inputs: [q, k] }) => 4 * elements(q?.dims ?? []) * elements(k?.dims.slice(0, 1) ?? []),
	/** Both products of the exact branch over the blocks that are kept; of the linear one, features times values and what queries make of that. */
	SparseLinearAttention: ({ inputs: [q, , , proj], sizes }) => {
		const [tokens = 0, width = 0] = (q?.dims ?? []) as readonly number[];
		const seen = Math.min(tokens, (sizes?.['kept'] ?? 0) * (sizes?.['block_keys'] ?? 0));
		return 4 * tokens * width * (seen + (proj === undefined ? 0 : width / (sizes?.['heads'] ?? 1)));
	},
};

const kindOf = ({ op, inputs }: Operation): WorkKind => (op in KERNEL_INPUT ? 'convolution' : op === W8A8 || inputs[1]?.isConstant === true ? 'linear' : 'attention');

const sizeOf = (values: readonly { readonly dims: Operation['outputs'][number]['dims'] }[]): number => values.reduce((sum, { dims }) => sum + elements(dims), 0);

/** Numbers read and written. Of a table only the rows that are gathered are read. */
const movedBy = ({ op, inputs, outputs }: Operation): number =>
	(FREE.has(op) ? 0 : op === WRITES_INTO ? sizeOf(inputs.slice(1)) + sizeOf(inputs.slice(2)) : sizeOf(outputs) + (op === 'Gather' ? sizeOf(outputs) + sizeOf(inputs.slice(1)) : sizeOf(inputs)));

/** A dimension, which may be the name of another, or a sum or product of names and numbers (past+192, window*64). */
const sizeOfDimension = (dimension: Dimension, symbols: Symbols): Dimension => {
	if (typeof dimension === 'number') {
		return dimension;
	}
	const parts = dimension.split('+').map((part) => part.split('*').reduce((product, factor) => product * (symbols[factor] ?? Number(factor)), 1));
	return parts.every(Number.isFinite) ? parts.reduce((total, part) => total + part, 0) : dimension;
};

type Shaped = { readonly dims: readonly Dimension[] };

const sized = <T extends Shaped>(value: T, symbols: Symbols): T => ({ ...value, dims: value.dims.map((dimension) => sizeOfDimension(dimension, symbols)) });

const sizedOperations = (operations: readonly Operation[], symbols: Symbols): readonly Operation[] =>
	operations.map((operation) => ({ ...operation, inputs: operation.inputs.map((value) => sized(value, symbols)), outputs: operation.outputs.map((value) => sized(value, symbols)) }));

/** Throws `internal` where a size of a product is not known. */
export const graphWork = ({ operations }: Pick<Graph, 'operations'>, symbols: Symbols = {}): GraphWork => {
	const flops = { linear: 0, attention: 0, convolution: 0 };
	let trafficBytes = 0;
	for (const operation of sizedOperations(operations, symbols)) {
		trafficBytes += FLOAT_BYTES * movedBy(operation);
		const own = KERNEL_FLOPS[operation.op];
		if (own !== undefined) {
			flops.attention += own(operation);
		} else if (operation.op === FUSED_ATTENTION) {
			flops.attention += fusedFlops(operation);
		} else if (operation.op in KERNEL_INPUT || PRODUCTS.has(operation.op)) {
			const outputs = sizeOf(operation.outputs);
			flops[kindOf(operation)] += 2 * outputs * sumsOf(operation);
		}
	}
	return { flops, trafficBytes };
};

const bytesOf = ({ type, dims }: { readonly type: string; readonly dims: readonly Dimension[] }): number => (ELEMENT_BYTES[type as ElementType] ?? FLOAT_BYTES) * elements(dims);

/** Bytes of the constants that an operator reads: converted ones as they are once the graph is loaded, and of a table the rows that are looked up. */
const constantBytes = ({ op, inputs, outputs }: Operation): number => {
	if (!inputs.some(({ isConstant }) => isConstant)) {
		return 0;
	}
	return op === 'Cast' || op === 'Gather' ? outputs.reduce((sum, output) => sum + bytesOf(output), 0) : inputs.reduce((sum, input) => sum + (input.isConstant ? bytesOf(input) : 0), 0);
};

/**
 * Bytes that a run must read and write however its operators are joined: constants, inputs, and outputs, those named in `fetched` or all. A constant
 * counts for each operator that reads it, and of an output that is written in place what is written.
 */
export const leastBytes = ({ operations, inputs, outputs }: Pick<Graph, 'operations' | 'inputs' | 'outputs'>, symbols: Symbols = {}, fetched?: readonly string[]): number => {
	const inPlace = new Map(operations.flatMap(({ op, inputs: [, , updates], outputs: [output] }) => (op === WRITES_INTO && updates !== undefined && output !== undefined ? [[output.name, updates] as const] : [])));
	const written = outputs.filter(({ name }) => fetched?.includes(name) ?? true).map((output) => inPlace.get(output.name) ?? output);
	const faces: readonly { readonly type: string; readonly dims: readonly Dimension[] }[] = [...inputs, ...written];
	return sizedOperations(operations, symbols).reduce((sum, operation) => sum + constantBytes(operation), faces.reduce((sum, face) => sum + bytesOf(sized(face, symbols)), 0));
};

/** Bytes of the largest result of an operator. */
export const largestBytes = ({ operations }: Pick<Graph, 'operations'>, symbols: Symbols = {}): number =>
	sizedOperations(operations, symbols).reduce((most, { outputs }) => Math.max(most, ...outputs.map(bytesOf)), 0);
