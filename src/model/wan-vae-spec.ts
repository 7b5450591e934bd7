/**
 * The Wan 2.1 VAE as data: its dimensions, and the order of its layers that follows from them. Field names are those of the
 * original configuration (`temperal` included); the graph, the plain-loop reference and the reader of checkpoints all walk this list.
 */
import { TurbocastError } from '../protocol/errors.js';
import { type Infer, integer, list, boolean, number, object, withDefault } from '../protocol/schema.js';

const dimension = integer({ min: 1, max: 1_000_000 });
const finite = number({ min: -1e12, max: 1e12 });

export const WAN_VAE_SPEC = object({
	/** Channels at full resolution. */
	dim: dimension,
	/** Channels of a latent. */
	z_dim: dimension,
	/** Width of each level of the encoder, in multiples of `dim`. */
	dim_mult: list(dimension, { min: 1, max: 8 }),
	/** Of each level of the encoder; the decoder has one more. */
	num_res_blocks: integer({ min: 1, max: 16 }),
	/** Scales (1 at full resolution of the encoder) after whose residual blocks attention stands; none in Wan 2.1. */
	attn_scales: withDefault(list(number({ min: 0, max: 1024 }), { max: 8 }), []),
	/** For each downsampling of the encoder, whether it halves time too. */
	temperal_downsample: list(boolean(), { max: 7 }),
	/** Per latent channel: raw latent = normalised * std + mean. Empty: latents are not normalised. */
	latent_mean: withDefault(list(finite, { max: 4096 }), []),
	latent_std: withDefault(list(number({ min: 1e-12, max: 1e12 }), { max: 4096 }), []),
});

export type WanVaeSpec = Infer<typeof WAN_VAE_SPEC>;

/** Of Wan 2.1's latents (and Wan 2.2 A14B's, which uses the same VAE), from its published configuration; no weight tells them. */
export const WAN_LATENT_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921] as const;
export const WAN_LATENT_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916] as const;

export type WanVaePart = 'encoder' | 'decoder';

/** A layer between the first and the last convolution of a part; `name` as in the original state dict. */
export type WanVaeLayer =
	| { readonly kind: 'residual'; readonly name: string; readonly inputs: number; readonly outputs: number }
	| { readonly kind: 'attention'; readonly name: string; readonly width: number }
	/** Twice or half the resolution, and with `isTemporal` twice or half the frames. */
	| { readonly kind: 'resample'; readonly name: string; readonly inputs: number; readonly outputs: number; readonly isTemporal: boolean };

/** Parses a configuration in the original's field names. Throws `model_invalid`. */
export const parseWanVaeSpec = (value: unknown): WanVaeSpec => {
	let spec: WanVaeSpec;
	try {
		spec = WAN_VAE_SPEC.parse(value);
	} catch (error) {
		throw new TurbocastError('model_invalid', `The configuration of the Wan VAE: ${TurbocastError.from(error).message}`, { cause: error });
	}
	const normalised = [spec.latent_mean.length, spec.latent_std.length];
	if (spec.temperal_downsample.length !== spec.dim_mult.length - 1) {
		throw new TurbocastError('model_invalid', 'The configuration of the Wan VAE: temperal_downsample needs one entry less than dim_mult.');
	}
	if (!normalised.every((count) => count === 0) && !normalised.every((count) => count === spec.z_dim)) {
		throw new TurbocastError('model_invalid', `The configuration of the Wan VAE: latent_mean and latent_std need ${spec.z_dim} numbers each, or none.`);
	}
	return spec;
};

/** Pixels of a latent's side. */
export const spatialStride = (spec: WanVaeSpec): number => 2 ** (spec.dim_mult.length - 1);
/** Frames of every latent but the first, which has one. */
export const framesPerLatent = (spec: WanVaeSpec): number => 2 ** spec.temperal_downsample.filter(Boolean).length;

const middle = (part: WanVaePart, width: number): WanVaeLayer[] => [
	{ kind: 'residual', name: `${part}.middle.0`, inputs: width, outputs: width },
	{ kind: 'attention', name: `${part}.middle.1`, width },
	{ kind: 'residual', name: `${part}.middle.2`, inputs: width, outputs: width },
];

