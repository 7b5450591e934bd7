/** Graphs that compute nothing: they move the state of streams on a device. */
import { GraphBuilder, type Value } from './graph-builder.js';
import type { Graph, TensorType } from './graph.js';
import { absolute, cast, concat, expand, reshape, slice, sum } from './operators.js';

export type StateType = 'float32' | 'float16';

/** `x` [n] to `y` [n], in other numbers if asked for. */
export const transferGraph = (name: string, from: StateType, to: StateType): Graph => {
	const g = new GraphBuilder(name);
	const x = g.input('x', from, ['n']);
	g.output('y', from === to ? x : cast(g, 'converted', x, to));
	return g.finish();
};

/** `from.NAME` to `NAME`: the same numbers in memory of their own; `type` is that of tensors without one. */
export const copyGraph = (tensors: readonly { readonly name: string; readonly type?: TensorType; readonly dims: readonly number[] }[], type: StateType): Graph => {
	const g = new GraphBuilder('copy');
	for (const { name, type: own = type, dims } of tensors) {
		g.output(name, g.input(`from.${name}`, own, dims));
	}
	return g.finish();
};

/** Input: `zero` [1]. Outputs: NAME, as many of it as are wanted. A number that the graph is fed cannot be folded into weights as large as what comes out. */
export const zerosGraph = (tensors: readonly { readonly name: string; readonly dims: readonly number[] }[], type: StateType): Graph => {
	const g = new GraphBuilder('zeros');
	const zero = g.input('zero', type, [1]);
	for (const { name, dims } of tensors) {
		g.output(name, expand(g, `${name}/expanded`, zero, dims));
	}
	return g.finish();
};

/** What becomes of a cache of keys and values when a chunk is added, counted in tokens. */
export type KvAppend = {
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly type: StateType;
	/** Held before. */
	readonly past: number;
	readonly added: number;
	/** Of those held and those added, the first `sink` and all from `from` on stay, in their order. */
	readonly sink: number;
	readonly from: number;
};

/**
 * Inputs: `past_k.I`, `past_v.I` [N, past, d], left out when there is none; `new_k.I`, `new_v.I` [N, added, d]. Outputs: `k.I`, `v.I` [N, kept, d], and
 * `magnitudes` float32 [2 * layers]: the sums of the absolute values added, finite only if all of them are.
 */
export const kvAppendGraph = ({ layers, heads, headDim, type, past, added, sink, from }: KvAppend): Graph => {
	const g = new GraphBuilder('kv-append');
	const magnitudes: Value[] = [];
	const append = (kind: 'k' | 'v', layer: number): void => {
		const at = g.at(`${kind}${layer}`);
		const before = past === 0 ? undefined : g.input(`past_${kind}.${layer}`, type, [heads, past, headDim]);
		const chunk = g.input(`new_${kind}.${layer}`, type, [heads, added, headDim]);
		/** Tokens `start` to `end` of both, one after the other. */
		const range = (name: string, start: number, end: number): Value[] => [
			...(before !== undefined && start < past && start < end ? [slice(at, `${name}/past`, before, 1, start, Math.min(end, past))] : []),
			...(end > past && start < end ? [slice(at, `${name}/new`, chunk, 1, Math.max(start, past) - past, end - past)] : []),
		];
		const parts = from <= sink ? range('all', 0, past + added) : [...range('sink', 0, sink), ...range('rest', from, past + added)];
		g.output(`${kind}.${layer}`, parts.length === 1 ? parts[0] as Value : concat(at, 'kept', parts, 1));
		const numbers = type === 'float32' ? chunk : cast(at, 'float32', chunk, 'float32');
		magnitudes.push(reshape(at, 'magnitude', sum(at, 'total', reshape(at, 'flat', absolute(at, 'absolute', numbers), [1, heads * added * headDim]), 1), [1]));
	};
	for (let layer = 0; layer < layers; layer++) {
		append('k', layer);
		append('v', layer);
	}
	g.output('magnitudes', concat(g, 'joined', magnitudes, 0));
	return g.finish();
};
