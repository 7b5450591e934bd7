/**
 * The Wan 2.1 VAE in plain loops, whole clips at once: causal convolutions over all frames with zeros before the first. No
 * caches; the rules for the first frame are what they mean for a clip. See reference.ts.
 */
import { framesPerLatent, innerWidth, type WanVaeLayer, wanVaeLayers, type WanVaeSpec } from '../../model/wan-vae-spec.js';
import type { Weights } from '../../model/weights.js';
import { attention, convolution, map, type Planes, silu, sum } from './reference-math.js';

type Clip = readonly Planes[];

const blank = (like: Planes): Planes => ({ ...like, data: new Float64Array(like.data.length) });

/** weight [out, in, kt, k, k]: the picture at time t is a sum over kt pictures, the last of them that of t. */
const causal = (weights: Weights, name: string, clip: Clip, shape: { readonly outputs: number; readonly duration: number; readonly kernel: number }): Planes[] => {
	const { outputs, duration, kernel } = shape;
	const inputs = clip[0]?.channels ?? 0;
	const weight = weights.floats(`${name}.weight`, [outputs, inputs, duration, kernel, kernel]);
	const bias = weights.floats(`${name}.bias`, [outputs]);
	const area = kernel * kernel;
	const slices = Array.from({ length: duration }, (_, offset) => Float64Array.from({ length: outputs * inputs * area }, (__, index) =>
		weight[(Math.floor(index / area) * duration + offset) * area + (index % area)] ?? Number.NaN));
	return clip.map((frame, time) => slices.reduce<Planes>((total, part, offset) => {
		const past = clip[time - duration + 1 + offset] ?? blank(frame);
		const addend = convolution(past, part, offset === 0 ? bias : new Float64Array(outputs), kernel);
		return offset === 0 ? addend : { ...addend, data: sum(total.data, addend.data) };
	}, frame));
};

const normalised = (weights: Weights, name: string, frame: Planes, dims: readonly number[]): Planes => {
	const gamma = weights.floats(`${name}.gamma`, dims);
	const area = frame.height * frame.width;
	const lengths = Array.from({ length: area }, (_, pixel) => {
		let squares = 0;
		for (let channel = 0; channel < frame.channels; channel++) {
			squares += (frame.data[channel * area + pixel] ?? Number.NaN) ** 2;
		}
		return Math.max(Math.sqrt(squares), 1e-12);
	});
	return { ...frame, data: map(frame.data, (value, index) => (value / (lengths[index % area] ?? 0)) * Math.sqrt(frame.channels) * (gamma[Math.floor(index / area)] ?? Number.NaN)) };
};

const activated = (weights: Weights, name: string, clip: Clip): Planes[] => clip.map((frame) => {
	const normal = normalised(weights, name, frame, [frame.channels, 1, 1, 1]);
	return { ...normal, data: map(normal.data, silu) };
});

const residual = (weights: Weights, name: string, clip: Clip, outputs: number): Planes[] => {
	const y = causal(weights, `${name}.residual.2`, activated(weights, `${name}.residual.0`, clip), { outputs, duration: 3, kernel: 3 });
	const z = causal(weights, `${name}.residual.6`, activated(weights, `${name}.residual.3`, y), { outputs, duration: 3, kernel: 3 });
	const past = clip[0]?.channels === outputs ? clip : causal(weights, `${name}.shortcut`, clip, { outputs, duration: 1, kernel: 1 });
	return z.map((frame, time) => ({ ...frame, data: sum(frame.data, past[time]?.data ?? new Float64Array(0)) }));
};

const planar = (weights: Weights, name: string, frame: Planes, outputs: number, kernel: number): Planes =>
	convolution(frame, weights.floats(`${name}.weight`, [outputs, frame.channels, kernel, kernel]), weights.floats(`${name}.bias`, [outputs]), kernel);

const attended = (weights: Weights, name: string, frame: Planes): Planes => {
	const { channels, height, width } = frame;
	const area = height * width;
	const qkv = planar(weights, `${name}.to_qkv`, normalised(weights, `${name}.norm`, frame, [channels, 1, 1]), 3 * channels, 1);
	const [q, k, v] = [0, 1, 2].map((part) => Float64Array.from({ length: channels * area }, (_, index) =>
		qkv.data[(part * channels + (index % channels)) * area + Math.floor(index / channels)] ?? Number.NaN)) as [Float64Array, Float64Array, Float64Array];
	const mixed = attention({ q, k, v, heads: 1, width: channels, scale: 1 / Math.sqrt(channels) });
	const picture = { ...frame, data: Float64Array.from({ length: channels * area }, (_, index) => mixed[(index % area) * channels + Math.floor(index / area)] ?? Number.NaN) };
	return { ...frame, data: sum(frame.data, planar(weights, `${name}.proj`, picture, channels, 1).data) };
};

const doubled = (frame: Planes): Planes => {
	const [height, width] = [2 * frame.height, 2 * frame.width];
	return {
		channels: frame.channels, height, width,
		data: Float64Array.from({ length: frame.channels * height * width }, (_, index) => {
			const [channel, row, column] = [Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width];
			return frame.data[(channel * frame.height + Math.floor(row / 2)) * frame.width + Math.floor(column / 2)] ?? Number.NaN;
		}),
	};
};

