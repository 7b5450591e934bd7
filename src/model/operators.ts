/**
 * ONNX operators, one function each: inputs are checked and shapes worked out while building, so that a mistake is found where
 * it is made and not in the tensor library. Semantics are those of the ONNX operator specification, opset 23.
 */
import { elements, type GraphBuilder, shapeText, type Value } from './graph-builder.js';
import type { Dimension } from './graph.js';
import { ELEMENT_TYPES, type ElementType } from './onnx-proto.js';

const broadcast = (g: GraphBuilder, name: string, a: Value, b: Value): Dimension[] => {
	const rank = Math.max(a.dims.length, b.dims.length);
	return Array.from({ length: rank }, (_, axis) => {
		const left = a.dims[axis - rank + a.dims.length] ?? 1;
		const right = b.dims[axis - rank + b.dims.length] ?? 1;
		if (left !== right && left !== 1 && right !== 1) {
			g.fail(name, `${shapeText(a.dims)} and ${shapeText(b.dims)} cannot be broadcast`);
		}
		return left === 1 ? right : left;
	});
};

const sameType = (g: GraphBuilder, name: string, values: readonly Value[]): ElementType => {
	const type = values[0]?.type ?? 'float32';
	if (values.some((value) => value.type !== type)) {
		g.fail(name, `the inputs have different types: ${values.map((value) => value.type).join(', ')}`);
	}
	return type;
};

const binary = (op: string) => (g: GraphBuilder, name: string, a: Value, b: Value): Value =>
	g.node({ op, name, inputs: [a, b], type: sameType(g, name, [a, b]), dims: broadcast(g, name, a, b) });

const unary = (op: string, attributes: Parameters<GraphBuilder['node']>[0]['attributes'] = {}) => (g: GraphBuilder, name: string, x: Value): Value =>
	g.node({ op, name, inputs: [x], attributes, type: x.type, dims: x.dims });

export const add = binary('Add');
export const subtract = binary('Sub');
export const multiply = binary('Mul');
export const divide = binary('Div');
export const relu = unary('Relu');
export const absolute = unary('Abs');
export const sigmoid = unary('Sigmoid');
export const geluTanh = unary('Gelu', { approximate: { string: 'tanh' } });
/** Over the last axis. */
export const softmax = unary('Softmax', { axis: { int: -1 } });

export const silu = (g: GraphBuilder, name: string, x: Value): Value => multiply(g, name, x, sigmoid(g, `${name}/sigmoid`, x));

export const clip = (g: GraphBuilder, name: string, x: Value, min: number, max: number): Value =>
	g.node({ op: 'Clip', name, inputs: [x, g.float(`${name}/min`, min), g.float(`${name}/max`, max)], type: x.type, dims: x.dims });

export const cast = (g: GraphBuilder, name: string, x: Value, type: ElementType): Value =>
	g.node({ op: 'Cast', name, inputs: [x], attributes: { to: { int: ELEMENT_TYPES[type] } }, type, dims: x.dims });

/** [..., m, k] x [..., k, n]. */
export const matMul = (g: GraphBuilder, name: string, a: Value, b: Value): Value => {
	if (a.dims.length < 2 || b.dims.length < 2 || a.dims.at(-1) !== b.dims.at(-2)) {
		g.fail(name, `${shapeText(a.dims)} and ${shapeText(b.dims)} cannot be multiplied`);
	}
	const batch = broadcast(g, name, { ...a, dims: a.dims.slice(0, -2) }, { ...b, dims: b.dims.slice(0, -2) });
	return g.node({ op: 'MatMul', name, inputs: [a, b], type: sameType(g, name, [a, b]), dims: [...batch, a.dims.at(-2) ?? 0, b.dims.at(-1) ?? 0] });
};

/** x [m, k] times weight [n, k] transposed (as PyTorch's Linear has it), plus bias [n]: [m, n]. */
export const linear = (g: GraphBuilder, name: string, x: Value, weight: Value, bias?: Value): Value => {
	const [outputs = 0, inputs] = weight.dims;
	if (x.dims.length !== 2 || weight.dims.length !== 2 || x.dims[1] !== inputs || (bias !== undefined && (bias.dims.length !== 1 || bias.dims[0] !== outputs))) {
		g.fail(name, `input ${shapeText(x.dims)}, weight ${shapeText(weight.dims)} and bias ${shapeText(bias?.dims ?? [])} do not fit`);
	}
	return g.node({ op: 'Gemm', name, inputs: [x, weight, bias], attributes: { transB: { int: 1 } }, type: sameType(g, name, [x, weight]), dims: [x.dims[0] ?? 0, outputs] });
};

