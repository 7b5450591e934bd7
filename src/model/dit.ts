/**
 * The denoiser: a Wan 2.1 DiT (docs/model-format.md). One graph is one forward, of a chunk of a stream or of a whole clip.
 * TurboDiffusion's networks are clips with sparse self-attention, Self-Forcing's and the embedded model's are chunks.
 *
 * Letters in shapes: C channels, F latent frames, h x w latent size, hp x wp token grid, L = F * hp * wp tokens, D width, N heads,
 * d = D / N; T timesteps (one for each latent frame of a chunk, or one for the clip), S = L / T tokens that share one.
 */
import { type AttentionArithmetic, keyType } from './attention.js';
import { type BlockContext, floatArithmetic, type KeysAndValues, modulate, modulationTable, transformerBlock, type WindowValues } from './dit-block.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { LINEAR_BRANCH } from './linear-branch.js';
import { floatLinears, halfLinears, int8Linears, kernelLinears, type LinearLayers } from './linear-layers.js';
import { add, concat, linear, reshape, silu, split } from './operators.js';
import { patchify, unpatchify } from './patches.js';
import { isChoiceDelicate, type SparseShape } from './sparse-linear-attention.js';
import type { DitDimensions } from './spec.js';
import { nameOfStream } from './stream-names.js';
import type { Weights } from './weights.js';

/** Whether keys and values of the past are fed and those of the chunk given, or both lie in windows that the forward writes into. */
export type KeysPlace = 'handed over' | 'in place';

/**
 * `chunk`: a timestep for each latent frame; attention runs over keys and values of the past, fed from outside, and those of the
 * chunk, handed back. `clip`: one timestep; every token sees every other, or, with `sparse`, few blocks of them and a linear branch.
 */
export type DitMode = {
	readonly kind: 'chunk';
	/** Chunks of different streams in one forward; default 1. */
	readonly streams?: number | undefined;
	/** Default: handed over. */
	readonly keys?: KeysPlace | undefined;
} | { readonly kind: 'clip'; readonly sparse?: SparseShape | undefined };

export type DitGraphOptions = {
	readonly weights: Weights;
	/**
	 * How the linear layers of the blocks are computed; everything else is float32. So are queries and keys of sparse attention, and with `int8`, where choices are delicate, all layers that
	 * lead to one: those of every block but the last. `w8a8` is TurboDiffusion's 8 bits, by kernels alone; what is exact there is float16.
	 */
	readonly linears: 'float32' | 'float16' | 'int8' | 'w8a8' | ((weights: Weights) => LinearLayers);
	/**
	 * How dense attention is computed; `int8` is for self-attention of a clip alone, and sparse attention is float32 always. `fused int8` is self-attention of clips and chunks by its
	 * kernel, the rest `fused float16`. Where it is float16, keys and values that come in or go out are, too. Default: float32.
	 */
	readonly attention?: AttentionArithmetic | 'int8' | 'fused int8' | undefined;
	/**
	 * Whether the kernels of native/cuda are there: in `float16` and `w8a8` they take norms with modulation, sparse attention of clips, and weights in 8-bit
	 * tiles as they are stored (kernel-operators.ts). Sizes that no kernel takes stay with standard operators.
	 */
	readonly kernels?: boolean | undefined;
	readonly mode: DitMode;
	/** Of the channels that the network reads, so many come as an input of their own, `condition`, behind those of `latent`. Default 0; only of clips. */
	readonly conditionChannels?: number | undefined;
	/** Latent frames of one call, and the size of a latent. */
	readonly frames: number;
	readonly height: number;
	readonly width: number;
};

/** An input whose first axis is joined over the streams of a forward; each stream has one of its own, with its number behind the name. */
type StreamInput = (name: string, dims: readonly number[]) => Value;

/** Time, control and the pooled text: e [T, D]. */
const conditioning = (g: GraphBuilder, spec: DitDimensions, weights: Weights, input: StreamInput, timesteps: number, streams: number): Value => {
	const dense = floatLinears(weights);
	const layer = (x: Value, name: string, outputs: number, inputs: number): Value => dense(g, x, [{ name, outputs, inputs }])[0] as Value;
	const { dim } = spec;
	const time = layer(input('time', [timesteps, spec.freq_dim]), 'time_embedding.0', dim, spec.freq_dim);
	let e = layer(silu(g, 'time/silu', time), 'time_embedding.2', dim, dim);
	if (spec.control_dim > 0) {
		const control = layer(input('control', [timesteps, spec.control_dim]), 'control_embedding.0', dim, spec.control_dim);
		e = add(g, 'e/control', e, layer(silu(g, 'control/silu', control), 'control_embedding.2', dim, dim));
	}
	if (!spec.pooled_text) {
		return e;
	}
	if (streams === 1) {
		return add(g, 'e/pooled', e, g.input('pooled', 'float32', [dim]));
	}
	const pooled = reshape(g, 'pooled/rows', input('pooled', [dim]), [streams, 1, dim]);
	return reshape(g, 'e/flat', add(g, 'e/pooled', reshape(g, 'e/streams', e, [streams, timesteps, dim]), pooled), [streams * timesteps, dim]);
};

