/** One transformer block of a denoiser (`dit.ts` says how they are joined, and what the letters in shapes mean). */
import { type AttentionArithmetic, joinedAttention, joinHeads, keyType, splitHeads, tokenAttention } from './attention.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import { LINEAR_BRANCH } from './linear-branch.js';
import { int8Attention } from './int8-attention.js';
import { int8Kernel, kernelTakesBlocks, kernelTakesHeads, kernelTakesNorm, normModulateKernel, sparseLinearKernel } from './kernel-operators.js';
import type { LinearLayer, LinearLayers } from './linear-layers.js';
import { add, cast, concat, flatten, geluTanh, layerNorm, multiply, reshape, rmsNorm, rotary, scatter, split } from './operators.js';
import { type SparseShape, sparseLinearAttention } from './sparse-linear-attention.js';
import type { DitDimensions } from './spec.js';
import { nameOfStream } from './stream-names.js';
import type { Weights } from './weights.js';

/** What all blocks share. */
export type BlockContext = {
	readonly spec: DitDimensions;
	readonly weights: Weights;
	/** Of one forward, each with a past and a text of its own. */
	readonly streams: number;
	readonly dense: LinearLayers;
	/** Those of queries and keys of sparse attention: in float32, or with kernels in float16 or as they are stored. */
	readonly exact: LinearLayers;
	/** Whether the kernels of native/cuda may be called. */
	readonly kernels: boolean;
	/** [1, L, d / 2] */
	readonly cos: Value;
	readonly sin: Value;
	/** Ones [D]: the norms without weights of their own. */
	readonly ones: Value;
	/** Time and everything else that modulates the blocks, [T, 6, D]. */
	readonly e0: Value;
	/** Self-attention over few blocks of keys and a linear branch, instead of over all keys. */
	readonly sparse: SparseShape | undefined;
	/** Of dense attention; `int8` only without a past, where it is float32, and `fused int8` where there are kernels, else `fused float16`. */
	readonly attention: AttentionArithmetic | 'int8' | 'fused int8';
};

/** Of attention that is not in 8 bits: that over the text, and where no kernel takes the heads. */
export const floatArithmetic = ({ attention }: Pick<BlockContext, 'attention'>): AttentionArithmetic =>
	(attention === 'int8' ? 'float32' : attention === 'fused int8' ? 'fused float16' : attention);

export type KeysAndValues = { readonly k: Value; readonly v: Value };

/** Where a stream keeps them in place, [w, tokens of a frame, D], and the places of the chunk's frames there, int64 [F, 1]. */
export type WindowValues = KeysAndValues & { readonly slots: Value };

/** Rows of a block's table that are scales, to which 1 is added where no kernel does. */
const SCALE_ROWS = [1, 4];

const hasNormKernel = ({ kernels, spec }: BlockContext): boolean => kernels && kernelTakesNorm(spec.dim);

/** `modulate`, or its kernel, which adds 1 to the scales itself and gives float16. */
const modulateForBlock = (g: GraphBuilder, c: BlockContext, name: string, x: Value, shift: Value, scale: Value): Value =>
	(hasNormKernel(c) ? normModulateKernel(g, name, x, shift, scale, c.spec.eps) : modulate(g, c, name, x, shift, scale));

/** x [T, S, D] normalised, then x * scale + shift; scale and shift [T, 1, D]. Returns [L, D]. */
export const modulate = (g: GraphBuilder, c: Pick<BlockContext, 'spec' | 'ones'>, name: string, x: Value, shift: Value, scale: Value): Value => {
	const [rows, tokens, width] = x.dims as [number, number, number];
	const normal = layerNorm(g, `${name}/norm`, x, c.ones, undefined, c.spec.eps);
	return reshape(g, name, add(g, `${name}/shifted`, multiply(g, `${name}/scaled`, normal, scale), shift), [rows * tokens, width]);
};

