/**
 * A model that is joined from imported networks (docs/model-format.md): its `model.json`, format 2, names them and says how they are
 * sampled; their dimensions and files come from the `component.json` of their folders.
 */
import { dirname, join, relative } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_PROMPT_LENGTH } from '../protocol/limits.js';
import { integer, list, literal, number, object, oneOf, optional, record, string, withDefault, type Infer } from '../protocol/schema.js';
import { type ComponentFolder, readComponentFolder } from './component-folder.js';
import { MAX_RCM_STEPS, rcmTimes, rcmTimestep } from './rcm-times.js';
import { type DitDimensions, DIT_FIELDS, type FileEntry, type ImportedVaeSpec, type ModelSpec, type TextSpec } from './spec.js';
import { parseTaehvSpec, taehvFramesPerLatent } from './taehv.js';
import { framesPerLatent, parseWanVaeSpec, spatialStride } from './wan-vae-spec.js';

const dimension = integer({ min: 1, max: 1_000_000 });
const name = string({ min: 1, max: 128, pattern: /^[\w.-]+$/u, says: 'must be letters, digits, dots, dashes and underscores' });
/** `FOLDER/NETWORK`, a folder beside the model's; `./NETWORK` is in the model's own. */
const reference = string({ min: 1, max: 256, pattern: /^(?:\.|\w[\w.-]*)\/(?:dit|text|vae|taehv|tokenizer)$/u, says: 'must be FOLDER/dit, FOLDER/text, FOLDER/tokenizer, FOLDER/vae or FOLDER/taehv' });

export const JOINED_MODEL = object({
	format: literal(2),
	name, title: string({ max: 1024 }), license: string({ max: 1024 }),
	components: object({
		/** `FOLDER/dit`; of a folder with two experts, both. */
		denoiser: reference, text: reference, tokenizer: reference,
		/** `FOLDER/vae` or `FOLDER/taehv`. */
		decoder: reference,
		/** The Wan VAE whose encoder reads pictures; only of models that begin with one. */
		encoder: optional(reference),
	}),
	fps: number({ min: 1, max: 240 }), width: dimension, height: dimension,
	sizes: list(list(dimension, { min: 2, max: 2 }), { min: 1, max: 64 }),
	/** Whole clips: the usual length is `latents`. Exactly one of `clip` and `stream` is there. */
	clip: optional(object({
		latents: dimension,
		sigma_max: number({ min: 1e-6, max: 1e9 }),
		boundary: optional(number({ min: 0, max: 1 })),
		/** Sparse-linear attention; left out for dense. */
		attention: optional(object({ ratio: number({ min: 1e-6, max: 1 }), block_queries: dimension, block_keys: dimension })),
	})),
	stream: optional(object({
		latents_per_chunk: dimension, window_latents: dimension, sink_latents: integer({ min: 0, max: 1024 }), context_timestep: number({ min: 0, max: 1000 }),
		/** Timesteps (1000 * sigma), descending, by number of steps. */
		schedules: record(list(number({ min: 0, max: 1000 }), { min: 1, max: 64 }), { max: 16 }),
	})),
	default_steps: integer({ min: 1, max: 64 }),
	/** Between two steps: fresh noise, or along the flow. */
	sampler: withDefault(oneOf(['renoise', 'euler']), 'renoise'),
	examples: withDefault(list(string({ min: 1, max: MAX_PROMPT_LENGTH }), { max: 64 }), []),
});

export type JoinedModel = Infer<typeof JOINED_MODEL>;

const TEXT_FIELDS = object({
	vocab_size: dimension, dim: dimension, dim_attn: dimension, dim_ffn: dimension, num_heads: dimension, num_layers: dimension, num_buckets: dimension,
	max_dist: withDefault(dimension, 128), eps: withDefault(number({ min: 0, max: 1 }), 1e-6),
});
const DIT_DIMENSIONS = object({ ...DIT_FIELDS, attention: oneOf(['dense', 'sla']) });

type Written = ComponentFolder['components'][number];
/** A folder that model.json names, and what is meant of it. */
type Opened = { readonly folder: ComponentFolder; readonly component: string; readonly parts: readonly Written[]; readonly entryOf: (file: FileEntry) => FileEntry };

const refuse = (sentence: string): never => {
	throw new TurbocastError('model_invalid', `model.json: ${sentence}.`);
};

