/**
 * What a model is: every dimension, once. `model.json` of a model folder is parsed here (docs/model-format.md explains each
 * field); nothing else in the code knows a number of any model.
 */
import { TurbocastError } from '../protocol/errors.js';
import { MAX_PROMPT_LENGTH } from '../protocol/limits.js';
import {
	boolean, integer, list, literal, number, object, oneOf, optional, record, string, withDefault, type Infer, type ObjectOf,
} from '../protocol/schema.js';
import type { SparseShape } from './sparse-linear-attention.js';
import type { TaehvSpec } from './taehv.js';
import type { WanVaeSpec } from './wan-vae-spec.js';

const dimension = integer({ min: 1, max: 1_000_000 });
const name = string({ min: 1, max: 128, pattern: /^[\w.-]+$/u, says: 'must be letters, digits, dots, dashes and underscores' });
const finite = number({ min: -1e12, max: 1e12 });

const fileEntry = object({
	file: name,
	sha256: string({ min: 64, max: 64, pattern: /^[0-9a-f]+$/u, says: 'must be 64 hexadecimal digits' }),
	bytes: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
});

const textSpec = object({
	kind: literal('umt5'),
	vocab_size: dimension, dim: dimension, dim_attn: dimension, dim_ffn: dimension, num_heads: dimension, num_layers: dimension,
	num_buckets: dimension, max_dist: dimension, eps: withDefault(number({ min: 0, max: 1 }), 1e-6), text_len: dimension,
});

/** Dimensions of a denoiser, in the field names of the original implementations' configurations. */
export const DIT_FIELDS = {
	dim: dimension, ffn_dim: dimension, num_heads: dimension, num_layers: dimension, in_dim: dimension, out_dim: dimension,
	patch_size: list(dimension, { min: 3, max: 3 }),
	freq_dim: dimension, text_dim: dimension, text_len: dimension,
	eps: number({ min: 0, max: 1 }),
	qk_norm: boolean(), cross_attn_norm: boolean(),
	rope_theta: withDefault(number({ min: 1, max: 1e9 }), 10_000),
	/** Floats of the control vector of a latent frame; 0 for none. */
	control_dim: withDefault(integer({ min: 0, max: 1024 }), 0),
	pooled_text: withDefault(boolean(), false),
	/** Rows and columns of tokens that have a learned position besides the rotary one, which tells distances alone; left out for none. */
	position_grid: optional(list(dimension, { min: 2, max: 2 })),
} as const;

const ditSpec = object({ kind: literal('wan-causal'), ...DIT_FIELDS });

const vaeSpec = object({
	kind: literal('group-decoder'),
	latent_channels: dimension, spatial_stride: dimension, frames_per_latent: dimension,
	widths: list(dimension, { min: 1, max: 8 }), blocks: list(integer({ min: 0, max: 64 }), { min: 1, max: 8 }), grow: list(dimension, { max: 8 }),
	latent_mean: list(finite, { min: 1, max: 4096 }), latent_std: list(number({ min: 1e-12, max: 1e12 }), { min: 1, max: 4096 }),
	int8_ranges: withDefault(record(number({ min: 0, max: 1e12 }), { max: 4096 }), {}),
});

const controlSpec = object({
	name, index: integer({ min: 0, max: 1023 }), min: finite, max: finite, default: finite, label: string({ max: 256 }),
});

const timestep = number({ min: 0, max: 1000 });

export const MODEL_SPEC = object({
	format: literal(1),
	name, title: string({ max: 1024 }), license: string({ max: 256 }),
	fps: number({ min: 1, max: 240 }), width: dimension, height: dimension,
	sizes: list(list(dimension, { min: 2, max: 2 }), { min: 1, max: 64 }),
	text: textSpec, dit: ditSpec, vae: vaeSpec,
	stream: object({
		latents_per_chunk: dimension,
		/** Latent frames that attention sees, the current chunk included. */
		window_latents: dimension,
		/** First latent frames of a stream that never leave the window. */
		sink_latents: integer({ min: 0, max: 1024 }),
		/** Timestep given to the clean pass. */
		context_timestep: timestep,
	}),
	/** Timesteps (1000 * sigma), descending, by number of steps. */
	schedules: record(list(timestep, { min: 1, max: 64 }), { max: 16 }),
	default_steps: integer({ min: 1, max: 64 }),
	sampler: oneOf(['renoise', 'euler']),
	controls: withDefault(list(controlSpec, { max: 64 }), []),
	control_present_index: optional(integer({ min: 0, max: 1023 })),
	examples: withDefault(list(string({ min: 1, max: MAX_PROMPT_LENGTH }), { max: 64 }), []),
	files: object({ text: fileEntry, dit: fileEntry, vae: fileEntry, tokenizer: fileEntry }),
});