/** A modulation table [1, n, D] with 1 added to its scales, so that the graph multiplies by (1 + scale) without adding. */
export const modulationTable = (g: GraphBuilder, c: Pick<BlockContext, 'spec' | 'weights'>, name: string, rows: number, scaleRows: readonly number[]): Value => {
	const { dim } = c.spec;
	const table = c.weights.floats(name, [1, rows, dim]).map((value, index) => value + (scaleRows.includes(Math.floor(index / dim)) ? 1 : 0));
	return g.floats(name, [1, rows, dim], table);
};

const qkNorm = (g: GraphBuilder, c: BlockContext, name: string, x: Value): Value =>
	c.spec.qk_norm ? rmsNorm(g, name, x, c.weights.value(g, `${name}.weight`, [c.spec.dim]), c.spec.eps) : x;

/** x [N, L, d] of all streams to one of each. */
const byStream = (g: GraphBuilder, c: BlockContext, name: string, x: Value): Value[] =>
	(c.streams === 1 ? [x] : split(g, `${name}/streams`, x, 1, Array.from({ length: c.streams }, () => (x.dims[1] as number) / c.streams)));

/** [L, D] of each stream to one. */
const together = (g: GraphBuilder, parts: readonly Value[]): Value => (parts.length === 1 ? parts[0] as Value : concat(g, 'streams', parts, 0));

const isWindow = (past: KeysAndValues | WindowValues): past is WindowValues => 'slots' in past;

/** [L, D] of all streams to one of each. */
const rowsByStream = (g: GraphBuilder, c: BlockContext, name: string, x: Value): Value[] =>
	(c.streams === 1 ? [x] : split(g, `${name}/streams`, x, 0, Array.from({ length: c.streams }, () => (x.dims[0] as number) / c.streams)));

/** Over all that lies in each stream's window, the chunk's own keys and values among it: they are written there first. q, k, v and the result [L, D]. */
const windowAttention = (g: GraphBuilder, c: BlockContext, block: number, { q, k, v }: { readonly q: Value; readonly k: Value; readonly v: Value }, windows: readonly WindowValues[]): Value => {
	const { num_heads: heads, dim } = c.spec;
	const arithmetic = floatArithmetic(c);
	const [qs, ks, vs] = [rowsByStream(g, c, 'q', q), rowsByStream(g, c, 'k', k), rowsByStream(g, c, 'v', v)];
	return together(g, windows.map((window, stream) => {
		const own = c.streams === 1 ? g : g.at(`of${stream}`);
		const held = (part: 'k' | 'v', value: Value): Value => {
			const [frames, tokens] = [window.slots.dims[0] as number, window[part].dims[1] as number];
			const kept = reshape(own, `${part}/frames`, keyType(arithmetic) === value.type ? value : cast(own, `${part}/kept`, value, keyType(arithmetic)), [frames, tokens, dim]);
			return flatten(own, `${part}/seen`, scatter(own, `${part}/held`, window[part], window.slots, kept, nameOfStream(`held_${part}.${block}`, stream, c.streams)));
		};
		const seen = { q: qs[stream] as Value, k: held('k', ks[stream] as Value), v: held('v', vs[stream] as Value) };
		return c.kernels && c.attention === 'fused int8' && kernelTakesHeads(dim / heads)
			? int8Kernel(own, { ...seen, q: cast(own, 'q/half', seen.q, 'float16') }, heads)
			: tokenAttention(own, arithmetic, { ...seen, scale: 1 / Math.sqrt(dim / heads) }, heads);
	}));
};

