/**
 * How much memory a joined model needs for a clip or a stream, before anything of it is loaded: weights from the headers of the files, the rest from
 * shapes. An estimate, held against measurements of the true dimensions: the denoiser of 1.3B in fp32 (bench/real-model.bench.ts), TAEHV and the Wan VAE's decoder
 * (bench/video-codec.bench.ts, which prints both).
 *
 * Letters: L tokens of a forward, D width, N heads, T text length, P pixels of a picture.
 */
import type { MappedSafetensors } from '../model/safetensors.js';
import { framesFromStart, type ImportedVaeSpec, type ModelSpec } from '../model/spec.js';
import { innerWidth, spatialStride, wanVaeLayers, type WanVaePart, type WanVaeSpec } from '../model/wan-vae-spec.js';
import { isChoiceDelicate } from '../model/sparse-linear-attention.js';
import { TurbocastError } from '../protocol/errors.js';
import { denoiserArithmetic, deviceOf, stateType } from './profile.js';
import type { EngineProfile, Residency } from './protocol.js';
import { windowBytes } from './stream-memory.js';

const FLOAT = 4;
/** The process itself with the tensor library. */
export const BASE_BYTES = 250e6;
/** What the sparse branch gathers at a time, keys and values and their scores. */
const SPARSE_PIECE_BYTES = 500e6;
/** Tensors of a layer that exist side by side: of the width of the network, and of its hidden layer. */
const [LIVE_WIDE, LIVE_HIDDEN] = [10, 3];
/**
 * Frames' worth of activations around one convolution over time: its input with the remembered frames, that laid side by side three times, its output, the sum, and
 * what the library puts between them. Measured: 110, between 128x128 (1604 MB in all) and 256x256 (4548 MB).
 */
const LIVE_FRAMES = 111;
/** Of a convolution's weights while graphs are made (folded for frames that lie side by side, laid out for the processor), and while they work. Measured: 2.65 to 2.98 (64x64, 1026 and 1123 MB in all), 1.27. */
const [COPIES_WHILE_LOADING, COPIES_AT_WORK] = [3.1, 1.4];
const FRAMES_AT_ONCE = 4;

/** Prompts whose keys and values stay on a card: those of streams that take turns, or of the clip at hand. */
export const residentPrompts = (spec: ModelSpec): number => (spec.clip === undefined ? 4 : 1);

/** Bytes of each part while it works; those that are `state` stay whatever part is at work. */
export type MemoryNeed = {
	/** The text encoder in float32, and with weights that stay as they are stored. */
	readonly text: number;
	readonly textAsStored: number;
	readonly keys: number;
	readonly denoiser: number;
	readonly decoder: number;
	readonly encoder: number;
	readonly state: number;
};

export type MemoryRequest = {
	readonly spec: ModelSpec;
	readonly profile: EngineProfile;
	readonly files: { readonly text: MappedSafetensors; readonly dit: MappedSafetensors; readonly vae: MappedSafetensors; /** Of models that begin with a picture; the decoder may be another network. */ readonly encoder?: MappedSafetensors | undefined };
	readonly width: number;
	readonly height: number;
	/** Latent frames of one forward. */
	readonly latents: number;
};

const product = (shape: readonly number[]): number => shape.reduce((total, size) => total * size, 1);

/** Bytes of a file's tensors once they are loaded; `bytesOf` says how many each of their numbers takes, 0 for those that are not loaded. */
const loaded = (file: MappedSafetensors, bytesOf: (name: string, axes: number) => number): number =>
	[...file.tensors.values()].reduce((sum, { name, shape }) => sum + product(shape) * bytesOf(name, shape.length), 0);

/** Looked up row by row where it lies. */
const TABLE = 'token_embedding.weight';

/** Numbers of the largest tensor, of those that are not looked up row by row. */
const largest = (file: MappedSafetensors): number =>
	Math.max(0, ...[...file.tensors.values()].map(({ name, shape }) => (name === TABLE ? 0 : product(shape))));

const OF_TEXT = /^text_embedding\.|\.cross_attn\.(?:k|v|norm_k)\./u;