const LINEARS = { float32: floatLinears, float16: halfLinears, int8: int8Linears } as const;

const quantizedLinears = (weights: Weights): LinearLayers => kernelLinears(weights, 'quantized');

/** TurboDiffusion stores the embedding of patches as a matrix, Wan as a convolution; the numbers are the same. */
const patchEmbedding = (g: GraphBuilder, spec: DitDimensions, weights: Weights): Value => {
	const { dim, in_dim: channels, patch_size: patch } = spec;
	const matrix = [dim, channels * patch.reduce((product, side) => product * side, 1)];
	const name = 'patch_embedding.weight';
	return weights.value(g, name, weights.shapes.get(name)?.length === matrix.length ? matrix : [dim, channels, ...patch], matrix);
};

/** Tokens [frames * rows * columns, D] with the learned position of each added, of models that have one (the absolute positions of ViT). */
const placed = (g: GraphBuilder, spec: DitDimensions, weights: Weights, tokens: Value, frames: number, [rows, columns]: readonly [number, number]): Value => {
	const { dim, position_grid: grid } = spec;
	if (grid === undefined) {
		return tokens;
	}
	if (grid[0] !== rows || grid[1] !== columns) {
		g.fail('positions', `positions are known for ${grid.join('x')} tokens, not for ${rows}x${columns}`);
	}
	const perFrame = rows * columns;
	const positions = weights.value(g, 'position_embedding', [perFrame, dim], [1, perFrame, dim]);
	return add(g, 'placed', reshape(g, 'placed/frames', tokens, [frames, perFrame, dim]), positions);
};

/**
 * Inputs: `latent` [C, F, h, w], or fewer channels and `condition` with the others; `time` [T, freq_dim]; `control` [T, control_dim] and `pooled` [D] of models that have them;
 * `rope_cos`, `rope_sin` [L, d / 2]; `cross_k.I`, `cross_v.I` [N, text_len, d]; of chunks also `past_k.I`, `past_v.I` [N, past, d] (past
 * may be 0). Outputs: `velocity` [C, F, h, w]; of chunks also `new_k.I` (roped), `new_v.I` [N, L, d]. Throws `model_invalid`.
 *
 * With keys in place these two are windows [w, L / F, D] of w latent frames: inputs `window_k.I`, `window_v.I`, and outputs `held_k.I`, `held_v.I`, the same with those of the chunk at the
 * frames that the input `slots` int64 [F, 1] names. An output that is bound to its input's memory is written there, and nothing but those frames is. Attention sees all of a window.
 *
 * With several streams each has its inputs and outputs, named by `nameOfStream`, with a past of its own length. All that is done token by token is done for all
 * at once (T and L are then those of all), attention for each. Not with `int8` or `w8a8` linears, where numbers of several streams would share a scale: what a stream shows
 * would depend on its company.
 */