export const transpose = (g: GraphBuilder, name: string, x: Value, order: readonly number[]): Value => {
	if (order.length !== x.dims.length || [...order].sort((a, b) => a - b).some((axis, index) => axis !== index)) {
		g.fail(name, `[${order.join(', ')}] is no order of the axes of ${shapeText(x.dims)}`);
	}
	return g.node({ op: 'Transpose', name, inputs: [x], attributes: { perm: { ints: order } }, type: x.type, dims: order.map((axis) => x.dims[axis] ?? 0) });
};

const symbolsOf = (dims: readonly Dimension[]): string => dims.filter((dimension) => typeof dimension === 'string').join(', ');
const known = (dims: readonly Dimension[]): number => elements(dims.filter((dimension) => typeof dimension === 'number'));

/** At most one dimension may be symbolic, and stays by itself: the others are regrouped. */
export const reshape = (g: GraphBuilder, name: string, x: Value, dims: readonly Dimension[]): Value => {
	if (known(x.dims) !== known(dims) || symbolsOf(x.dims) !== symbolsOf(dims) || symbolsOf(dims).includes(', ')) {
		g.fail(name, `${shapeText(x.dims)} cannot become ${shapeText(dims)}`);
	}
	return g.node({ op: 'Reshape', name, inputs: [x, g.integers(`${name}/shape`, dims.map((dimension) => (typeof dimension === 'number' ? dimension : -1)))], type: x.type, dims });
};

/** A first axis of size 1; the others may be symbolic. */
export const unsqueeze = (g: GraphBuilder, name: string, x: Value): Value =>
	g.node({ op: 'Unsqueeze', name, inputs: [x, g.integers(`${name}/axis`, [0])], type: x.type, dims: [1, ...x.dims] });

export const concat = (g: GraphBuilder, name: string, values: readonly Value[], axis: number): Value => {
	const first = values[0] ?? g.fail(name, 'there is nothing to join');
	for (const value of values) {
		if (value.dims.length !== first.dims.length || value.dims.some((dimension, index) => index !== axis && dimension !== first.dims[index])) {
			g.fail(name, `${values.map((each) => shapeText(each.dims)).join(' and ')} cannot be joined along axis ${axis}`);
		}
	}
	const joined = values.map((value) => value.dims[axis] ?? 0);
	const sum = joined.every((dimension) => typeof dimension === 'number') ? joined.reduce((total, dimension) => total + dimension, 0) : joined.join('+');
	const dims = first.dims.map((dimension, index) => (index === axis ? sum : dimension));
	return g.node({ op: 'Concat', name, inputs: values, attributes: { axis: { int: axis } }, type: sameType(g, name, values), dims });
};

export const split = (g: GraphBuilder, name: string, x: Value, axis: number, sizes: readonly number[]): Value[] => {
	if (sizes.reduce((sum, size) => sum + size, 0) !== x.dims[axis]) {
		g.fail(name, `${shapeText(x.dims)} cannot be split into [${sizes.join(', ')}] along axis ${axis}`);
	}
	return g.nodes({
		op: 'Split', name, inputs: [x, g.integers(`${name}/sizes`, sizes)], attributes: { axis: { int: axis } },
		results: sizes.map((size) => ({ type: x.type, dims: x.dims.map((dimension, index) => (index === axis ? size : dimension)) })),
	});
};

/** From `start` up to but not including `end`. */
export const slice = (g: GraphBuilder, name: string, x: Value, axis: number, start: number, end: number): Value => {
	const size = x.dims[axis];
	if (typeof size !== 'number' || start < 0 || end > size || start >= end) {
		g.fail(name, `${start} to ${end} does not lie in axis ${axis} of ${shapeText(x.dims)}`);
	}
	return g.node({
		op: 'Slice', name, type: x.type, dims: x.dims.map((dimension, index) => (index === axis ? end - start : dimension)),
		inputs: [x, g.integers(`${name}/start`, [start]), g.integers(`${name}/end`, [end]), g.integers(`${name}/axis`, [axis])],
	});
};

