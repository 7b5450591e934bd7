/**
 * Layers of video networks whose frames are the batch: x [T, C, H, W]. A convolution over time becomes one over space by laying
 * neighbouring frames side by side as channels, so that the tensor library's fast two-dimensional kernels do all the work.
 */
import type { GraphBuilder, Value } from './graph-builder.js';
import { concat, multiply, slice, transpose } from './operators.js';
import type { Weights } from './weights.js';

type Shape = [number, number, number, number];

/** Zeros around a picture: rows above, columns left, rows below, columns right. */
type Padding = readonly [number, number, number, number];

/** x [T, C, H, W], weight [out, C, kh, kw], bias [out] or none. */
export const planarConvolution = (
	g: GraphBuilder, name: string, x: Value, filter: { readonly weight: Value; readonly bias?: Value | undefined; readonly padding: Padding; readonly stride?: number },
): Value => {
	const { weight, bias, padding, stride = 1 } = filter;
	const [outputs, inputs, rows, columns] = weight.dims as Shape;
	const [frames, channels, height, width] = x.dims as Shape;
	if (channels !== inputs || (bias !== undefined && bias.dims[0] !== outputs)) {
		g.fail(name, `input [${x.dims.join(', ')}] and weight [${weight.dims.join(', ')}] do not fit`);
	}
	const [top, left, bottom, right] = padding;
	return g.node({
		op: 'Conv', name, inputs: [x, weight, bias], type: x.type,
		dims: [frames, outputs, Math.floor((height + top + bottom - rows) / stride) + 1, Math.floor((width + left + right - columns) / stride) + 1],
		attributes: { kernel_shape: { ints: [rows, columns] }, pads: { ints: padding }, strides: { ints: [stride, stride] } },
	});
};

export type ConvolutionShape = { readonly outputs: number; readonly inputs: number; readonly kernel: number };

/** A stored 2-D convolution `NAME.weight`, `NAME.bias`; its size is kept. */
export const frameConvolution = (g: GraphBuilder, weights: Weights, name: string, x: Value, shape: ConvolutionShape & { readonly hasBias?: boolean }): Value => {
	const { outputs, inputs, kernel, hasBias = true } = shape;
	const pad = (kernel - 1) / 2;
	return planarConvolution(g, name, x, {
		weight: weights.value(g, `${name}.weight`, [outputs, inputs, kernel, kernel]), bias: hasBias ? weights.value(g, `${name}.bias`, [outputs]) : undefined, padding: [pad, pad, pad, pad],
	});
};

/**
 * A stored 3-D convolution `NAME.weight` [out, in, kt, k, k] over `frames` [T + kt - 1, in, H, W], which begin with the kt - 1 frames that
 * came before: [T, out, H, W], or every `stride`-th frame of it. No frame after the present one is seen.
 */
export const causalConvolution = (
	g: GraphBuilder, weights: Weights, name: string, frames: Value, shape: ConvolutionShape & { readonly duration: number; readonly stride?: number },
): Value => {
	const { outputs, inputs, kernel, duration, stride = 1 } = shape;
	const stored = weights.value(g, `${name}.weight`, [outputs, inputs, duration, kernel, kernel]);
	const bias = weights.value(g, `${name}.bias`, [outputs]);
	const pad = (kernel - 1) / 2;
	const padding = [pad, pad, pad, pad] as const;
	const total = (frames.dims[0] as number) - duration + 1;
	if (total < 1) {
		g.fail(name, `${frames.dims[0]} frames are fewer than the ${duration} of the kernel`);
	}
	// Folded when the graph is loaded: [out, kt * in, k, k].
	const g2 = g.at(name);
	const byTime = g2.node({
		op: 'Reshape', name: 'weight/planar', type: 'float32', dims: [outputs, duration * inputs, kernel, kernel],
		inputs: [transpose(g2, 'weight/by_time', stored, [0, 2, 1, 3, 4]), g2.integers('weight/shape', [outputs, duration * inputs, kernel, kernel])],
	});
	const every = (offset: number): Value => {
		const part = slice(g2, `frame${offset}`, frames, 0, offset, offset + total);
		const count = Math.floor((total - 1) / stride) + 1;
		return stride === 1 ? part : g2.node({
			op: 'Slice', name: `every${offset}`, type: part.type, dims: [count, ...part.dims.slice(1)],
			inputs: [part, g2.integers(`every${offset}/from`, [0]), g2.integers(`every${offset}/to`, [total]), g2.integers(`every${offset}/axis`, [0]), g2.integers(`every${offset}/step`, [stride])],
		});
	};
	const stacked = duration === 1 ? every(0) : concat(g2, 'stacked', Array.from({ length: duration }, (_, offset) => every(offset)), 1);
	return planarConvolution(g, name, stacked, { weight: byTime, bias, padding });
};

/** x / max(|x|, 1e-12) * sqrt(C) * gamma, the length taken over the C channels; `dims` is the shape in which gamma is stored. */
export const channelNorm = (g: GraphBuilder, weights: Weights, name: string, x: Value, dims: readonly number[]): Value => {
	const [frames, channels, height, width] = x.dims as Shape;
	const g2 = g.at(name);
	const lengths = [frames, 1, height, width];
	const length = g2.node({ op: 'ReduceL2', name: 'length', inputs: [x, g2.integers('axis', [1])], attributes: { keepdims: { int: 1 } }, type: x.type, dims: lengths });
	const divisor = g2.node({ op: 'Max', name: 'divisor', inputs: [length, g2.float('epsilon', 1e-12)], type: x.type, dims: lengths });
	const unit = g2.node({ op: 'Div', name: 'unit', inputs: [x, divisor], type: x.type, dims: x.dims });
	const gamma = weights.floats(`${name}.gamma`, dims).map((value) => value * Math.sqrt(channels));
	return multiply(g2, 'scaled', unit, g2.floats('gamma', [1, channels, 1, 1], gamma));
};

/** Each pixel four times: [T, C, H, W] to [T, C, 2H, 2W]. */
export const doubled = (g: GraphBuilder, name: string, x: Value): Value => {
	const [frames, channels, height, width] = x.dims as Shape;
	return g.node({
		op: 'Resize', name, inputs: [x, undefined, g.floats(`${name}/scales`, [4], [1, 1, 2, 2])], type: x.type, dims: [frames, channels, 2 * height, 2 * width],
		attributes: { mode: { string: 'nearest' }, coordinate_transformation_mode: { string: 'asymmetric' }, nearest_mode: { string: 'floor' } },
	});
};
