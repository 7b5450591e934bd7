/**
 * The Wan 2.1 VAE as a stream (docs/model-format.md, Wan VAE): one latent to one frame (the first) or to a group of frames, or the
 * other way round. Frames are the batch: x [T, C, H, W].
 *
 * The original gives each causal convolution a cache of the two frames before, and special rules for the start. Caches of zeros make
 * most of these rules one rule: a padding of zeros is a cache of zeros. What is left are two graphs, `first` and `next`: with the first
 * latent the convolutions over time (upsampling and downsampling) are skipped. Their caches stay as they were, so that the
 * second latent sees the padding of zeros which the original gives it ("Rep", then [zeros, current]).
 */
import { attention } from './attention.js';
import { checkedLatent, type DecoderOutput, packedFrames } from './decoder-output.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { add, clip, concat, multiply, reshape, silu, slice, split, subtract, transpose } from './operators.js';
import { causalConvolution, channelNorm, doubled, frameConvolution, planarConvolution } from './video-layers.js';
import { framesPerLatent, innerWidth, outerWidth, spatialStride, type WanVaeLayer, wanVaeLayers, type WanVaePart, type WanVaeSpec } from './wan-vae-spec.js';
import type { Weights } from './weights.js';

/** Frames that a convolution three frames long remembers. */
const REMEMBERED = 2;

export type WanVaeOptions = DecoderOutput & {
	readonly weights: Weights;
	/** Size of a latent. */
	readonly height: number;
	readonly width: number;
	/** Whether it is the graph for the first latent of a clip, or for all later ones. */
	readonly position: 'first' | 'next';
};

/** A graph under construction, with the memory that its layers ask for. */
type Part = { readonly g: GraphBuilder; readonly weights: Weights; readonly isFirst: boolean };

/** x behind the frames that the layer `name` remembers of it; the last of them all are remembered for the next time. */
const withMemory = ({ g }: Part, name: string, x: Value, remembered: number): Value => {
	const [frames, ...dims] = x.dims as [number, number, number, number];
	const memory = g.input(`memory.${name}`, 'float32', [remembered, ...dims]);
	const all = concat(g, `${name}/remembered`, [memory, x], 0);
	g.output(`memory_out.${name}`, slice(g, `${name}/kept`, all, 0, frames, frames + remembered));
	return all;
};

const causal = (part: Part, name: string, x: Value, outputs: number): Value =>
	causalConvolution(part.g, part.weights, name, withMemory(part, name, x, REMEMBERED), { outputs, inputs: x.dims[1] as number, kernel: 3, duration: 3 });

const pointwise = (part: Part, name: string, x: Value, outputs: number): Value =>
	causalConvolution(part.g, part.weights, name, x, { outputs, inputs: x.dims[1] as number, kernel: 1, duration: 1 });

const normedSilu = ({ g, weights }: Part, name: string, x: Value): Value =>
	silu(g, `${name}/silu`, channelNorm(g, weights, name, x, [x.dims[1] as number, 1, 1, 1]));

const residual = (part: Part, name: string, x: Value, outputs: number): Value => {
	const y = causal(part, `${name}.residual.2`, normedSilu(part, `${name}.residual.0`, x), outputs);
	const z = causal(part, `${name}.residual.6`, normedSilu(part, `${name}.residual.3`, y), outputs);
	return add(part.g, `${name}/sum`, z, x.dims[1] === outputs ? x : pointwise(part, `${name}.shortcut`, x, outputs));
};

