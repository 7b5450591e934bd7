/**
 * The denoiser (docs/model-format.md): a Wan 2.1 DiT with a timestep for each latent frame, whose attention runs over keys and
 * values of the past, fed from outside, and those of the chunk, handed back. One graph is one forward.
 *
 * Letters in shapes: C channels, F latent frames, h x w latent size, hp x wp token grid, S = hp * wp tokens of a frame,
 * L = F * S tokens, D width, N heads, d = D / N.
 */
import { attention, joinHeads, splitHeads } from './attention.js';
import { GraphBuilder, type Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { floatLinears, int8Linears, type LinearLayers } from './linear-layers.js';
import { add, concat, geluTanh, layerNorm, linear, multiply, reshape, rmsNorm, rotary, silu, split, transpose } from './operators.js';
import type { DitSpec } from './spec.js';
import type { Weights } from './weights.js';

export type DitGraphOptions = {
	readonly weights: Weights;
	/** How the linear layers of the blocks are computed; everything else is float32. */
	readonly linears: 'float32' | 'int8';
	/** Latent frames of a chunk, and the size of a latent. */
	readonly frames: number;
	readonly height: number;
	readonly width: number;
};

/** What all blocks share. */
type Context = {
	readonly spec: DitSpec;
	readonly weights: Weights;
	readonly dense: LinearLayers;
	readonly frames: number;
	/** [1, L, d / 2] */
	readonly cos: Value;
	readonly sin: Value;
	/** Ones and zeros [D]: the norms without weights of their own. */
	readonly ones: Value;
	/** Time and everything else that modulates the blocks, [F, 6, D]. */
	readonly e0: Value;
};

/** x [F, S, D] normalised, then x * scale + shift; scale and shift [F, 1, D]. Returns [L, D]. */
const modulate = (g: GraphBuilder, c: Pick<Context, 'spec' | 'ones'>, name: string, x: Value, shift: Value, scale: Value): Value => {
	const [frames, tokens, width] = x.dims as [number, number, number];
	const normal = layerNorm(g, `${name}/norm`, x, c.ones, undefined, c.spec.eps);
	return reshape(g, name, add(g, `${name}/shifted`, multiply(g, `${name}/scaled`, normal, scale), shift), [frames * tokens, width]);
};

/** A modulation table [1, n, D] with 1 added to its scales, so that the graph multiplies by (1 + scale) without adding. */
const modulationTable = (g: GraphBuilder, c: Pick<Context, 'spec' | 'weights'>, name: string, rows: number, scaleRows: readonly number[]): Value => {
	const { dim } = c.spec;
	const table = c.weights.floats(name, [1, rows, dim]).map((value, index) => value + (scaleRows.includes(Math.floor(index / dim)) ? 1 : 0));
	return g.floats(name, [1, rows, dim], table);
};

const qkNorm = (g: GraphBuilder, c: Context, name: string, x: Value): Value =>
	c.spec.qk_norm ? rmsNorm(g, name, x, c.weights.value(g, `${name}.weight`, [c.spec.dim]), c.spec.eps) : x;

/** x [L, D] to [L, D]; adds the block's keys and values to the outputs of the graph. */
const selfAttention = (g: GraphBuilder, c: Context, at: string, block: number, x: Value, past: { k: Value; v: Value }): Value => {
	const { dim, num_heads: heads } = c.spec;
	const [tokens] = x.dims as [number];
	const rope = (name: string, value: Value): Value =>
		reshape(g, `${name}/flat`, rotary(g, name, reshape(g, `${name}/batch`, value, [1, tokens, dim]), c.cos, c.sin, heads), [tokens, dim]);
	const [q, k, v] = c.dense(g, x, ['q', 'k', 'v'].map((part) => ({ name: `${at}.${part}`, outputs: dim, inputs: dim }))) as [Value, Value, Value];
	const qHeads = splitHeads(g, 'q', rope('q/rope', qkNorm(g, c, `${at}.norm_q`, q)), heads);
	const kHeads = splitHeads(g, 'k', rope('k/rope', qkNorm(g, c, `${at}.norm_k`, k)), heads);
	const vHeads = splitHeads(g, 'v', v, heads);
	g.output(`new_k.${block}`, kHeads);
	g.output(`new_v.${block}`, vHeads);
	// The past first, then the chunk; softmax does not care about the order.
	const y = attention(g, { q: qHeads, k: concat(g, 'keys', [past.k, kHeads], 1), v: concat(g, 'values', [past.v, vHeads], 1), scale: 1 / Math.sqrt(dim / heads) });
	return c.dense(g, joinHeads(g, 'joined', y), [{ name: `${at}.o`, outputs: dim, inputs: dim }])[0] as Value;
};

/** x [L, D] to [L, D]; keys and values of the text come from the text-keys graph. */
const crossAttention = (g: GraphBuilder, c: Context, at: string, x: Value, text: { k: Value; v: Value }): Value => {
	const { dim, num_heads: heads } = c.spec;
	const q = c.dense(g, x, [{ name: `${at}.q`, outputs: dim, inputs: dim }])[0] as Value;
	const y = attention(g, { q: splitHeads(g, 'q', qkNorm(g, c, `${at}.norm_q`, q), heads), ...text, scale: 1 / Math.sqrt(dim / heads) });
	return c.dense(g, joinHeads(g, 'joined', y), [{ name: `${at}.o`, outputs: dim, inputs: dim }])[0] as Value;
};

/** One transformer block; x [F, S, D]. */
const transformerBlock = (root: GraphBuilder, c: Context, block: number, x: Value, past: { k: Value; v: Value }, text: { k: Value; v: Value }): Value => {
	const g = root.at(`blk${block}`);
	const at = `blocks.${block}`;
	const { dim, ffn_dim: hidden } = c.spec;
	const [frames, tokens] = x.dims as [number, number];
	const framed = (name: string, value: Value): Value => reshape(g, name, value, [frames, tokens, dim]);
	const modulation = add(g, 'modulation', modulationTable(g, c, `${at}.modulation`, 6, [1, 4]), c.e0);
	const [shift1, scale1, gate1, shift2, scale2, gate2] = split(g, 'modulations', modulation, 1, [1, 1, 1, 1, 1, 1]) as [Value, Value, Value, Value, Value, Value];

	const attended = selfAttention(g.at('attn'), c, `${at}.self_attn`, block, modulate(g, c, 'norm1', x, shift1, scale1), past);
	const afterSelf = add(g, 'x1', x, multiply(g, 'gated1', framed('attn/out', attended), gate1));

	const normal = c.spec.cross_attn_norm
		? layerNorm(g, 'norm3', afterSelf, c.weights.value(g, `${at}.norm3.weight`, [dim]), c.weights.value(g, `${at}.norm3.bias`, [dim]), c.spec.eps)
		: afterSelf;
	const told = crossAttention(g.at('cross'), c, `${at}.cross_attn`, reshape(g, 'norm3/flat', normal, [frames * tokens, dim]), text);
	const afterCross = add(g, 'x2', afterSelf, framed('cross/out', told));

	const inner = c.dense(g, modulate(g, c, 'norm2', afterCross, shift2, scale2), [{ name: `${at}.ffn.0`, outputs: hidden, inputs: dim }])[0] as Value;
	const outer = c.dense(g, geluTanh(g, 'gelu', inner), [{ name: `${at}.ffn.2`, outputs: dim, inputs: hidden }])[0] as Value;
	return add(g, 'x3', afterCross, multiply(g, 'gated2', framed('ffn/out', outer), gate2));
};

/** Time, control and the pooled text: e [F, D]. */
const conditioning = (g: GraphBuilder, spec: DitSpec, weights: Weights, frames: number): Value => {
	const dense = floatLinears(weights);
	const layer = (x: Value, name: string, outputs: number, inputs: number): Value => dense(g, x, [{ name, outputs, inputs }])[0] as Value;
	const { dim } = spec;
	const time = layer(g.input('time', 'float32', [frames, spec.freq_dim]), 'time_embedding.0', dim, spec.freq_dim);
	let e = layer(silu(g, 'time/silu', time), 'time_embedding.2', dim, dim);
	if (spec.control_dim > 0) {
		const control = layer(g.input('control', 'float32', [frames, spec.control_dim]), 'control_embedding.0', dim, spec.control_dim);
		e = add(g, 'e/control', e, layer(silu(g, 'control/silu', control), 'control_embedding.2', dim, dim));
	}
	return spec.pooled_text ? add(g, 'e/pooled', e, g.input('pooled', 'float32', [dim])) : e;
};

/** [C, F, h, w] to tokens [L, C * ph * pw], features in the order (c, kh, kw). */
const patchify = (g: GraphBuilder, latent: Value, [patchHeight, patchWidth]: readonly [number, number]): Value => {
	const [channels, frames, height, width] = latent.dims as [number, number, number, number];
	const [rows, columns] = [height / patchHeight, width / patchWidth];
	const patches = reshape(g, 'patches', latent, [channels, frames, rows, patchHeight, columns, patchWidth]);
	const ordered = transpose(g, 'patches/ordered', patches, [1, 2, 4, 0, 3, 5]); // [F, hp, wp, C, ph, pw]
	return reshape(g, 'patches/tokens', ordered, [frames * rows * columns, channels * patchHeight * patchWidth]);
};

/** Tokens [L, ph * pw * C], features in the order (kh, kw, c), to [C, F, h, w]. */
const unpatchify = (g: GraphBuilder, x: Value, size: { channels: number; frames: number; rows: number; columns: number }, [patchHeight, patchWidth]: readonly [number, number]): Value => {
	const { channels, frames, rows, columns } = size;
	const patches = reshape(g, 'pixels', x, [frames, rows, columns, patchHeight, patchWidth, channels]);
	const ordered = transpose(g, 'pixels/ordered', patches, [5, 0, 1, 3, 2, 4]); // [C, F, hp, ph, wp, pw]
	return reshape(g, 'pixels/latent', ordered, [channels, frames, rows * patchHeight, columns * patchWidth]);
};

/**
 * Inputs: `latent` [C, F, h, w]; `time` [F, freq_dim]; `control` [F, control_dim] and `pooled` [D] of models that have them;
 * `rope_cos`, `rope_sin` [L, d / 2]; `past_k.I`, `past_v.I` [N, past, d] (past may be 0); `cross_k.I`, `cross_v.I` [N, text_len, d].
 * Outputs: `velocity` [C, F, h, w]; `new_k.I` (roped), `new_v.I` [N, L, d]. Throws `model_invalid`.
 */
export const causalDitGraph = (spec: DitSpec, options: DitGraphOptions): Graph => {
	const { weights, frames, height, width } = options;
	const { dim, num_heads: heads, in_dim: channels, out_dim: outChannels, text_len: textLength } = spec;
	const [patchFrames = 1, patchHeight = 1, patchWidth = 1] = spec.patch_size;
	const g = new GraphBuilder('dit');
	if (patchFrames !== 1 || height % patchHeight !== 0 || width % patchWidth !== 0) {
		g.fail('patches', `patches of ${spec.patch_size.join('x')} do not divide a latent of 1x${height}x${width}`);
	}
	const [rows, columns, headDim] = [height / patchHeight, width / patchWidth, dim / heads];
	const tokens = frames * rows * columns;
	const patch = patchHeight * patchWidth;

	const patches = patchify(g, g.input('latent', 'float32', [channels, frames, height, width]), [patchHeight, patchWidth]);
	const e = conditioning(g, spec, weights, frames);
	const e0 = floatLinears(weights)(g, silu(g, 'e/silu', e), [{ name: 'time_projection.1', outputs: 6 * dim, inputs: dim }])[0] as Value;
	const table = (name: string): Value => reshape(g, `${name}/batch`, g.input(name, 'float32', [tokens, headDim / 2]), [1, tokens, headDim / 2]);
	const context: Context = {
		spec, weights, frames,
		dense: options.linears === 'int8' ? int8Linears(weights) : floatLinears(weights),
		cos: table('rope_cos'), sin: table('rope_sin'),
		ones: g.floats('ones', [dim], new Float32Array(dim).fill(1)),
		e0: reshape(g, 'e0', e0, [frames, 6, dim]),
	};

	const embedding = weights.value(g, 'patch_embedding.weight', [dim, channels, ...spec.patch_size], [dim, channels * patch]);
	const embedded = linear(g, 'patch_embedding', patches, embedding, weights.value(g, 'patch_embedding.bias', [dim]));
	let x = reshape(g, 'x', embedded, [frames, rows * columns, dim]);
	for (let block = 0; block < spec.num_layers; block++) {
		const past = { k: g.input(`past_k.${block}`, 'float32', [heads, 'past', headDim]), v: g.input(`past_v.${block}`, 'float32', [heads, 'past', headDim]) };
		const text = { k: g.input(`cross_k.${block}`, 'float32', [heads, textLength, headDim]), v: g.input(`cross_v.${block}`, 'float32', [heads, textLength, headDim]) };
		x = transformerBlock(g, context, block, x, past, text);
	}

	const headTable = add(g, 'head/modulation', modulationTable(g, context, 'head.modulation', 2, [1]), reshape(g, 'head/e', e, [frames, 1, dim]));
	const [shift, scale] = split(g, 'head/modulations', headTable, 1, [1, 1]) as [Value, Value];
	const out = floatLinears(weights)(g, modulate(g, context, 'head', x, shift, scale), [{ name: 'head.head', outputs: outChannels * patch, inputs: dim }])[0] as Value;
	g.output('velocity', unpatchify(g, out, { channels: outChannels, frames, rows, columns }, [patchHeight, patchWidth]));
	return g.finish();
};