/** A model that is whole in its own folder (format 1). */
export type OwnModelSpec = Infer<typeof MODEL_SPEC>;
export type TextSpec = OwnModelSpec['text'];
/** What the graphs of a denoiser need to know, of whatever family it is. */
export type DitDimensions = ObjectOf<typeof DIT_FIELDS>;
export type VaeSpec = OwnModelSpec['vae'];
export type ControlSpec = OwnModelSpec['controls'][number];
export type FileEntry = Infer<typeof fileEntry>;

type DecoderFacts = {
	readonly latent_channels: number;
	/** Pixels of a latent's side. */
	readonly spatial_stride: number;
	/** Frames of a latent; the first of a stream has one. */
	readonly frames_per_latent: number;
};
/** A published decoder: its dimensions in the original's field names are `network`. */
export type ImportedVaeSpec =
	| (DecoderFacts & { readonly kind: 'wan-vae'; readonly network: WanVaeSpec })
	| (DecoderFacts & { readonly kind: 'taehv'; readonly network: TaehvSpec });

/** How a network that makes whole clips (`kind` of the denoiser `wan-clip`) is sampled (engine/rcm.ts). */
export type ClipSpec = {
	/** Largest noise-to-signal ratio: where sampling begins. */
	readonly sigma_max: number;
	/** Sparse-linear attention; dense when left out. */
	readonly attention?: SparseShape | undefined;
	/** Flow time below which the expert for little noise takes over; only of models with two. */
	readonly boundary?: number | undefined;
};

/** Whether it is whole in its own folder. */
export const isOwnModel = (spec: ModelSpec): spec is OwnModelSpec => spec.format === 1;

/** The same as a demand. Throws `model_invalid`. */
export const ownModel = (spec: ModelSpec): OwnModelSpec => {
	if (!isOwnModel(spec)) {
		throw new TurbocastError('model_invalid', `The model ${spec.name} is joined from imported networks; here one that is whole in its folder is needed.`);
	}
	return spec;
};

/**
 * A model that runs, whole in its folder or joined from imported networks (joined-model.ts). Of one that makes clips, a chunk is a clip:
 * `stream.latents_per_chunk` is its usual length, and nothing is remembered from one to the next.
 */
export type ModelSpec = Omit<OwnModelSpec, 'format' | 'dit' | 'vae' | 'files'> & {
	readonly format: 1 | 2;
	readonly dit: DitDimensions & { readonly kind: 'wan-causal' | 'wan-clip' };
	readonly vae: VaeSpec | ImportedVaeSpec;
	readonly clip?: ClipSpec | undefined;
	/** The VAE that reads pictures; only of models that begin with one. */
	readonly encoder?: WanVaeSpec | undefined;
	/** Sides that are multiples of it may be asked for besides `sizes`. */
	readonly size_multiple?: number | undefined;
	readonly files: OwnModelSpec['files'] & {
		/** The expert for little noise; `dit` is that for much. */
		readonly dit_low?: FileEntry | undefined;
		/** The Wan VAE of a model that begins with a picture. */
		readonly encoder?: FileEntry | undefined;
	};
};

const refuse = (sentence: string): never => {
	throw new TurbocastError('model_invalid', `model.json: ${sentence}.`);
};