/** x [L, D] to [L, D]. With a past, the block's own keys and values become outputs of the graph, or are written into the window. */
const selfAttention = (g: GraphBuilder, c: BlockContext, at: string, block: number, x: Value, pasts: readonly (KeysAndValues | WindowValues)[] | undefined): Value => {
	const { dim, num_heads: heads } = c.spec;
	const [tokens] = x.dims as [number];
	const rope = (name: string, value: Value): Value =>
		reshape(g, `${name}/flat`, rotary(g, name, reshape(g, `${name}/batch`, value, [1, tokens, dim]), c.cos, c.sin, heads), [tokens, dim]);
	const [toQ, toK, toV] = ['q', 'k', 'v'].map((part) => ({ name: `${at}.${part}`, outputs: dim, inputs: dim })) as [LinearLayer, LinearLayer, LinearLayer];
	// Queries and keys choose the blocks that sparse attention looks at, and 8-bit rounding makes other choices: the worst of twelve
	// random clips was off by 2.3e-2 with it, by 1.7e-2 without.
	const [q, k, v] = (c.sparse === undefined ? c.dense(g, x, [toQ, toK, toV]) : [...c.exact(g, x, [toQ, toK]), ...c.dense(g, x, [toV])]) as [Value, Value, Value];
	const [qRoped, kRoped, headDim] = [rope('q/rope', qkNorm(g, c, `${at}.norm_q`, q)), rope('k/rope', qkNorm(g, c, `${at}.norm_k`, k)), dim / heads];
	const proj = () => ({ weight: c.weights.value(g, `${at}.${LINEAR_BRANCH}.weight`, [headDim, headDim]), bias: c.weights.value(g, `${at}.${LINEAR_BRANCH}.bias`, [headDim]) });
	const output = (attended: Value): Value => c.dense(g, attended, [{ name: `${at}.o`, outputs: dim, inputs: dim }])[0] as Value;
	if (c.kernels && pasts === undefined && kernelTakesHeads(headDim)) {
		const halves = () => ({ q: cast(g, 'q/half', qRoped, 'float16'), k: cast(g, 'k/half', kRoped, 'float16'), v: cast(g, 'v/half', v, 'float16') });
		if (c.sparse !== undefined && kernelTakesBlocks(c.sparse)) {
			return output(sparseLinearKernel(g, halves(), heads, c.sparse, proj()).out);
		}
		if (c.sparse === undefined && c.attention === 'fused int8') {
			return output(int8Kernel(g, halves(), heads));
		}
	}
	if (pasts !== undefined && pasts.some(isWindow)) {
		return output(windowAttention(g, c, block, { q: qRoped, k: kRoped, v }, pasts as readonly WindowValues[]));
	}
	const [qHeads, kHeads, vHeads] = [splitHeads(g, 'q', qRoped, heads), splitHeads(g, 'k', kRoped, heads), splitHeads(g, 'v', v, heads)];
	const scale = 1 / Math.sqrt(headDim);
	const arithmetic = floatArithmetic(c);
	const asKept = (own: GraphBuilder, name: string, value: Value): Value => (keyType(arithmetic) === 'float32' ? value : cast(own, `${name}/float16`, value, 'float16'));
	const isByInt8Kernel = c.kernels && c.attention === 'fused int8' && kernelTakesHeads(headDim);
	const attend = (): Value => {
		if (pasts !== undefined) {
			const [qs, ks, vs] = [byStream(g, c, 'q', qHeads), byStream(g, c, 'k', kHeads), byStream(g, c, 'v', vHeads)];
			return together(g, pasts.map((past, stream) => {
				const own = c.streams === 1 ? g : g.at(`of${stream}`);
				const [newK, newV] = [asKept(own, 'k', ks[stream] as Value), asKept(own, 'v', vs[stream] as Value)];
				g.output(nameOfStream(`new_k.${block}`, stream, c.streams), newK);
				g.output(nameOfStream(`new_v.${block}`, stream, c.streams), newV);
				// The past first, then the chunk; softmax does not care about the order.
				const seen = { q: qs[stream] as Value, k: concat(own, 'keys', [past.k, newK], 1), v: concat(own, 'values', [past.v, newV], 1) };
				if (!isByInt8Kernel) {
					return joinedAttention(own, arithmetic, { ...seen, scale });
				}
				const tokenMajor = { q: cast(own, 'q/half', joinHeads(own, 'q/joined', seen.q), 'float16'), k: joinHeads(own, 'keys/joined', seen.k), v: joinHeads(own, 'values/joined', seen.v) };
				return int8Kernel(own, tokenMajor, heads);
			}));
		}
		const inputs = { q: qHeads, k: kHeads, v: vHeads };
		if (c.sparse === undefined) {
			return c.attention === 'int8'
				? joinHeads(g, 'joined', int8Attention(g.at('int8'), inputs))
				: joinedAttention(g, arithmetic, { q: qHeads, k: asKept(g, 'k', kHeads), v: asKept(g, 'v', vHeads), scale });
		}
		return joinHeads(g, 'joined', sparseLinearAttention(g.at('sla'), inputs, c.sparse, proj()));
	};
	return output(attend());
};

