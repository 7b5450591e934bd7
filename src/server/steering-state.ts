/** What a session is steered by at present, and what a change makes of it. Pure data and pure functions. */
import type { ChunkInputs, PastMode, WeightedPrompt } from '../engine/protocol.js';
import { assertNever } from '../protocol/assert-never.js';
import { DEFAULT_BLEND_CHUNKS } from '../protocol/limits.js';
import type { Transition } from '../protocol/messages.js';

/** Texts, each once, whose weights add up to 1. */
export type Mixture = readonly WeightedPrompt[];

export type SteeringState = {
	/** In use. */
	readonly prompts: Mixture;
	/** A transition under way. */
	readonly blend?: { readonly from: Mixture; readonly to: Mixture; readonly done: number; readonly chunks: number } | undefined;
	readonly steps: number;
	/** Those that are not at their default. */
	readonly controls: { readonly [name: string]: number };
	readonly seed: number;
};

/** A part of the inputs; controls are merged by name. */
export type ChangedInputs = {
	readonly prompts?: Mixture | undefined;
	readonly transition?: Transition | undefined;
	readonly steps?: number | undefined;
	readonly controls?: { readonly [name: string]: number } | undefined;
	readonly seed?: number | undefined;
	/** Forgets the past, and ends a transition under way. */
	readonly isReset?: true;
};

/** Texts in a mixture: what two transitions in a row can bring together. The lightest of more are left out. */
const MOST_TEXTS = 16;
/** Below this nothing of a text can be seen. */
const LEAST_WEIGHT = 1e-4;

export const mixture = (prompts: readonly WeightedPrompt[]): Mixture => {
	const weights = new Map<string, number>();
	for (const { text, weight } of prompts) {
		weights.set(text, (weights.get(text) ?? 0) + weight);
	}
	const all = [...weights].map(([text, weight]) => ({ text, weight }));
	// In the order in which they were given, which is told in session.ready.
	const heaviest = new Set([...all].sort((a, b) => b.weight - a.weight).slice(0, MOST_TEXTS));
	const kept = all.filter((entry) => heaviest.has(entry));
	const total = kept.reduce((sum, { weight }) => sum + weight, 0);
	const shares = kept.map(({ text, weight }) => ({ text, weight: weight / total })).filter(({ weight }) => weight >= LEAST_WEIGHT);
	return shares.length === 1 ? shares.map(({ text }) => ({ text, weight: 1 })) : shares;
};

const between = (from: Mixture, to: Mixture, share: number): Mixture =>
	mixture([...from.map(({ text, weight }) => ({ text, weight: weight * (1 - share) })), ...to.map(({ text, weight }) => ({ text, weight: weight * share }))]);

const isSame = (a: Mixture, b: Mixture): boolean =>
	a.length === b.length && a.every(({ text, weight }) => b.some((other) => other.text === text && other.weight === weight));

export const stronger = (a: PastMode, b: PastMode): PastMode => (a === 'forget' || b === 'forget' ? 'forget' : a === 'recache' || b === 'recache' ? 'recache' : 'keep');

const changePrompts = (state: SteeringState, to: Mixture, { mode, chunks = DEFAULT_BLEND_CHUNKS }: Transition): { state: SteeringState; past: PastMode } => {
	switch (mode) {
		case 'cut':
			return { state: { ...state, prompts: to, blend: undefined }, past: 'forget' };
		case 'recache':
			return { state: { ...state, prompts: to, blend: undefined }, past: isSame(state.prompts, to) ? 'keep' : 'recache' };
		case 'blend':
			return { state: { ...state, blend: { from: state.prompts, to, done: 0, chunks } }, past: 'keep' };
		default:
			return assertNever(mode);
	}
};

/** The state after a change, and what becomes of the past. `defaults` are those of the controls: one put back to it is as if never given. */
export const applyChange = (before: SteeringState, change: ChangedInputs, defaults: { readonly [name: string]: number }): { state: SteeringState; past: PastMode } => {
	const controls = Object.fromEntries(Object.entries({ ...before.controls, ...change.controls }).filter(([name, value]) => value !== defaults[name]));
	let state: SteeringState = { ...before, steps: change.steps ?? before.steps, seed: change.seed ?? before.seed, controls };
	let past: PastMode = 'keep';
	if (change.isReset === true) {
		// Where the transition leads, and never back to what was there before it.
		state = { ...state, prompts: state.blend?.to ?? state.prompts, blend: undefined };
		past = 'forget';
	}
	if (change.prompts !== undefined) {
		const changed = changePrompts(state, change.prompts, change.transition ?? { mode: 'recache' });
		state = changed.state;
		past = stronger(past, changed.past);
	}
	return { state, past };
};

/** A chunk begins: a transition goes one step on. The first step has moved already, the last is there. */
export const advanceBlend = (state: SteeringState): { state: SteeringState; past: PastMode } => {
	const { blend } = state;
	if (blend === undefined) {
		return { state, past: 'keep' };
	}
	const done = blend.done + 1;
	const isOver = done >= blend.chunks;
	const prompts = isOver ? blend.to : between(blend.from, blend.to, done / blend.chunks);
	return { state: { ...state, prompts, blend: isOver ? undefined : { ...blend, done } }, past: isSame(prompts, state.prompts) ? 'keep' : 'recache' };
};

export const inputsOf = ({ prompts, steps, controls, seed }: SteeringState, past: PastMode): ChunkInputs => {
	const [first] = prompts;
	return { prompt: prompts.length === 1 && first !== undefined ? first.text : prompts, steps, controls, seed, past };
};
