/** A denoiser out of a golden folder, ready to run: what the kinds around a DiT share. */
import type { Backend, Feeds, Tensor } from '../engine/backend.js';
import { denoiserArithmetic, stateType } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import { stateFeed } from '../engine/resident-kv.js';
import { ditGraph, type DitMode } from '../model/dit.js';
import { checkDitTensors } from '../model/dit-tensors.js';
import { ropeTables } from '../model/rope.js';
import { type DitDimensions, DIT_FIELDS } from '../model/spec.js';
import { keptBlocks, type SparseShape } from '../model/sparse-linear-attention.js';
import { textKeysGraph } from '../model/text-keys.js';
import { timeSinusoids } from '../model/time-embedding.js';
import type { Weights } from '../model/weights.js';
import { boolean, integer, number, object, optional, withDefault } from '../protocol/schema.js';

const block = integer({ min: 1, max: 65_536 });

/** Dimensions of a DiT as a golden folder has them. */
export const DIT_CONFIG = {
	...DIT_FIELDS,
	qk_norm: withDefault(boolean(), true),
	cross_attn_norm: withDefault(boolean(), true),
} as const;

export const TURBO_DIT_CONFIG = object({ ...DIT_CONFIG, sla: object({ topk: number({ min: 0, max: 1 }), block_q: block, block_k: block }) });
export const WAN_DIT_CONFIG = object({ ...DIT_CONFIG, sla: optional(object({})) });

export const sparseShape = (sla: { readonly topk: number; readonly block_q: number; readonly block_k: number }): SparseShape =>
	({ ratio: sla.topk, blockQueries: sla.block_q, blockKeys: sla.block_k });

/** Latent frames, height and width. */
export type LatentSize = { readonly frames: number; readonly height: number; readonly width: number };

export type ForwardInputs = {
	/** [C, F, h, w] */
	readonly latent: Float32Array;
	/** One, or one for each latent frame of a chunk. */
	readonly timesteps: readonly number[];
	/** Position of the first latent frame. */
	readonly firstPosition: number;
	/** Keys and values of the past by input name; only of chunks. */
	readonly past?: Feeds;
};

export type DitForward = {
	readonly tokensPerLatent: number;
	/** Outputs of the graph by name. */
	readonly run: (inputs: ForwardInputs) => Promise<{ [name: string]: Tensor }>;
	readonly close: () => Promise<void>;
};

export type DitForwardOptions = {
	readonly spec: DitDimensions;
	readonly weights: Weights;
	readonly mode: DitMode;
	readonly profile: EngineProfile;
	readonly size: LatentSize;
	/** [text_len, text_dim] */
	readonly context: Float32Array;
	readonly backend: Backend;
};

const tensor = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });

/** Computes keys and values of the text and loads the denoiser; the caller closes it. Throws `model_invalid`. */
export const loadDitForward = async ({ spec, weights, mode, profile, size, context, backend }: DitForwardOptions): Promise<DitForward> => {
	checkDitTensors(weights, spec, mode.kind === 'clip' && mode.sparse !== undefined);
	const { frames, height, width } = size;
	const graph = ditGraph(spec, { weights, ...denoiserArithmetic(profile, backend), mode, frames, height, width });
	const textKeys = await backend.load(textKeysGraph(spec, weights));
	let text: Feeds;
	try {
		const keys = await textKeys.run({ context: tensor([spec.text_len, spec.text_dim], context) });
		text = Object.fromEntries(Object.entries(keys).map(([name, { dims, data }]) => [name, stateFeed(data as Float32Array, dims, stateType(profile))]));
	} finally {
		await textKeys.close();
	}
	const session = await backend.load(graph);
	const [, patchHeight = 1, patchWidth = 1] = spec.patch_size;
	const [rows, columns, headDim] = [height / patchHeight, width / patchWidth, spec.dim / spec.num_heads];
	return {
		tokensPerLatent: rows * columns,
		run: ({ latent, timesteps, firstPosition, past = {} }) => {
			const { cos, sin } = ropeTables(headDim, spec.rope_theta, { firstPosition, frames, rows, columns });
			const tableDims = [frames * rows * columns, headDim / 2];
			return session.run({
				latent: tensor([spec.in_dim, frames, height, width], latent),
				time: tensor([timesteps.length, spec.freq_dim], timeSinusoids(timesteps, spec.freq_dim)),
				rope_cos: tensor(tableDims, cos), rope_sin: tensor(tableDims, sin), ...text, ...past,
			});
		},
		close: () => session.close(),
	};
};

/** Says once when so few blocks of keys are there that the share to keep rounds to none. */
export const warnOfShortSequence = (shape: SparseShape, tokens: number, name: string, warn: (sentence: string) => void): void => {
	const { blocks, isRaised } = keptBlocks(shape, tokens);
	if (isRaised) {
		warn(`${name}: ${shape.ratio} of ${blocks} key blocks is less than one; one is kept.`);
	}
};