/** Within each frame, a single head over all pixels. */
const frameAttention = ({ g, weights }: Part, name: string, x: Value): Value => {
	const [frames, channels, height, width] = x.dims as [number, number, number, number];
	const inner = g.at(name);
	const normal = channelNorm(g, weights, `${name}.norm`, x, [channels, 1, 1]);
	const qkv = frameConvolution(g, weights, `${name}.to_qkv`, normal, { outputs: 3 * channels, inputs: channels, kernel: 1 });
	const parts = split(inner, 'parts', reshape(inner, 'pixels', qkv, [frames, 3 * channels, height * width]), 1, [channels, channels, channels]);
	const [q, k, v] = parts.map((part, index) => transpose(inner, `part${index}`, part, [0, 2, 1])) as [Value, Value, Value]; // [T, H * W, C]
	const mixed = transpose(inner, 'channels', attention(inner, { q, k, v, scale: 1 / Math.sqrt(channels) }), [0, 2, 1]);
	const picture = reshape(inner, 'picture', mixed, [frames, channels, height, width]);
	return add(inner, 'sum', x, frameConvolution(g, weights, `${name}.proj`, picture, { outputs: channels, inputs: channels, kernel: 1 }));
};

const upsample = (part: Part, layer: WanVaeLayer & { kind: 'resample' }, x: Value): Value => {
	const { g, weights, isFirst } = part;
	const { name, inputs, outputs } = layer;
	let frames = x;
	if (layer.isTemporal && !isFirst) {
		const [count, , height, width] = x.dims as [number, number, number, number];
		const grown = causalConvolution(g, weights, `${name}.time_conv`, withMemory(part, `${name}.time_conv`, x, REMEMBERED), { outputs: 2 * inputs, inputs, kernel: 1, duration: 3 });
		// The first half of the channels is the earlier frame.
		frames = reshape(g, `${name}/frames`, grown, [2 * count, inputs, height, width]);
	}
	return frameConvolution(g, weights, `${name}.resample.1`, doubled(g, `${name}/doubled`, frames), { outputs, inputs, kernel: 3 });
};

const downsample = (part: Part, layer: WanVaeLayer & { kind: 'resample' }, x: Value): Value => {
	const { g, weights, isFirst } = part;
	const { name, inputs, outputs } = layer;
	const at = `${name}.resample.1`;
	const halved = planarConvolution(g, at, x, {
		weight: weights.value(g, `${at}.weight`, [outputs, inputs, 3, 3]), bias: weights.value(g, `${at}.bias`, [outputs]), padding: [0, 0, 1, 1], stride: 2,
	});
	if (!layer.isTemporal) {
		return halved;
	}
	if (isFirst) {
		g.output(`memory_out.${name}.time_conv`, halved);
		return halved;
	}
	return causalConvolution(g, weights, `${name}.time_conv`, withMemory(part, `${name}.time_conv`, halved, 1), { outputs, inputs: outputs, kernel: 1, duration: 3, stride: 2 });
};

const run = (part: Part, layers: readonly WanVaeLayer[], which: WanVaePart, start: Value): Value => {
	let x = start;
	for (const layer of layers) {
		switch (layer.kind) {
			case 'residual':
				x = residual(part, layer.name, x, layer.outputs);
				break;
			case 'attention':
				x = frameAttention(part, layer.name, x);
				break;
			case 'resample':
				x = which === 'decoder' ? upsample(part, layer, x) : downsample(part, layer, x);
				break;
		}
	}
	return x;
};

/**
 * What the decoder remembers of a latent of height x width, in the order of its layers: names and shapes [2, C, h, w] of inputs and outputs. The graph for the first latent passes by the
 * convolutions over time, and has not theirs.
 */
export const wanDecoderMemories = (spec: WanVaeSpec, height: number, width: number): { readonly name: string; readonly dims: readonly number[] }[] => {
	let [rows, columns] = [height, width];
	const memory = (name: string, channels: number) => ({ name, dims: [REMEMBERED, channels, rows, columns] });
	const memories = [memory('decoder.conv1', spec.z_dim)];
	for (const layer of wanVaeLayers(spec, 'decoder')) {
		if (layer.kind === 'residual') {
			memories.push(memory(`${layer.name}.residual.2`, layer.inputs), memory(`${layer.name}.residual.6`, layer.outputs));
		} else if (layer.kind === 'resample') {
			memories.push(...(layer.isTemporal ? [memory(`${layer.name}.time_conv`, layer.inputs)] : []));
			[rows, columns] = [2 * rows, 2 * columns];
		}
	}
	return [...memories, memory('decoder.head.2', outerWidth(spec))];
};