/** x [L, D] to [L, D]; keys and values of the text come from the text-keys graph. */
const crossAttention = (g: GraphBuilder, c: BlockContext, at: string, x: Value, texts: readonly KeysAndValues[]): Value => {
	const { dim, num_heads: heads } = c.spec;
	const q = c.dense(g, x, [{ name: `${at}.q`, outputs: dim, inputs: dim }])[0] as Value;
	const queries = byStream(g, c, 'q', splitHeads(g, 'q', qkNorm(g, c, `${at}.norm_q`, q), heads));
	const y = together(g, texts.map((text, stream) =>
		joinedAttention(c.streams === 1 ? g : g.at(`of${stream}`), floatArithmetic(c), { q: queries[stream] as Value, ...text, scale: 1 / Math.sqrt(dim / heads) })));
	return c.dense(g, y, [{ name: `${at}.o`, outputs: dim, inputs: dim }])[0] as Value;
};

/** Block `block`; x [T, S, D]. */
export const transformerBlock = (root: GraphBuilder, c: BlockContext, block: number, x: Value, past: readonly (KeysAndValues | WindowValues)[] | undefined, text: readonly KeysAndValues[]): Value => {
	const g = root.at(`blk${block}`);
	const at = `blocks.${block}`;
	const { dim, ffn_dim: hidden } = c.spec;
	const [rows, tokens] = x.dims as [number, number];
	const grouped = (name: string, value: Value): Value => reshape(g, name, value, [rows, tokens, dim]);
	const modulation = add(g, 'modulation', modulationTable(g, c, `${at}.modulation`, 6, hasNormKernel(c) ? [] : SCALE_ROWS), c.e0);
	const [shift1, scale1, gate1, shift2, scale2, gate2] = split(g, 'modulations', modulation, 1, [1, 1, 1, 1, 1, 1]) as [Value, Value, Value, Value, Value, Value];

	const attended = selfAttention(g.at('attn'), c, `${at}.self_attn`, block, modulateForBlock(g, c, 'norm1', x, shift1, scale1), past);
	const afterSelf = add(g, 'x1', x, multiply(g, 'gated1', grouped('attn/out', attended), gate1));

	const normal = c.spec.cross_attn_norm
		? layerNorm(g, 'norm3', afterSelf, c.weights.value(g, `${at}.norm3.weight`, [dim]), c.weights.value(g, `${at}.norm3.bias`, [dim]), c.spec.eps)
		: afterSelf;
	const told = crossAttention(g.at('cross'), c, `${at}.cross_attn`, reshape(g, 'norm3/flat', normal, [rows * tokens, dim]), text);
	const afterCross = add(g, 'x2', afterSelf, grouped('cross/out', told));

	const inner = c.dense(g, modulateForBlock(g, c, 'norm2', afterCross, shift2, scale2), [{ name: `${at}.ffn.0`, outputs: hidden, inputs: dim }])[0] as Value;
	const outer = c.dense(g, geluTanh(g, 'gelu', inner), [{ name: `${at}.ffn.2`, outputs: dim, inputs: hidden }])[0] as Value;
	return add(g, 'x3', afterCross, multiply(g, 'gated2', grouped('ffn/out', outer), gate2));
};
