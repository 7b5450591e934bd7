/** Linear layers: float32, float16, or 8-bit weights with activations quantised as they come. x is float32, or float16 where that is what they multiply in. */
import type { GraphBuilder, Value } from './graph-builder.js';
import { kernelTakesLinear, w8a8Linear, w8a8Quantize } from './kernel-operators.js';
import { cast, linear, split } from './operators.js';
import { quantizeColumns } from './quantize.js';
import { quantizeTiles, tilesAcross } from './w8a8.js';
import type { Weights } from './weights.js';

/** A layer `NAME.weight` [outputs, inputs] and, unless it has none, `NAME.bias` [outputs]. */
export type LinearLayer = { readonly name: string; readonly outputs: number; readonly inputs: number };

/** Layers that read the same x [tokens, inputs]; one [tokens, outputs] for each. */
export type LinearLayers = (g: GraphBuilder, x: Value, layers: readonly LinearLayer[]) => Value[];

export const floatLinears = (weights: Weights, bias: 'bias' | 'no bias' = 'bias'): LinearLayers => (g, x, layers) =>
	layers.map(({ name, outputs, inputs }) =>
		linear(g, name, x, weights.value(g, `${name}.weight`, [outputs, inputs]), bias === 'bias' ? weights.value(g, `${name}.bias`, [outputs]) : undefined));

const asHalf = (g: GraphBuilder, layers: readonly LinearLayer[], x: Value): Value =>
	(x.type === 'float16' ? x : cast(g, `${layers.map((layer) => layer.name).join('+')}/x`, x, 'float16'));

/** Products in float16, for processors that are fast at them; what comes in and goes out is float32. Weights are rounded when the graph is loaded. */
export const halfLinears = (weights: Weights): LinearLayers => (g, x, layers) => {
	const half = asHalf(g, layers, x);
	return layers.map(({ name, outputs, inputs }) => cast(g, `${name}/y`,
		linear(g, name, half, weights.half(g, `${name}.weight`, [outputs, inputs]), weights.half(g, `${name}.bias`, [outputs])), 'float32'));
};

/** A weight in 8-bit tiles, made here of its numbers. */
const quantizedTiles = (g: GraphBuilder, weights: Weights, name: string, shape: readonly [number, number]): { readonly values: Value; readonly scales: Value } => {
	const { values, scales } = quantizeTiles(weights.floats(name, shape), ...shape);
	return { values: g.constant(`${name}/int8`, 'int8', shape, values), scales: g.floats(`${name}/scale`, [tilesAcross(shape[0]), tilesAcross(shape[1])], scales) };
};

/**
 * With the kernels of native/cuda: layers that are stored in 8-bit tiles multiply them as they are (W8A8), activations in tiles of their own; others too if they are to be
 * `quantized`, the tiles made when the graph is built; what is left as `halfLinears`. What comes out is float32.
 */
export const kernelLinears = (weights: Weights, others: 'quantized' | 'float16' = 'float16'): LinearLayers => (g, x, layers) => {
	const half = asHalf(g, layers, x);
	let tiles: ReturnType<typeof w8a8Quantize> | undefined;
	return layers.flatMap((layer) => {
		const { name, outputs, inputs } = layer;
		const tilesOf = () => weights.tiles(g, `${name}.weight`, [outputs, inputs]) ?? (others === 'quantized' ? quantizedTiles(g, weights, `${name}.weight`, [outputs, inputs]) : undefined);
		const weight = kernelTakesLinear(layer) ? tilesOf() : undefined;
		if (weight === undefined) {
			return halfLinears(weights)(g, half, [layer]);
		}
		tiles ??= w8a8Quantize(g, `${name}/x8`, half);
		return [cast(g, `${name}/y`, w8a8Linear(g, name, tiles, weight, weights.half(g, `${name}.bias`, [outputs])), 'float32')];
	});
};

/** Side of the squares in which a matrix is turned over: both sides of one stay in the processor's cache. */
const TURN = 64;

/** `values` [outputs, inputs] to the columns from `first` on of `columns` [inputs, width]. */
const transposeInto = (columns: Int8Array, first: number, width: number, values: Int8Array, { outputs, inputs }: LinearLayer): void => {
	for (let top = 0; top < outputs; top += TURN) {
		const bottom = Math.min(outputs, top + TURN);
		for (let left = 0; left < inputs; left += TURN) {
			const right = Math.min(inputs, left + TURN);
			for (let input = left; input < right; input++) {
				for (let output = top; output < bottom; output++) {
					columns[input * width + first + output] = values[output * inputs + input] ?? 0;
				}
			}
		}
	}
};

/**
 * Weights are signed 8-bit with a scale per output (unsigned ones take a path without AMX or VNNI; where signed ones would saturate, the
 * backend makes them unsigned), activations unsigned with
 * a scale per call. Layers that read the same x become one multiplication, so that x is quantised once.
 */
export const int8Linears = (weights: Weights): LinearLayers => (g, x, layers) => {
	const inputs = layers[0]?.inputs ?? 0;
	const outputs = layers.reduce((sum, layer) => sum + layer.outputs, 0);
	const name = layers.map((layer) => layer.name).join('+');
	const scales = new Float32Array(outputs);
	const bias = new Float32Array(outputs);
	const columns = new Int8Array(inputs * outputs);
	let first = 0;
	for (const layer of layers) {
		const quantized = quantizeColumns(weights.floats(`${layer.name}.weight`, [layer.outputs, layer.inputs]), layer.outputs, layer.inputs);
		scales.set(quantized.scales, first);
		bias.set(weights.floats(`${layer.name}.bias`, [layer.outputs]), first);
		transposeInto(columns, first, outputs, quantized.values, layer);
		first += layer.outputs;
	}
	if (x.dims.length !== 2 || x.dims[1] !== inputs) {
		g.fail(name, `[${x.dims.join(', ')}] is no input for ${inputs} features`);
	}
	const y = g.node({
		op: 'DynamicQuantizeMatMul', domain: 'com.microsoft', name, type: 'float32', dims: [x.dims[0] ?? 0, outputs],
		inputs: [
			x, g.constant(`${name}/weight`, 'int8', [inputs, outputs], columns), g.floats(`${name}/scale`, [outputs], scales),
			undefined, g.floats(`${name}/bias`, [outputs], bias),
		],
	});
	return layers.length === 1 ? [y] : split(g, `${name}/split`, y, 1, layers.map((layer) => layer.outputs));
};