/** Dimensions as `component.json` has them. Throws `model_invalid` naming the network. */
const dimensionsOf = <T>(parse: (value: unknown) => T, of: Written): T => {
	try {
		return parse(of.dimensions);
	} catch (error) {
		throw new TurbocastError('model_invalid', `component.json, ${of.file}: ${TurbocastError.from(error).message}`, { cause: error });
	}
};

const openReference = async (modelPath: string, ref: string): Promise<Opened> => {
	const [folderName = '', component = ''] = ref.split('/');
	const path = folderName === '.' ? modelPath : join(dirname(modelPath), folderName);
	const folder = await readComponentFolder(path);
	if (folder === undefined) {
		return refuse(`${ref}: there are no imported networks in ${path}; import them under that name, or join the model anew`);
	}
	const toFile = (file: string): string => join(relative(modelPath, path), file);
	return { folder, component, parts: folder.components.filter((part) => part.component === component), entryOf: ({ file, bytes, sha256 }) => ({ file: toFile(file), bytes, sha256 }) };
};

const only = ({ parts, component, folder }: Opened): Written =>
	parts[0] ?? refuse(`the folder ${folder.name} holds no network of the kind "${component}"`);

const decoderSpec = (part: Written): ImportedVaeSpec => {
	if (part.component === 'taehv') {
		const network = dimensionsOf(parseTaehvSpec, part);
		return { kind: 'taehv', network, latent_channels: network.latent_channels, spatial_stride: 2 ** (network.widths.length - 1), frames_per_latent: taehvFramesPerLatent(network) };
	}
	const network = dimensionsOf(parseWanVaeSpec, part);
	return { kind: 'wan-vae', network, latent_channels: network.z_dim, spatial_stride: spatialStride(network), frames_per_latent: framesPerLatent(network) };
};

const clipSchedules = (sigmaMax: number): ModelSpec['schedules'] =>
	Object.fromEntries(Array.from({ length: MAX_RCM_STEPS }, (_, index) => [String(index + 1), rcmTimes(sigmaMax, index + 1).slice(0, -1).map(rcmTimestep)]));

/** What the parts say about each other. */
const checkTogether = (model: JoinedModel, spec: ModelSpec, attention: 'dense' | 'sla', dits: number): void => {
	const { dit, vae, text } = spec;
	const isSparse = model.clip?.attention !== undefined;
	if (isSparse !== (attention === 'sla')) {
		refuse(isSparse
			? 'clip.attention asks for sparse-linear attention, which the denoiser has no weights for (proj_l); leave clip.attention out'
			: 'the denoiser was made for sparse-linear attention (it has proj_l) and gives a bad picture without; set clip.attention');
	}
	if (text.dim !== dit.text_dim) {
		refuse(`the text encoder gives ${text.dim} numbers a token, but the denoiser reads ${dit.text_dim}; they belong to different models`);
	}
	if (vae.latent_channels !== dit.out_dim) {
		refuse(`the decoder reads latents of ${vae.latent_channels} channels, but the denoiser makes ${dit.out_dim}; they belong to different models`);
	}
	// Image-to-video: the noisy latent, a mask for each frame of a latent, and the latent of the picture.
	const hasImage = dit.in_dim !== dit.out_dim;
	if (hasImage && (dit.in_dim !== 2 * dit.out_dim + vae.frames_per_latent || model.clip === undefined)) {
		refuse(`a denoiser that reads ${dit.in_dim} channels and makes ${dit.out_dim} is none that can be run`);
	}
	if (hasImage !== (model.components.encoder !== undefined)) {
		refuse(hasImage ? 'the denoiser begins with a picture; components.encoder must name the Wan VAE that reads it' : 'components.encoder is only for denoisers that begin with a picture');
	}
	if ((dits === 2) !== (model.clip?.boundary !== undefined)) {
		refuse(dits === 2 ? 'the denoiser is two experts; clip.boundary must say when the second takes over' : 'clip.boundary is only for denoisers of two experts');
	}
	if (spec.stream.window_latents < spec.stream.latents_per_chunk + spec.stream.sink_latents) {
		refuse('stream.window_latents must hold the sink and one chunk');
	}
	if (spec.schedules[String(spec.default_steps)] === undefined) {
		refuse(`there is no schedule for default_steps ${spec.default_steps}`);
	}
	for (const [steps, times] of Object.entries(spec.schedules)) {
		if (times.length !== Number(steps) || times.some((time, index) => index > 0 && time >= (times[index - 1] ?? 0)) || (times.at(-1) ?? 0) <= 0) {
			refuse(`schedules.${steps} must be ${steps} descending timesteps above 0`);
		}
	}
	const multiple = spec.size_multiple ?? 1;
	if ([[spec.width, spec.height], ...spec.sizes].flat().some((side) => side % multiple !== 0)) {
		refuse(`width, height and sizes must be multiples of ${multiple}`);
	}
};

