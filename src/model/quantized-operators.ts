/** 8-bit operators with static scales: value = (byte - zero) * scale. */
import type { GraphBuilder, Value } from './graph-builder.js';
import { quantizeColumns } from './quantize.js';

/** An unsigned 8-bit tensor and what its bytes mean. */
export type Quantized = { readonly value: Value; readonly scale: number; readonly zero: number };

/** What an output's bytes shall mean. */
export type Steps = { readonly scale: number; readonly zero: number };

/** Smallest end of a range: a scale must not be 0, even of an activation that never lit. */
const SMALLEST_RANGE = 1e-6;
const MAX_UINT8 = 255;
const MAX_INT32 = 2 ** 31 - 1;

/** The range [-below, above] on 256 steps, 0 exactly on one of them. Values outside saturate; below = 0 is a relu. */
export const stepsOver = (below: number, above: number): Steps => {
	const scale = Math.fround(Math.max(below + above, SMALLEST_RANGE) / MAX_UINT8);
	return { scale, zero: Math.round(below / scale) };
};

const scaleAndZero = (g: GraphBuilder, name: string, steps: Steps): [Value, Value] =>
	[g.float(`${name}/scale`, steps.scale), g.constant(`${name}/zero`, 'uint8', [], Uint8Array.of(steps.zero))];

export const quantize = (g: GraphBuilder, name: string, x: Value, steps: Steps): Quantized => ({
	value: g.node({ op: 'QuantizeLinear', name, inputs: [x, ...scaleAndZero(g, name, steps)], type: 'uint8', dims: x.dims }), scale: steps.scale, zero: steps.zero,
});

export const dequantize = (g: GraphBuilder, name: string, x: Quantized): Value =>
	g.node({ op: 'DequantizeLinear', name, inputs: [x.value, ...scaleAndZero(g, name, x)], type: 'float32', dims: x.value.dims });

export type ConvolutionWeights = {
	/** [outputs, inputs, kernel, kernel] */
	readonly weight: Float32Array;
	/** [outputs] */
	readonly bias: Float32Array;
	readonly outputs: number;
	readonly inputs: number;
	readonly kernel: number;
};

/** x [n, h, w, inputs] to [n, h, w, outputs], channels last, as the 8-bit kernels want them; zero padding. */
export const quantizedConvolution = (g: GraphBuilder, name: string, x: Quantized, weights: ConvolutionWeights, out: Steps): Quantized => {
	const { outputs, inputs, kernel } = weights;
	const [frames = 0, height = 0, width = 0, channels] = x.value.dims;
	if (channels !== inputs) {
		g.fail(name, `[${x.value.dims.join(', ')}] is no input for ${inputs} channels`);
	}
	const { values, scales } = quantizeColumns(weights.weight, outputs, inputs * kernel * kernel);
	// The operator takes the bias in units of (input step * weight step).
	const bias = Int32Array.from(weights.bias, (value, output) => {
		const units = Math.round(value / (x.scale * (scales[output] ?? 1)));
		return Math.max(-MAX_INT32, Math.min(MAX_INT32, units));
	});
	const pad = (kernel - 1) / 2;
	const value = g.node({
		op: 'QLinearConv', domain: 'com.microsoft', name, type: 'uint8', dims: [frames, height, width, outputs],
		attributes: { channels_last: { int: 1 }, kernel_shape: { ints: [kernel, kernel] }, pads: { ints: [pad, pad, pad, pad] } },
		inputs: [
			x.value, ...scaleAndZero(g, `${name}/x`, x),
			g.constant(`${name}/weight`, 'int8', [outputs, inputs, kernel, kernel], values),
			g.floats(`${name}/weight/scale`, [outputs], scales), g.constant(`${name}/weight/zero`, 'int8', [outputs], new Int8Array(outputs)),
			...scaleAndZero(g, `${name}/y`, out), g.constant(`${name}/bias`, 'int32', [outputs], bias),
		],
	});
	return { value, scale: out.scale, zero: out.zero };
};

export const quantizedAdd = (g: GraphBuilder, name: string, a: Quantized, b: Quantized, out: Steps): Quantized => ({
	value: g.node({
		op: 'QLinearAdd', domain: 'com.microsoft', name, type: 'uint8', dims: a.value.dims,
		inputs: [a.value, ...scaleAndZero(g, `${name}/a`, a), b.value, ...scaleAndZero(g, `${name}/b`, b), ...scaleAndZero(g, `${name}/y`, out)],
	}),
	scale: out.scale, zero: out.zero,
});
