/** Fields that several messages share. */
import {
	MAX_AT_CHUNK, MAX_AT_MEDIA_MS, MAX_BLEND_CHUNKS, MAX_EVENT_ID_LENGTH, MAX_LEAD_MS, MAX_PROMPT_LENGTH, MAX_PROMPT_WEIGHT, MAX_PROMPTS, MAX_SEED, MIN_LEAD_MS, MIN_PROMPT_WEIGHT, STEP_COUNTS, TRANSITION_MODES,
} from './limits.js';
import { integer, list, nullable, number, object, oneOf, optional, string, type Infer, type Schema } from './schema.js';

export const eventId = optional(string({ min: 1, max: MAX_EVENT_ID_LENGTH }));
export const id = string({ min: 1, max: 128 });
export const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
/** Milliseconds, fractions allowed. */
export const ms = number({ min: 0, max: 1e12 });
export const seed = integer({ min: 0, max: MAX_SEED });

/** A prompt: some text that is not only white space. */
export const promptText: Schema<string> = string({
	min: 1, max: MAX_PROMPT_LENGTH, pattern: /\S/u, says: 'must not be empty: say what should be seen', code: 'invalid_prompt',
});

/** Texts that are mixed by their weights; only the ratios of the weights count. */
export const prompts = list(object({ text: promptText, weight: number({ min: MIN_PROMPT_WEIGHT, max: MAX_PROMPT_WEIGHT }) }), { min: 1, max: MAX_PROMPTS });

export const parameters = object({
	/** Denoising steps per chunk: fewer are faster, more are sharper. */
	steps: optional(oneOf(STEP_COUNTS)),
});

/** How the picture gets from the prompt before to the new one. */
export const transition = object({
	mode: oneOf(TRANSITION_MODES),
	/** Of a blend: the new prompt is alone from the last of these on. */
	chunks: optional(integer({ min: 1, max: MAX_BLEND_CHUNKS })),
});
export type Transition = Infer<typeof transition>;

/** When a change is to be heard; one of the two. What is past is the next chunk. */
export const at = object({ chunk: optional(integer({ min: 0, max: MAX_AT_CHUNK })), media_ms: optional(number({ min: 0, max: MAX_AT_MEDIA_MS })) });
export type At = Infer<typeof at>;

export const pacing = object({ max_lead_ms: optional(integer({ min: MIN_LEAD_MS, max: MAX_LEAD_MS })) });

export const candidate = object({
	candidate: string({ max: 4096 }),
	sdp_mid: optional(nullable(string({ max: 64 }))),
	sdp_mline_index: optional(nullable(integer({ min: 0, max: 64 }))),
	username_fragment: optional(nullable(string({ max: 256 }))),
});