export const ditGraph = (spec: DitDimensions, options: DitGraphOptions): Graph => {
	const { weights, frames, height, width, mode } = options;
	const { dim, num_heads: heads, in_dim: channels, out_dim: outChannels, text_len: textLength } = spec;
	const [patchFrames = 1, patchHeight = 1, patchWidth = 1] = spec.patch_size;
	const g = weights.graph('dit');
	if (patchFrames !== 1 || height % patchHeight !== 0 || width % patchWidth !== 0) {
		g.fail('patches', `patches of ${spec.patch_size.join('x')} do not divide a latent of 1x${height}x${width}`);
	}
	if (dim % heads !== 0 || (dim / heads) % 2 !== 0) {
		g.fail('heads', `a width of ${dim} does not divide into ${heads} heads of an even size`);
	}
	const sparse = mode.kind === 'clip' ? mode.sparse : undefined;
	// Weights tuned for sparse attention give a bad picture without it, and nothing would say so.
	if (sparse === undefined && weights.has(`blocks.0.self_attn.${LINEAR_BRANCH}.weight`)) {
		g.fail('attention', `${weights.label} was made for sparse-linear attention (it has ${LINEAR_BRANCH}) and cannot run with dense attention`);
	}
	const [rows, columns, headDim] = [height / patchHeight, width / patchWidth, dim / heads];
	const tokens = frames * rows * columns;
	const streams = mode.kind === 'chunk' ? mode.streams ?? 1 : 1;
	const isInt8 = options.linears === 'int8' || options.linears === 'w8a8';
	if (streams > 1 && isInt8) {
		g.fail('streams', 'several streams in one forward would share the scale of 8-bit linear layers');
	}
	const kernels = options.kernels === true && (options.linears === 'float16' || options.linears === 'w8a8');
	if (options.linears === 'w8a8' && !kernels) {
		g.fail('linears', 'nothing but the kernels of native/cuda multiplies in 8-bit tiles, and this backend does not have them');
	}
	const each = <Made>(make: (stream: number) => Made): Made[] => Array.from({ length: streams }, (_, stream) => make(stream));
	const input: StreamInput = (name, dims) => {
		const parts = each((stream) => g.input(nameOfStream(name, stream, streams), 'float32', dims));
		return streams === 1 ? parts[0] as Value : concat(g, name, parts, 0);
	};
	const timesteps = mode.kind === 'chunk' ? streams * frames : 1;
	const patch = patchHeight * patchWidth;

	const at = (stream: number): GraphBuilder => (streams === 1 ? g : g.at(`of${stream}`));
	const { conditionChannels = 0 } = options;
	const latentOf = (stream: number): Value => {
		const latent = g.input(nameOfStream('latent', stream, streams), 'float32', [channels - conditionChannels, frames, height, width]);
		return conditionChannels === 0 ? latent : concat(g, 'conditioned', [latent, g.input('condition', 'float32', [conditionChannels, frames, height, width])], 0);
	};
	const latents = each((stream) => patchify(at(stream), latentOf(stream), [patchHeight, patchWidth]));
	const patches = streams === 1 ? latents[0] as Value : concat(g, 'patches', latents, 0);
	const e = conditioning(g, spec, weights, input, timesteps / streams, streams);
	const e0 = floatLinears(weights)(g, silu(g, 'e/silu', e), [{ name: 'time_projection.1', outputs: 6 * dim, inputs: dim }])[0] as Value;
	const table = (name: string): Value => reshape(g, `${name}/batch`, input(name, [tokens, headDim / 2]), [1, streams * tokens, headDim / 2]);
	const context: BlockContext = {
		spec, weights, sparse, streams, attention: options.attention ?? 'float32',
		dense: (typeof options.linears === 'function' ? options.linears : options.linears === 'w8a8' ? quantizedLinears : kernels ? kernelLinears : LINEARS[options.linears])(weights),
		exact: (kernels ? kernelLinears : floatLinears)(weights), kernels,
		cos: table('rope_cos'), sin: table('rope_sin'),
		ones: g.floats('ones', [dim], new Float32Array(dim).fill(1)),
		e0: reshape(g, 'e0', e0, [timesteps, 6, dim]),
	};

	const embedded = linear(g, 'patch_embedding', patches, patchEmbedding(g, spec, weights), weights.value(g, 'patch_embedding.bias', [dim]));
	let x = reshape(g, 'x', placed(g, spec, weights, embedded, streams * frames, [rows, columns]), [timesteps, (streams * tokens) / timesteps, dim]);
	const kept = keyType(floatArithmetic(context));
	const keysAndValues = (kind: 'past' | 'cross', block: number, length: number | string): KeysAndValues[] => each((stream) => {
		const named = (part: 'k' | 'v'): Value =>
			g.input(nameOfStream(`${kind}_${part}.${block}`, stream, streams), kept, [heads, typeof length === 'string' ? nameOfStream(length, stream, streams) : length, headDim]);
		return { k: named('k'), v: named('v') };
	});
	const isInPlace = mode.kind === 'chunk' && mode.keys === 'in place';
	const slots = isInPlace ? each((stream) => g.input(nameOfStream('slots', stream, streams), 'int64', [frames, 1])) : [];
	const windowsOf = (block: number): WindowValues[] => each((stream) => {
		const named = (part: 'k' | 'v'): Value => g.input(nameOfStream(`window_${part}.${block}`, stream, streams), kept, [nameOfStream('window', stream, streams), rows * columns, dim]);
		return { k: named('k'), v: named('v'), slots: slots[stream] as Value };
	});
	const beforeChoice: BlockContext = isInt8 && sparse !== undefined && isChoiceDelicate(sparse, tokens) ? { ...context, dense: context.exact } : context;
	for (let block = 0; block < spec.num_layers; block++) {
		const past = mode.kind !== 'chunk' ? undefined : isInPlace ? windowsOf(block) : keysAndValues('past', block, 'past');
		x = transformerBlock(g, block < spec.num_layers - 1 ? beforeChoice : context, block, x, past, keysAndValues('cross', block, textLength));
	}

	const headTable = add(g, 'head/modulation', modulationTable(g, context, 'head.modulation', 2, [1]), reshape(g, 'head/e', e, [timesteps, 1, dim]));
	const [shift, scale] = split(g, 'head/modulations', headTable, 1, [1, 1]) as [Value, Value];
	const out = floatLinears(weights)(g, modulate(g, context, 'head', x, shift, scale), [{ name: 'head.head', outputs: outChannels * patch, inputs: dim }])[0] as Value;
	const outs = streams === 1 ? [out] : split(g, 'velocities', out, 0, each(() => tokens));
	for (const [stream, part] of outs.entries()) {
		g.output(nameOfStream('velocity', stream, streams), unpatchify(at(stream), part, { channels: outChannels, frames, rows, columns }, [patchHeight, patchWidth]));
	}
	return g.finish();
};