const encoderLayers = (spec: WanVaeSpec): WanVaeLayer[] => {
	const layers: WanVaeLayer[] = [];
	const name = (): string => `encoder.downsamples.${layers.length}`;
	let [width, scale] = [spec.dim, 1];
	for (const [level, multiple] of spec.dim_mult.entries()) {
		for (let block = 0; block < spec.num_res_blocks; block++, width = multiple * spec.dim) {
			layers.push({ kind: 'residual', name: name(), inputs: width, outputs: multiple * spec.dim });
			if (spec.attn_scales.includes(scale)) {
				layers.push({ kind: 'attention', name: name(), width: multiple * spec.dim });
			}
		}
		if (level < spec.dim_mult.length - 1) {
			layers.push({ kind: 'resample', name: name(), inputs: width, outputs: width, isTemporal: spec.temperal_downsample[level] ?? false });
			scale /= 2;
		}
	}
	return [...layers, ...middle('encoder', width)];
};

const decoderLayers = (spec: WanVaeSpec): WanVaeLayer[] => {
	const multiples = spec.dim_mult.toReversed();
	const isTemporal = spec.temperal_downsample.toReversed();
	const layers: WanVaeLayer[] = [];
	const name = (): string => `decoder.upsamples.${layers.length}`;
	let width = (multiples[0] ?? 1) * spec.dim;
	const head = middle('decoder', width);
	let scale = 1 / 2 ** (spec.dim_mult.length - 2);
	for (const [level, multiple] of multiples.entries()) {
		const outputs = multiple * spec.dim;
		for (let block = 0; block <= spec.num_res_blocks; block++, width = outputs) {
			layers.push({ kind: 'residual', name: name(), inputs: width, outputs });
			if (spec.attn_scales.includes(scale)) {
				layers.push({ kind: 'attention', name: name(), width: outputs });
			}
		}
		if (level < multiples.length - 1) {
			// An upsampling halves the channels, whatever the next level makes of them.
			layers.push({ kind: 'resample', name: name(), inputs: width, outputs: Math.floor(width / 2), isTemporal: isTemporal[level] ?? false });
			width = Math.floor(width / 2);
			scale *= 2;
		}
	}
	return [...head, ...layers];
};

/** The layers of a part, in the order in which they run. */
export const wanVaeLayers = (spec: WanVaeSpec, part: WanVaePart): WanVaeLayer[] => (part === 'encoder' ? encoderLayers(spec) : decoderLayers(spec));

/** Channels at the narrow end (after the first convolution of the decoder, before the last of the encoder) and at the other. */
export const innerWidth = (spec: WanVaeSpec): number => (spec.dim_mult.at(-1) ?? 1) * spec.dim;
export const outerWidth = (spec: WanVaeSpec): number => (spec.dim_mult[0] ?? 1) * spec.dim;

const nearest = (value: number, multiple: number): number => Math.max(multiple, Math.round(value / multiple) * multiple);

/** Latent sizes of a clip. Throws `invalid_request`, naming the nearest size, for one that the VAE cannot make. */
export const latentSize = (spec: WanVaeSpec, clip: { readonly frames: number; readonly height: number; readonly width: number }) => {
	const [stride, group] = [spatialStride(spec), framesPerLatent(spec)];
	const { frames, height, width } = clip;
	if (height % stride !== 0 || width % stride !== 0 || height < stride || width < stride) {
		throw new TurbocastError('invalid_request', `The VAE makes sides that are multiples of ${stride}, not ${width}x${height}; the nearest size is ${nearest(width, stride)}x${nearest(height, stride)}.`, { param: 'size' });
	}
	if (frames < 1 || (frames - 1) % group !== 0) {
		throw new TurbocastError('invalid_request', `The VAE makes 1 frame and then ${group} at a time, not ${frames}; the nearest number is ${1 + Math.max(0, Math.round((frames - 1) / group)) * group}.`, { param: 'frames' });
	}
	return { latents: 1 + (frames - 1) / group, height: height / stride, width: width / stride };
};
