/** How much a graph computes and moves, counted from its nodes: for the distance to what a processor could do. */
import { TurbocastError } from '../protocol/errors.js';
import { elements } from './graph-builder.js';
import type { Graph, Operation } from './graph.js';

/** Multiplications by weights, multiplications of activations with each other (attention), convolutions. */
export const WORK_KINDS = ['linear', 'attention', 'convolution'] as const;
export type WorkKind = (typeof WORK_KINDS)[number];

export type GraphWork = {
	/** A multiplication with its addition counts 2. What works element by element is not counted: it is bound by memory. */
	readonly flops: { readonly [K in WorkKind]: number };
	/** Float32 bytes that all nodes read and write when none are fused. */
	readonly trafficBytes: number;
};

const FLOAT_BYTES = 4;
const PRODUCTS: ReadonlySet<string> = new Set(['Gemm', 'MatMul', 'MatMulInteger', 'MatMulIntegerToFloat', 'DynamicQuantizeMatMul']);
/** They only name the same numbers anew. */
const FREE: ReadonlySet<string> = new Set(['Reshape', 'Identity']);

/** Sums that make one output: the inner size of a product, or a convolution's inputs times its kernel. */
const sumsOf = ({ op, name, inputs }: Operation): number => {
	const [a, b] = inputs;
	const inner = op === 'Conv' ? elements(b?.dims.slice(1) ?? []) : a?.dims.at(-1);
	if (typeof inner !== 'number' || !Number.isFinite(inner)) {
		throw new TurbocastError('internal', `The work of ${name} cannot be counted: its size is not known.`);
	}
	return inner;
};

const kindOf = ({ op, inputs }: Operation): WorkKind => (op === 'Conv' ? 'convolution' : inputs[1]?.isConstant === true ? 'linear' : 'attention');

const sizeOf = (values: readonly { readonly dims: Operation['outputs'][number]['dims'] }[]): number => values.reduce((sum, { dims }) => sum + elements(dims), 0);

/** Numbers read and written. Of a table only the rows that are gathered are read. */
const movedBy = ({ op, inputs, outputs }: Operation): number =>
	(FREE.has(op) ? 0 : sizeOf(outputs) + (op === 'Gather' ? sizeOf(outputs) + sizeOf(inputs.slice(1)) : sizeOf(inputs)));

export const graphWork = ({ operations }: Pick<Graph, 'operations'>): GraphWork => {
	const flops = { linear: 0, attention: 0, convolution: 0 };
	let trafficBytes = 0;
	for (const operation of operations) {
		trafficBytes += FLOAT_BYTES * movedBy(operation);
		if (operation.op === 'Conv' || PRODUCTS.has(operation.op)) {
			const outputs = sizeOf(operation.outputs);
			flops[kindOf(operation)] += 2 * outputs * sumsOf(operation);
		}
	}
	return { flops, trafficBytes };
};
