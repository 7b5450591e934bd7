/**
 * What a device can do at most, measured by small graphs through the same runtime as the networks: how fast it copies, and how fast it multiplies
 * matrices in each kind of numbers. Every graph is run with few and with many of the operations; the difference leaves out what a run costs by itself.
 */
import type { Backend, Feeds, Graph } from '../engine/backend.js';
import { toFloat16 } from '../model/float16.js';
import { GraphBuilder, type Value } from '../model/graph-builder.js';
import { int8Linears, kernelLinears } from '../model/linear-layers.js';
import { cast, expand, matMul, multiply, slice } from '../model/operators.js';
import { encodeSafetensors, parseSafetensors } from '../model/safetensors.js';
import { Weights } from '../model/weights.js';
import type { MatrixType } from './matrix-type.js';
import { repeatedNoise } from './random-weights.js';


export type DeviceLimits = {
	/** Bytes read and written. */
	readonly copyBytesPerSecond: number;
	/** A multiplication with its addition counts 2. Only of the kinds that were asked for. */
	readonly flopsPerSecond: { readonly [T in MatrixType]?: number };
};

const [FEW, MANY] = [1, 5];
/** The largest that a device takes, and copies in less than LONG_COPY_MS: beyond what caches of processors and cards hold. */
const COPIED_BYTES = [16, 64, 256].map((megabytes) => megabytes * 1024 * 1024);
const LONG_COPY_MS = 40;
/** Sides of square matrices, larger ones only where a product takes less than LONG_PRODUCT_MS. */
const SIDES = [128, 256, 512, 1024, 2048, 4096, 8192];
const LONG_PRODUCT_MS = 5;
/** Fewer where they take long: software drivers do. */
const RUNS = 3;
const LONG_RUNS_MS = 1000;

const FLOAT_BYTES = 4;

/** x, times s again and again: each reads and writes all of it. One number comes back. */
const copyGraph = (numbers: number, times: number): Graph => {
	const g = new GraphBuilder('bench-copy');
	let x = expand(g, 'x', g.input('start', 'float32', [1]), [numbers]);
	const s = g.input('s', 'float32', [1]);
	for (let index = 0; index < times; index++) {
		x = multiply(g, `copy${index}`, x, s);
	}
	g.output('last', slice(g, 'last/number', x, 0, numbers - 1, numbers));
	return g.finish();
};

const squareWeights = (side: number): { readonly weights: Weights; readonly data: Float32Array } => {
	const data = repeatedNoise(side * side, 1 / Math.sqrt(side));
	return {
		data, weights: new Weights(parseSafetensors('bench', encodeSafetensors({
			'layer.weight': { dtype: 'F32', shape: [side, side], data }, 'layer.bias': { dtype: 'F32', shape: [side], data: new Float32Array(side) },
		}))),
	};
};

const productGraph = (type: MatrixType, side: number, times: number, hasKernels: boolean): Graph => {
	const g = new GraphBuilder('bench-matrix');
	const { weights, data } = squareWeights(side);
	const start = g.input('start', 'float32', [side, side]);
	let x: Value = type === 'float16' ? cast(g, 'half', start, 'float16') : start;
	// No operator of the library multiplies in 8 bits on a card.
	const layers = hasKernels ? kernelLinears(weights, 'quantized') : int8Linears(weights);
	const w = type === 'float32' ? g.floats('w', [side, side], data) : type === 'float16' ? g.constant('w', 'float16', [side, side], toFloat16(data)) : undefined;
	for (let index = 0; index < times; index++) {
		const at = g.at(`product${index}`);
		x = w === undefined ? layers(at, x, [{ name: 'layer', outputs: side, inputs: side }])[0] as Value : matMul(at, 'y', x, w);
	}
	const last = slice(g, 'last/row', x, 0, side - 1, side);
	g.output('last', type === 'float16' ? cast(g, 'last/float32', last, 'float32') : last);
	return g.finish();
};

/** Milliseconds of one operation. */
const timeOfOne = async (backend: Backend, graphOf: (times: number) => Graph, feeds: Feeds, nowMs: () => number): Promise<number> => {
	const fastest: number[] = [];
	for (const times of [FEW, MANY]) {
		const session = await backend.load(graphOf(times));
		try {
			await session.run(feeds);
			let best = Number.POSITIVE_INFINITY;
			const endMs = nowMs() + LONG_RUNS_MS;
			for (let run = 0; run < RUNS && (run === 0 || nowMs() < endMs); run++) {
				const startMs = nowMs();
				await session.run(feeds);
				best = Math.min(best, nowMs() - startMs);
			}
			fastest.push(best);
		} finally {
			await session.close();
		}
	}
	const [few = 0, many = 0] = fastest;
	// Where the difference drowns in what else happens, the whole is a bound.
	return many > few ? (many - few) / (MANY - FEW) : many / MANY;
};

const copyRate = async (backend: Backend, nowMs: () => number): Promise<number> => {
	const one = { type: 'float32' as const, dims: [1], data: Float32Array.of(1) };
	let rate: number | undefined;
	for (const bytes of COPIED_BYTES) {
		try {
			const ms = await timeOfOne(backend, (times) => copyGraph(bytes / FLOAT_BYTES, times), { start: one, s: one }, nowMs);
			rate = 2 * bytes / (ms / 1000);
			if (ms > LONG_COPY_MS) {
				break;
			}
		} catch (error) {
			// Too large for the device, unless nothing was measured before.
			if (rate === undefined) {
				throw error;
			}
			break;
		}
	}
	return rate ?? Number.NaN;
};

const matrixRate = async (backend: Backend, type: MatrixType, nowMs: () => number): Promise<number> => {
	let best = 0;
	for (const side of SIDES) {
		const start = repeatedNoise(side * side, 1, 4);
		const ms = await timeOfOne(backend, (times) => productGraph(type, side, times, backend.hasKernels ?? false), { start: { type: 'float32', dims: [side, side], data: start } }, nowMs);
		best = Math.max(best, 2 * side ** 3 / (ms / 1000));
		if (ms > LONG_PRODUCT_MS) {
			break;
		}
	}
	return best;
};

export const measureLimits = async (backend: Backend, types: readonly MatrixType[], nowMs: () => number): Promise<DeviceLimits> => {
	const flopsPerSecond: { [T in MatrixType]?: number } = {};
	for (const type of types) {
		flopsPerSecond[type] = await matrixRate(backend, type, nowMs);
	}
	return { copyBytesPerSecond: await copyRate(backend, nowMs), flopsPerSecond };
};
