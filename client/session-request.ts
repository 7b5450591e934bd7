/** What an application asks of a session, and the messages that say so. */
import { DEFAULT_SHARE_SECONDS, type SHARE_ROLES, type StepCount, type TransitionMode } from '../src/protocol/limits.js';
import type { ClientMessages } from '../src/protocol/messages.js';

/** A text, or several that are mixed by the ratio of their weights. */
export type Prompt = string | readonly { readonly text: string; readonly weight: number }[];

export type RequestOptions = {
	/** Whoever waits for the answer hears its reason; what was sent cannot be taken back. */
	readonly signal?: AbortSignal;
};

export type StartOptions = RequestOptions & {
	readonly model?: string;
	/** `WIDTHxHEIGHT`, one of the model's sizes. */
	readonly size?: string;
	/** Unsigned 32 bits; the same seed and inputs give the same frames. */
	readonly seed?: number;
	/** Denoising steps per chunk: fewer are faster, more are sharper. */
	readonly steps?: StepCount;
	/** Rather fewer steps than waiting for a place. */
	readonly allowFewerSteps?: boolean;
	/** By how much generation may run ahead of display: less makes changes visible sooner, more rides out a slow moment. */
	readonly maxLeadMs?: number;
};

/** When a change is to be heard: from this chunk or this time of the video on. The next chunk when left out. */
export type At = { readonly chunk: number } | { readonly mediaMs: number };

export type PromptOptions = RequestOptions & {
	/** `cut` forgets the past, `recache` (the default) looks at the past with the new prompt, `blend` goes over in `chunks` steps. */
	readonly transition?: TransitionMode;
	/** Of a blend. */
	readonly chunks?: number;
	readonly at?: At;
};

export type UpdateOptions = PromptOptions & {
	readonly prompt?: Prompt;
	readonly seed?: number;
	readonly steps?: StepCount;
	readonly maxLeadMs?: number;
};

export type ForkOptions = RequestOptions & { readonly prompt?: Prompt; readonly seed?: number };

export type ShareOptions = RequestOptions & {
	/** `viewer` (the default) only watches; `guest` may ask to steer. */
	readonly role?: (typeof SHARE_ROLES)[number];
	/** For how long others can join with it; an hour by default. */
	readonly expiresInSeconds?: number;
};

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

const defined = <T extends object>(value: T): Defined<T> =>
	Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as Defined<T>;

/** `undefined` when nothing in it is set. */
const someOf = <T extends object>(value: T): Defined<T> | undefined => {
	const kept = defined(value);
	return Object.keys(kept).length === 0 ? undefined : kept;
};

const promptFields = (prompt: Prompt | undefined) =>
	typeof prompt === 'string' || prompt === undefined ? { prompt } : { prompts: prompt.map(({ text, weight }) => ({ text, weight })) };

const atField = (at: At | undefined) => (at === undefined ? undefined : 'chunk' in at ? { chunk: at.chunk } : { media_ms: at.mediaMs });

export const startMessage = (event_id: string, prompt: Prompt, options: StartOptions): ClientMessages['session.start'] => {
	const { model, size, seed, steps, allowFewerSteps, maxLeadMs } = options;
	return defined({
		type: 'session.start' as const, event_id, ...promptFields(prompt), model, size, seed,
		parameters: someOf({ steps, allow_fewer_steps: allowFewerSteps }), pacing: someOf({ max_lead_ms: maxLeadMs }),
	});
};

export const updateMessage = (event_id: string, options: UpdateOptions): ClientMessages['session.update'] => {
	const { prompt, transition: mode, chunks, seed, steps, maxLeadMs, at } = options;
	return defined({
		type: 'session.update' as const, event_id, ...promptFields(prompt), transition: mode === undefined ? undefined : defined({ mode, chunks }), seed,
		parameters: someOf({ steps }), pacing: someOf({ max_lead_ms: maxLeadMs }), at: atField(at),
	});
};

/** What would start the session again as it is after a change. */
export const startAfter = (start: ClientMessages['session.start'], change: ClientMessages['session.update']): ClientMessages['session.start'] => {
	const { prompt, prompts, ...rest } = start;
	const words = change.prompt !== undefined || change.prompts !== undefined ? { prompt: change.prompt, prompts: change.prompts } : { prompt, prompts };
	return defined({ ...rest, ...words, seed: change.seed ?? rest.seed, parameters: someOf({ ...rest.parameters, ...change.parameters }), pacing: change.pacing ?? rest.pacing });
};

export const actionMessage = (event_id: string, axes: { readonly [control: string]: number }, at: At | undefined): ClientMessages['input.action'] =>
	defined({ type: 'input.action' as const, event_id, axes: { ...axes }, at: atField(at) });

export const resetMessage = (event_id: string, seed: number | undefined): ClientMessages['session.reset'] =>
	defined({ type: 'session.reset' as const, event_id, seed });

export const forkMessage = (event_id: string, { prompt, seed }: ForkOptions): ClientMessages['session.fork'] =>
	defined({ type: 'session.fork' as const, event_id, ...promptFields(prompt), seed });

export const shareMessage = (event_id: string, { role = 'viewer', expiresInSeconds = DEFAULT_SHARE_SECONDS }: ShareOptions): ClientMessages['session.share'] =>
	({ type: 'session.share', event_id, role, expires_in_seconds: expiresInSeconds });