const perChannel = (g: GraphBuilder, name: string, values: readonly number[]): Value => g.floats(name, [1, values.length, 1, 1], values);

/**
 * Inputs: `latent` [z_dim, h, w] (normalised where the spec says how); `memory.NAME` (see `wanDecoderMemories`). Outputs: `frames` [T, 3, H, W] float32 RGB
 * in [-1, 1], unclamped, or packed and clamped (decoder-output.ts), T = 1 for the first latent; `memory_out.NAME`. Throws `model_invalid`.
 */
export const wanDecoderGraph = (spec: WanVaeSpec, options: WanVaeOptions): Graph => {
	const { height, width, weights, position, output = 'rgb' } = options;
	const g = weights.graph(`wan-decoder-${position}`);
	const part = { g, weights, isFirst: position === 'first' };
	const given = g.input('latent', 'float32', [spec.z_dim, height, width]);
	checkedLatent(g, given, spec.z_dim * height * width, options);
	const latent = reshape(g, 'latent/frame', given, [1, spec.z_dim, height, width]);
	const raw = spec.latent_std.length === 0 ? latent
		: add(g, 'latent/shifted', multiply(g, 'latent/scaled', latent, perChannel(g, 'std', spec.latent_std)), perChannel(g, 'mean', spec.latent_mean));
	const start = causal(part, 'decoder.conv1', pointwise(part, 'conv2', raw, spec.z_dim), innerWidth(spec));
	const x = run(part, wanVaeLayers(spec, 'decoder'), 'decoder', start);
	const rgb = causal(part, 'decoder.head.2', normedSilu(part, 'decoder.head.0', x), 3);
	const unit = (): Value => clip(g, 'rgb/unit', add(g, 'rgb/shifted', multiply(g, 'rgb/halved', rgb, g.float('half', 0.5)), g.float('half/shift', 0.5)), 0, 1);
	g.output('frames', output === 'rgb' ? rgb : packedFrames(g, unit(), output));
	return g.finish();
};

/**
 * Inputs: `frames` [T, 3, H, W] RGB in [-1, 1], T = 1 for the first, the VAE's frames per latent for all later ones; `memory.NAME`. Outputs: `latent`
 * [z_dim, h, w], the mean (nothing is sampled), normalised where the spec says how; `memory_out.NAME`. Throws `model_invalid`.
 */
export const wanEncoderGraph = (spec: WanVaeSpec, options: WanVaeOptions): Graph => {
	const { height, width, weights, position } = options;
	const g = weights.graph(`wan-encoder-${position}`);
	const part = { g, weights, isFirst: position === 'first' };
	const stride = spatialStride(spec);
	const frames = g.input('frames', 'float32', [part.isFirst ? 1 : framesPerLatent(spec), 3, height * stride, width * stride]);
	const x = run(part, wanVaeLayers(spec, 'encoder'), 'encoder', causal(part, 'encoder.conv1', frames, spec.dim));
	const both = pointwise(part, 'conv1', causal(part, 'encoder.head.2', normedSilu(part, 'encoder.head.0', x), 2 * spec.z_dim), 2 * spec.z_dim);
	const mean = slice(g, 'latent/mean', both, 1, 0, spec.z_dim);
	const normal = spec.latent_std.length === 0 ? mean
		: multiply(g, 'latent/normal', subtract(g, 'latent/centred', mean, perChannel(g, 'mean', spec.latent_mean)), perChannel(g, '1/std', spec.latent_std.map((value) => 1 / value)));
	g.output('latent', reshape(g, 'latent/flat', normal, [spec.z_dim, height, width]));
	return g.finish();
};