/** Every second pixel of a 3x3 convolution that looks right and down: pixel (y, x) sees (2y..2y+2, 2x..2x+2). */
const halved = (weights: Weights, name: string, frame: Planes, outputs: number): Planes => {
	const whole = planar(weights, name, frame, outputs, 3);
	const [height, width] = [frame.height / 2, frame.width / 2];
	return {
		channels: outputs, height, width,
		data: Float64Array.from({ length: outputs * height * width }, (_, index) => {
			const [channel, row, column] = [Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width];
			return whole.data[(channel * frame.height + 2 * row + 1) * frame.width + 2 * column + 1] ?? Number.NaN;
		}),
	};
};

/** The first frame stays one; each later one becomes two, from a convolution that sees zeros where the first frame was. */
const grown = (weights: Weights, name: string, clip: Clip): Planes[] => {
	const [first, ...later] = clip;
	const pairs = later.length === 0 ? [] : causal(weights, name, later, { outputs: 2 * (first?.channels ?? 0), duration: 3, kernel: 1 });
	return [...(first === undefined ? [] : [first]), ...pairs.flatMap((pair) => [0, 1].map((half) => {
		const size = pair.data.length / 2;
		return { ...pair, channels: pair.channels / 2, data: pair.data.slice(half * size, (half + 1) * size) };
	}))];
};

/** The first frame stays; then of every two frames, one from the second, the first and the one before them. */
const shrunk = (weights: Weights, name: string, clip: Clip): Planes[] => {
	const all = causal(weights, name, clip, { outputs: clip[0]?.channels ?? 0, duration: 3, kernel: 1 });
	return clip.flatMap((frame, time) => (time === 0 ? [frame] : time % 2 === 0 ? [all[time] ?? frame] : []));
};

const run = (weights: Weights, layers: readonly WanVaeLayer[], start: Planes[], part: 'encoder' | 'decoder'): Planes[] =>
	layers.reduce((clip, layer) => {
		switch (layer.kind) {
			case 'residual':
				return residual(weights, layer.name, clip, layer.outputs);
			case 'attention':
				return clip.map((frame) => attended(weights, layer.name, frame));
			case 'resample': {
				if (part === 'decoder') {
					const frames = layer.isTemporal ? grown(weights, `${layer.name}.time_conv`, clip) : clip;
					return frames.map((frame) => planar(weights, `${layer.name}.resample.1`, doubled(frame), layer.outputs, 3));
				}
				const frames = clip.map((frame) => halved(weights, `${layer.name}.resample.1`, frame, layer.outputs));
				return layer.isTemporal ? shrunk(weights, `${layer.name}.time_conv`, frames) : frames;
			}
		}
	}, start);

/** Latents [z_dim, h, w] to frames [3, H, W], unclamped. */
export const decodeWanClip = (spec: WanVaeSpec, weights: Weights, latents: readonly Planes[]): Planes[] => {
	const raw = latents.map((latent) => ({
		...latent, data: map(latent.data, (value, index) => {
			const channel = Math.floor(index / (latent.height * latent.width));
			return value * (spec.latent_std[channel] ?? 1) + (spec.latent_mean[channel] ?? 0);
		}),
	}));
	const mixed = causal(weights, 'conv2', raw, { outputs: spec.z_dim, duration: 1, kernel: 1 });
	const start = causal(weights, 'decoder.conv1', mixed, { outputs: innerWidth(spec), duration: 3, kernel: 3 });
	const end = run(weights, wanVaeLayers(spec, 'decoder'), start, 'decoder');
	return causal(weights, 'decoder.head.2', activated(weights, 'decoder.head.0', end), { outputs: 3, duration: 3, kernel: 3 });
};

/** Frames [3, H, W], 1 and then whole groups, to the means of latents [z_dim, h, w]. */
export const encodeWanClip = (spec: WanVaeSpec, weights: Weights, frames: readonly Planes[]): Planes[] => {
	if ((frames.length - 1) % framesPerLatent(spec) !== 0) {
		throw new RangeError(`${frames.length} frames are not 1 and whole groups`);
	}
	const start = causal(weights, 'encoder.conv1', frames, { outputs: spec.dim, duration: 3, kernel: 3 });
	const end = run(weights, wanVaeLayers(spec, 'encoder'), start, 'encoder');
	const head = causal(weights, 'encoder.head.2', activated(weights, 'encoder.head.0', end), { outputs: 2 * spec.z_dim, duration: 3, kernel: 3 });
	return causal(weights, 'conv1', head, { outputs: 2 * spec.z_dim, duration: 1, kernel: 1 }).map((both) => {
		const area = both.height * both.width;
		return {
			...both, channels: spec.z_dim, data: map(both.data.subarray(0, spec.z_dim * area), (value, index) => {
				const channel = Math.floor(index / area);
				return (value - (spec.latent_mean[channel] ?? 0)) / (spec.latent_std[channel] ?? 1);
			}),
		};
	});
};