/** Zeros after the end of an axis, until it is `size` long. */
export const padEnd = (g: GraphBuilder, name: string, x: Value, axis: number, size: number): Value => {
	const have = x.dims[axis];
	if (typeof have !== 'number' || have > size) {
		g.fail(name, `axis ${axis} of ${shapeText(x.dims)} cannot grow to ${size}`);
	}
	const pads = new Array<number>(2 * x.dims.length).fill(0);
	pads[x.dims.length + axis] = size - have;
	return have === size ? x : g.node({ op: 'Pad', name, inputs: [x, g.integers(`${name}/pads`, pads)], type: x.type, dims: x.dims.map((dimension, index) => (index === axis ? size : dimension)) });
};

/** Where the `count` largest of the last axis are, in no order: int64 [..., count]. */
export const largest = (g: GraphBuilder, name: string, x: Value, count: number): Value => {
	const size = x.dims.at(-1);
	if (typeof size !== 'number' || count < 1 || count > size) {
		g.fail(name, `${count} of the last axis of ${shapeText(x.dims)} cannot be taken`);
	}
	const dims = [...x.dims.slice(0, -1), count];
	return g.nodes({
		op: 'TopK', name, inputs: [x, g.integers(`${name}/count`, [count])], attributes: { axis: { int: -1 }, largest: { int: 1 }, sorted: { int: 0 } },
		results: [{ type: x.type, dims }, { type: 'int64', dims }],
	})[1] as Value;
};

/** x repeated to `dims`, which it can be broadcast to. */
export const expand = (g: GraphBuilder, name: string, x: Value, dims: readonly number[]): Value =>
	g.node({ op: 'Expand', name, inputs: [x, g.integers(`${name}/shape`, dims)], type: x.type, dims: broadcast(g, name, x, { ...x, dims }) });

/** Rows of `table` [n, ...] at `indices`. */
export const gather = (g: GraphBuilder, name: string, table: Value, indices: Value): Value => {
	if (indices.type !== 'int64' || table.dims.length < 1) {
		g.fail(name, `indices must be int64, not ${indices.type}`);
	}
	return g.node({ op: 'Gather', name, inputs: [table, indices], attributes: { axis: { int: 0 } }, type: table.type, dims: [...indices.dims, ...table.dims.slice(1)] });
};

/** `table` [n, ...] with `updates` [m, ...] at the rows that `indices` [m, 1] name. As an output of the graph it may lie where the table does; then nothing but those rows is written. */
export const scatter = (g: GraphBuilder, name: string, table: Value, indices: Value, updates: Value, output?: string): Value => {
	const [rows = 0, ...rest] = updates.dims;
	if (indices.type !== 'int64' || shapeText(indices.dims) !== shapeText([rows, 1]) || shapeText(rest) !== shapeText(table.dims.slice(1))) {
		g.fail(name, `${shapeText(updates.dims)} cannot be put at ${shapeText(indices.dims)} of ${shapeText(table.dims)}`);
	}
	return g.node({ op: 'ScatterND', name, inputs: [table, indices, updates], type: sameType(g, name, [table, updates]), dims: table.dims, ...(output === undefined ? {} : { output }) });
};

/** The first two axes as one: [n, m, d] to [n * m, d]; n may be symbolic. */
export const flatten = (g: GraphBuilder, name: string, x: Value): Value => {
	const [n = 0, m = 0, d = 0] = x.dims;
	if (x.dims.length !== 3 || typeof m !== 'number' || typeof d !== 'number') {
		g.fail(name, `${shapeText(x.dims)} has no two axes to join`);
	}
	const rows = typeof n === 'number' ? n * m : `${n}*${m}`;
	return g.node({ op: 'Reshape', name, inputs: [x, g.integers(`${name}/shape`, [-1, d])], type: x.type, dims: [rows, d] });
};

/** Sum over `axis`, which is kept with size 1. */
export const sum = (g: GraphBuilder, name: string, x: Value, axis: number): Value =>
	g.node({ op: 'ReduceSum', name, inputs: [x, g.integers(`${name}/axis`, [axis])], type: x.type, dims: x.dims.map((dimension, index) => (index === axis ? 1 : dimension)) });