/** Of a number of a linear layer; those on a graphics card are counted as if they were here, which they are while they are loaded. */
const LINEAR_BYTES: { readonly [P in EngineProfile]: number } = { 'cpu-fp32': FLOAT, 'cpu-int8': 1, 'cpu-int8-attention': 1, 'webgpu-fp32': FLOAT, 'webgpu-fp16': 2, 'cuda-fp32': FLOAT, 'cuda-fp16': 2, 'cuda-int8': 1 };

const tokensPerLatent = ({ spec, width, height }: MemoryRequest): number => width * height / (spec.vae.spatial_stride ** 2 * product(spec.dit.patch_size));

const denoiserWeights = (request: MemoryRequest): number => {
	const { spec, profile, files, latents } = request;
	const sparse = spec.clip?.attention;
	const isSparse = sparse !== undefined;
	const last = `blocks.${spec.dit.num_layers - 1}.`;
	const { linears } = denoiserArithmetic(profile);
	// See `ditGraph`. What stays in float16 on a card is counted as float32 here.
	const inLastAlone = isSparse && (linears === 'int8' || linears === 'w8a8') && isChoiceDelicate(sparse, latents * tokensPerLatent(request));
	return loaded(files.dit, (name, axes) => {
		if (OF_TEXT.test(name) || name.endsWith('.scale')) {
			return 0;
		}
		const isLinear = axes === 2 && name.startsWith(inLastAlone ? last : 'blocks.') && !name.includes('proj_l') && !(isSparse && /self_attn\.[qk]\./u.test(name));
		return isLinear ? LINEAR_BYTES[profile] : FLOAT;
	});
};

const denoiserActivations = (request: MemoryRequest): number => {
	const { spec, latents } = request;
	const { dim, ffn_dim: hidden, num_heads: heads, text_len: textLength } = spec.dit;
	const perLatent = tokensPerLatent(request);
	const tokens = latents * perLatent;
	const seen = spec.clip === undefined ? spec.stream.window_latents * perLatent : tokens;
	const attention = spec.clip?.attention === undefined ? 2 * heads * tokens * seen * FLOAT : SPARSE_PIECE_BYTES;
	return tokens * (LIVE_WIDE * dim + LIVE_HIDDEN * hidden) * FLOAT + Math.max(attention, 2 * heads * tokens * textLength * FLOAT);
};

/** Numbers a pixel of the picture that a part of the VAE remembers between two latents. */
const remembered = (spec: WanVaeSpec, part: WanVaePart): number => {
	let scale = part === 'decoder' ? 1 / spatialStride(spec) : 1;
	let total = 2 * innerWidth(spec) * scale ** 2;
	for (const layer of wanVaeLayers(spec, part)) {
		if (layer.kind === 'residual') {
			total += 2 * (layer.inputs + layer.outputs) * scale ** 2;
		} else if (layer.kind === 'resample') {
			total += layer.isTemporal ? 2 * layer.inputs * scale ** 2 : 0;
			scale *= part === 'decoder' ? 2 : 0.5;
		}
	}
	return total;
};

const wanVaePart = (spec: WanVaeSpec, part: WanVaePart, file: MappedSafetensors, pixels: number): number => {
	const weights = loaded(file, (name) => (name.startsWith(part === 'decoder' ? 'encoder.' : 'decoder.') ? 0 : FLOAT));
	return Math.max(COPIES_WHILE_LOADING * weights, COPIES_AT_WORK * weights + (2 * remembered(spec, part) + LIVE_FRAMES * spec.dim) * pixels * FLOAT);
};

export const decoderBytes = (vae: ImportedVaeSpec, file: MappedSafetensors, pixels: number): number => (vae.kind === 'wan-vae'
	? wanVaePart(vae.network, 'decoder', file, pixels)
	: loaded(file, () => FLOAT) + 4 * FRAMES_AT_ONCE * (vae.network.widths.at(-1) ?? 0) * pixels * FLOAT);

/** Keys and values of prompts that stay on a card, of each denoiser. */
const residentKeys = ({ spec, profile }: MemoryRequest, crossKeys: number): number =>
	(deviceOf(profile) === 'cpu' ? 0 : residentPrompts(spec) * (spec.clip?.boundary === undefined ? 1 : 2) * crossKeys * (stateType(profile) === 'float16' ? 0.5 : 1));

