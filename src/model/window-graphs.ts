/**
 * Graphs that look at keys and values where a stream keeps them: in windows [W, T, D] that forwards write into (dit.ts). W latent frames, T tokens of one, D = N * d
 * width, N heads.
 */
import { splitHeads } from './attention.js';
import { GraphBuilder, type Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { absolute, cast, concat, gather, reshape, sum } from './operators.js';
import type { StateType } from './state-graphs.js';

export type WindowShape = {
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly tokensPerLatent: number;
	/** Latent frames of a chunk, and of a window. */
	readonly frames: number;
	readonly slots: number;
	readonly type: StateType;
};

export const windowDims = ({ heads, headDim, tokensPerLatent, slots }: WindowShape): readonly [number, number, number] => [slots, tokensPerLatent, heads * headDim];

/** The frames at `at` of a window, in float32. */
const framesOf = (g: GraphBuilder, shape: WindowShape, window: Value, at: Value): Value => {
	const frames = gather(g, 'frames', window, at); // [frames, T, D]
	return shape.type === 'float32' ? frames : cast(g, 'float32', frames, 'float32');
};

/**
 * Inputs: `k.I`, `v.I` [W, T, D] of all layers; `at` int64 [frames]. Output: `magnitudes` float32 [2 * layers], the sums of the absolute values of those frames, finite only if all of
 * them are.
 */
export const windowCheckGraph = (shape: WindowShape): Graph => {
	const g = new GraphBuilder('window-check');
	const at = g.input('at', 'int64', [shape.frames]);
	const count = shape.frames * shape.tokensPerLatent * shape.heads * shape.headDim;
	const magnitudes = Array.from({ length: shape.layers }, (_, layer) => (['k', 'v'] as const).map((kind) => {
		const own = g.at(`${kind}${layer}`);
		const frames = framesOf(own, shape, g.input(`${kind}.${layer}`, shape.type, windowDims(shape)), at);
		return reshape(own, 'magnitude', sum(own, 'total', reshape(own, 'flat', absolute(own, 'absolute', frames), [1, count]), 1), [1]);
	})).flat();
	g.output('magnitudes', concat(g, 'joined', magnitudes, 0));
	return g.finish();
};

/** Inputs: `window` [W, T, D]; `at` int64 [frames]. Output: `kept` float32 [N, frames * T, d], as streams are handed over. */
export const windowReadGraph = (shape: WindowShape): Graph => {
	const g = new GraphBuilder('window-read');
	const window = g.input('window', shape.type, windowDims(shape));
	const frames = framesOf(g, shape, window, g.input('at', 'int64', [shape.frames]));
	g.output('kept', splitHeads(g, 'heads', reshape(g, 'tokens', frames, [shape.frames * shape.tokensPerLatent, shape.heads * shape.headDim]), shape.heads));
	return g.finish();
};
