/** Who may generate: a fixed number of places, and whether a prompt would start at once. */
import type { Engine } from '../engine/engine.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';

/** When to ask again while every place is taken: about a short session. */
const RETRY_WHEN_FULL_MS = 10_000;
/** When to ask again while the engine starts: about half a start. */
const RETRY_WHEN_STARTING_MS = 1000;

/** Given back once, however often it is called. */
export type Place = { readonly release: () => void };

export class Admission {
	readonly #engine: Engine;
	readonly #places: number;
	readonly #taken = new Set<Place>();
	#isDraining = false;

	constructor(engine: Engine, places: number) {
		this.#engine = engine;
		this.#places = places;
	}

	get taken(): number {
		return this.#taken.size;
	}

	get free(): number {
		return this.#places - this.#taken.size;
	}

	/** Why a prompt would not start at once, or `undefined` when it would. */
	obstacle(): TurbocastError | undefined {
		if (this.#isDraining) {
			return new TurbocastError('draining', 'The server is shutting down; try another one, or this one after its restart.');
		}
		const { state } = this.#engine;
		switch (state.kind) {
			case 'ready':
				break;
			case 'starting':
				return new TurbocastError('not_ready', 'The engine is still starting; try again in a moment.', { retryAfterMs: RETRY_WHEN_STARTING_MS });
			case 'restarting':
				return new TurbocastError('not_ready', 'The engine failed and is being restarted; try again in a moment.', { retryAfterMs: RETRY_WHEN_STARTING_MS });
			case 'failed':
				return state.error;
			case 'closed':
				return new TurbocastError('draining', 'The engine is closed because the server is shutting down.');
			default:
				return assertNever(state);
		}
		if (this.free <= 0) {
			const places = this.#places === 1 ? 'The only place is' : `All ${this.#places} places are`;
			return new TurbocastError('capacity_exhausted', `${places} taken; try again when a session has ended.`, { retryAfterMs: RETRY_WHEN_FULL_MS });
		}
		return undefined;
	}

	/** Takes a place until it is released. Throws the obstacle. */
	claim(): Place {
		const obstacle = this.obstacle();
		if (obstacle !== undefined) {
			throw obstacle;
		}
		const place: Place = { release: () => void this.#taken.delete(place) };
		this.#taken.add(place);
		return place;
	}

	/** From now on nobody is let in. */
	drain(): void {
		this.#isDraining = true;
	}
}