/** Keys and values of what a stream sees: where they are handed over those of the window, of the chunk that joins them, and the copy while the window grows; in place the window alone. */
const pastBytes = ({ spec, profile }: MemoryRequest, perLatent: number): number => {
	const { stream, dit, clip } = spec;
	if (clip !== undefined) {
		return 0;
	}
	return deviceOf(profile) === 'cuda' ? windowBytes(spec, perLatent, profile) : 2 * dit.num_layers * dit.dim * perLatent * (2 * stream.window_latents + stream.latents_per_chunk) * FLOAT;
};

/** What the parts need. */
export const memoryNeed = (request: MemoryRequest): MemoryNeed => {
	const { spec, files, width, height, latents } = request;
	const { dit, text, vae } = spec;
	if (vae.kind === 'group-decoder') {
		throw new TurbocastError('internal', `The model ${spec.name} is not a joined one.`);
	}
	const pixels = width * height;
	const crossKeys = 2 * dit.num_layers * dit.text_len * dit.dim * FLOAT;
	const perLatent = tokensPerLatent(request);
	const past = pastBytes(request, perLatent);
	const textActivations = (3 * text.num_heads * text.text_len ** 2 + text.text_len * (4 * text.dim + 3 * text.dim_ffn)) * FLOAT;
	const clip = 8 * vae.latent_channels * latents * (pixels / vae.spatial_stride ** 2) * FLOAT;
	return {
		text: loaded(files.text, (name) => (name === TABLE ? 0 : FLOAT)) + textActivations,
		// A matrix at a time is made float32, and laid out for the product.
		textAsStored: 3 * FLOAT * largest(files.text) + textActivations,
		keys: loaded(files.dit, (name) => (OF_TEXT.test(name) ? FLOAT : 0)) + crossKeys,
		denoiser: denoiserWeights(request) + denoiserActivations(request),
		decoder: decoderBytes(vae, files.vae, pixels),
		encoder: spec.encoder === undefined ? 0 : wanVaePart(spec.encoder, 'encoder', files.encoder ?? files.vae, pixels) + 3 * framesFromStart(spec, latents) * pixels * FLOAT,
		state: BASE_BYTES + crossKeys + residentKeys(request, crossKeys) + past + clip,
	};
};

const totals = (need: MemoryNeed): { readonly all: number; readonly one: number } => {
	const others = [need.keys, need.denoiser, need.decoder, need.encoder];
	return { all: others.reduce((sum, bytes) => sum + bytes, need.state + need.text), one: need.state + Math.max(need.textAsStored, ...others) };
};

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/**
 * Whether all networks may stay in memory or each must make room. Throws `not_enough_memory`, which says how much is needed and there, and
 * how many frames there is room for.
 */
export const planResidency = (request: MemoryRequest, residency: Residency, availableBytes: number): 'all' | 'one' => {
	const neededBy = (latents: number): { readonly all: number; readonly one: number } => totals(memoryNeed({ ...request, latents }));
	const { all, one } = neededBy(request.latents);
	const chosen = residency === 'auto' ? (all <= availableBytes ? 'all' : 'one') : residency;
	const needed = chosen === 'all' ? all : one;
	if (needed <= availableBytes) {
		return chosen;
	}
	const { spec, width, height } = request;
	let fitting = spec.clip === undefined ? 0 : request.latents - 1;
	while (fitting > 0 && neededBy(fitting)[chosen] > availableBytes) {
		fitting -= 1;
	}
	const wanted = spec.clip === undefined ? 'A stream' : `A clip of ${framesFromStart(spec, request.latents)} frames`;
	const room = [
		...(residency === 'all' && one <= availableBytes ? [`with engine.residency: one it needs ${gigabytes(one)}`] : []),
		...(fitting > 0 ? [`there is room for ${framesFromStart(spec, fitting)} frames of this size`] : ['ask for a smaller size']),
	];
	throw new TurbocastError('not_enough_memory',
		`${wanted} of ${width}x${height} needs about ${gigabytes(needed)} of memory with the model ${spec.name}, and ${gigabytes(availableBytes)} are free; ${room.join(', or ')}.`, { param: fitting > 0 ? 'frames' : 'size' });
};