/** Parses a format 2 `model.json` of the folder `modelPath` and reads what it names. Throws `model_invalid`. */
export const resolveJoinedModel = async (modelPath: string, value: unknown): Promise<ModelSpec> => {
	let model: JoinedModel;
	try {
		model = JOINED_MODEL.parse(value);
	} catch (error) {
		throw new TurbocastError('model_invalid', `model.json: ${TurbocastError.from(error).message}`, { cause: error });
	}
	const { components, clip, stream } = model;
	if ((clip === undefined) === (stream === undefined)) {
		refuse('exactly one of `clip` and `stream` must be there');
	}
	const opened = await Promise.all([components.denoiser, components.text, components.tokenizer, components.decoder].map((ref) => openReference(modelPath, ref)));
	const [denoiser, textFolder, tokenizerFolder, decoderFolder] = opened as [Opened, Opened, Opened, Opened];
	const encoderFolder = components.encoder === undefined ? undefined : await openReference(modelPath, components.encoder);
	const encoderPart = encoderFolder === undefined ? undefined : only(encoderFolder);
	const high = denoiser.parts.find(({ expert }) => expert === 'high') ?? only(denoiser);
	const low = denoiser.parts.find(({ expert }) => expert === 'low');
	const { attention, ...dimensions } = dimensionsOf((dims) => DIT_DIMENSIONS.parse(dims), high);
	const dit: DitDimensions = dimensions;
	const textPart = only(textFolder);
	const text: TextSpec = { kind: 'umt5', ...dimensionsOf((dims) => TEXT_FIELDS.parse(dims), textPart), text_len: dit.text_len };
	const decoder = only(decoderFolder);
	const vae = decoderSpec(decoder);
	const tokenizer = tokenizerFolder.folder.tokenizer ?? refuse(`the folder ${tokenizerFolder.folder.name} holds no tokenizer; import the folder that has spiece.model or tokenizer.json with it`);
	const latents = clip?.latents ?? 0;
	const spec: ModelSpec = {
		format: 2, name: model.name, title: model.title, license: model.license, fps: model.fps, width: model.width, height: model.height, sizes: model.sizes,
		size_multiple: vae.spatial_stride * Math.max(dit.patch_size[1] ?? 1, dit.patch_size[2] ?? 1),
		text, vae, dit: { ...dit, kind: clip === undefined ? 'wan-causal' : 'wan-clip' },
		stream: stream ?? { latents_per_chunk: latents, window_latents: latents, sink_latents: 0, context_timestep: 0 },
		...(clip === undefined ? {} : { clip: {
			sigma_max: clip.sigma_max, boundary: clip.boundary,
			attention: clip.attention === undefined ? undefined : { ratio: clip.attention.ratio, blockQueries: clip.attention.block_queries, blockKeys: clip.attention.block_keys },
		} }),
		schedules: stream?.schedules ?? clipSchedules(clip?.sigma_max ?? 0),
		default_steps: model.default_steps, sampler: model.sampler, controls: [], examples: model.examples,
		files: {
			text: textFolder.entryOf(textPart), dit: denoiser.entryOf(high), vae: decoderFolder.entryOf(decoder), tokenizer: tokenizerFolder.entryOf(tokenizer),
			...(low === undefined ? {} : { dit_low: denoiser.entryOf(low) }),
			...(encoderPart === undefined || encoderFolder === undefined ? {} : { encoder: encoderFolder.entryOf(encoderPart) }),
		},
		...(encoderPart === undefined ? {} : { encoder: dimensionsOf(parseWanVaeSpec, encoderPart) }),
	};
	checkTogether(model, spec, attention, denoiser.parts.length);
	return spec;
};