/** Largest over `axis`, which is kept with size 1. */
export const maximum = (g: GraphBuilder, name: string, x: Value, axis: number): Value =>
	g.node({ op: 'ReduceMax', name, inputs: [x, g.integers(`${name}/axis`, [axis])], type: x.type, dims: x.dims.map((dimension, index) => (index === axis ? 1 : dimension)) });

/** Over the last axis; `weight` and `bias` [last]. */
export const layerNorm = (g: GraphBuilder, name: string, x: Value, weight: Value, bias: Value | undefined, epsilon: number): Value => {
	if (weight.dims.length !== 1 || weight.dims[0] !== x.dims.at(-1)) {
		g.fail(name, `input ${shapeText(x.dims)} and weight ${shapeText(weight.dims)} do not fit`);
	}
	return g.node({ op: 'LayerNormalization', name, inputs: [x, weight, bias], attributes: { axis: { int: -1 }, epsilon: { float: epsilon } }, type: x.type, dims: x.dims });
};

/** Over the last axis; `weight` [last]. */
export const rmsNorm = (g: GraphBuilder, name: string, x: Value, weight: Value, epsilon: number): Value => {
	if (weight.dims.length !== 1 || weight.dims[0] !== x.dims.at(-1)) {
		g.fail(name, `input ${shapeText(x.dims)} and weight ${shapeText(weight.dims)} do not fit`);
	}
	return g.node({ op: 'RMSNormalization', name, inputs: [x, weight], attributes: { axis: { int: -1 }, epsilon: { float: epsilon } }, type: x.type, dims: x.dims });
};

/** Rotates pairs (2i, 2i + 1) of each head; x [1, tokens, heads * d], cos and sin [1, tokens, d / 2]. */
export const rotary = (g: GraphBuilder, name: string, x: Value, cos: Value, sin: Value, heads: number): Value => {
	const width = x.dims[2];
	if (typeof width !== 'number' || cos.dims[1] !== x.dims[1] || cos.dims[2] !== width / heads / 2 || shapeText(cos.dims) !== shapeText(sin.dims)) {
		g.fail(name, `input ${shapeText(x.dims)}, cos ${shapeText(cos.dims)} and sin ${shapeText(sin.dims)} do not fit ${heads} heads`);
	}
	return g.node({ op: 'RotaryEmbedding', name, inputs: [x, cos, sin], attributes: { interleaved: { int: 1 }, num_heads: { int: heads } }, type: x.type, dims: x.dims });
};

/** x [n, c, h, w], weight [out, c, k, k], bias [out]; zero padding keeps h and w. */
export const convolution = (g: GraphBuilder, name: string, x: Value, weight: Value, bias: Value): Value => {
	const [outputs = 0, inputs, kernel] = weight.dims;
	if (x.dims.length !== 4 || x.dims[1] !== inputs || typeof kernel !== 'number' || kernel % 2 !== 1 || bias.dims[0] !== outputs) {
		g.fail(name, `input ${shapeText(x.dims)} and weight ${shapeText(weight.dims)} do not fit`);
	}
	const pad = ((kernel) - 1) / 2;
	return g.node({
		op: 'Conv', name, inputs: [x, weight, bias], type: sameType(g, name, [x, weight]), dims: [x.dims[0] ?? 0, outputs, x.dims[2] ?? 0, x.dims[3] ?? 0],
		attributes: { kernel_shape: { ints: [kernel, kernel] }, pads: { ints: [pad, pad, pad, pad] } },
	});
};

/** Pixel shuffle by 2 with PyTorch's channel order (c, dy, dx): [n, 4c, h, w] to [n, c, 2h, 2w]. */
export const pixelShuffle = (g: GraphBuilder, name: string, x: Value): Value => {
	const [n = 0, channels, height, width] = x.dims;
	if (typeof channels !== 'number' || channels % 4 !== 0 || typeof height !== 'number' || typeof width !== 'number') {
		return g.fail(name, `${shapeText(x.dims)} cannot be shuffled`);
	}
	return g.node({
		op: 'DepthToSpace', name, inputs: [x], attributes: { blocksize: { int: 2 }, mode: { string: 'CRD' } }, type: x.type, dims: [n, channels / 4, height * 2, width * 2],
	});
};