/** Parses `model.json` and checks what one field says about another. Throws `model_invalid`. */
export const parseModelSpec = (value: unknown): OwnModelSpec => {
	let spec: OwnModelSpec;
	try {
		spec = MODEL_SPEC.parse(value);
	} catch (error) {
		throw new TurbocastError('model_invalid', `model.json: ${TurbocastError.from(error).message}`, { cause: error });
	}
	const { dit, vae, text, stream } = spec;
	if (dit.dim % dit.num_heads !== 0 || (dit.dim / dit.num_heads) % 2 !== 0) {
		refuse(`dit.dim ${dit.dim} does not divide into ${dit.num_heads} heads of an even size`);
	}
	if (text.dim !== dit.text_dim || text.text_len !== dit.text_len) {
		refuse('text.dim and text.text_len must equal dit.text_dim and dit.text_len');
	}
	if (vae.latent_channels !== dit.in_dim || dit.in_dim !== dit.out_dim) {
		refuse('vae.latent_channels, dit.in_dim and dit.out_dim must be equal');
	}
	if (vae.latent_mean.length !== vae.latent_channels || vae.latent_std.length !== vae.latent_channels) {
		refuse('vae.latent_mean and vae.latent_std need one number per latent channel');
	}
	if (vae.widths.length !== vae.blocks.length || vae.grow.length !== vae.widths.length - 1) {
		refuse('vae.widths and vae.blocks need the same length, vae.grow one less');
	}
	if (vae.grow.reduce((product, factor) => product * factor, 1) !== vae.frames_per_latent) {
		refuse('the product of vae.grow must be vae.frames_per_latent');
	}
	if (2 ** vae.widths.length !== vae.spatial_stride) {
		refuse('vae.spatial_stride must be 2 to the number of vae.widths');
	}
	if (stream.window_latents < stream.latents_per_chunk + stream.sink_latents) {
		refuse('stream.window_latents must hold the sink and one chunk');
	}
	if (spec.schedules[String(spec.default_steps)] === undefined) {
		refuse(`schedules has no list for default_steps ${spec.default_steps}`);
	}
	for (const [steps, times] of Object.entries(spec.schedules)) {
		if (times.length !== Number(steps) || times.some((time, index) => index > 0 && time >= (times[index - 1] ?? 0)) || (times.at(-1) ?? 0) <= 0) {
			refuse(`schedules.${steps} must be ${steps} descending timesteps above 0`);
		}
	}
	for (const [width, height] of [[spec.width, spec.height], ...spec.sizes]) {
		const multiple = vae.spatial_stride * Math.max(dit.patch_size[1] ?? 1, dit.patch_size[2] ?? 1);
		if ((width ?? 0) % multiple !== 0 || (height ?? 0) % multiple !== 0) {
			refuse(`sizes must be multiples of ${multiple}, not ${width}x${height}`);
		}
		const [rows, columns] = [height, width].map((side, axis) => (side ?? 0) / vae.spatial_stride / (dit.patch_size[axis + 1] ?? 1));
		if (dit.position_grid !== undefined && (dit.position_grid[0] !== rows || dit.position_grid[1] !== columns)) {
			refuse(`dit.position_grid is ${dit.position_grid.join('x')}, and ${width}x${height} has ${rows}x${columns} tokens`);
		}
	}
	if (spec.controls.some((control) => control.index >= dit.control_dim) || (spec.control_present_index ?? 0) > Math.max(0, dit.control_dim - 1)) {
		refuse(`a control's index lies outside dit.control_dim ${dit.control_dim}`);
	}
	return spec;
};

/** Frames of a chunk in the midst of a stream, or of a clip of the usual length. */
export const framesPerChunk = (spec: ModelSpec): number => (spec.clip === undefined
	? spec.stream.latents_per_chunk * spec.vae.frames_per_latent
	: framesFromStart(spec, spec.stream.latents_per_chunk));
/** Frames of the first `latents` latent frames of a stream or clip: of a published decoder, the first latent is a single picture. */
export const framesFromStart = (spec: Pick<ModelSpec, 'vae'>, latents: number): number =>
	(spec.vae.kind === 'group-decoder' ? latents * spec.vae.frames_per_latent : 1 + (latents - 1) * spec.vae.frames_per_latent);
/** Frames before the chunk of that index. Of a published decoder the first chunk of a stream is shorter; every clip is as long as the first. */
export const framesBeforeChunk = (spec: ModelSpec, chunkIndex: number): number =>
	(spec.clip !== undefined || chunkIndex === 0 ? chunkIndex * framesPerChunk(spec) : framesFromStart(spec, chunkIndex * spec.stream.latents_per_chunk));
/** Milliseconds of video in a chunk. */
export const chunkMs = (spec: ModelSpec): number => (framesPerChunk(spec) * 1000) / spec.fps;
