/**
 * How much faster frames are shown that are queued before a change which waits: all of them are shown, sooner. Without it a change
 * would be seen only after everything that was made before it had run at its own pace. Giving up the chunk at hand as well, where none of its frames has
 * come, would save 50 to 60 ms more and make the picture halt at one change in eight (simulated): not done. Pure, as the `Pacer` that it belongs to.
 */

/** Faster than that, motion looks wrong rather than quick. */
const MOST_HASTE = 2;
/** Media time that haste may save: about what lies before a change. No more while changes come without end, or the world would run fast for good. */
const MOST_SAVED_MS = 400;
/** Of the time that passes, what haste may use again. */
const SAVING_SHARE = 0.2;

type HasteState =
	| { readonly kind: 'none' }
	/** For the start of its chunk. */
	| { readonly kind: 'waiting' }
	/** With the chunk that is being generated. */
	| { readonly kind: 'coming' }
	/** Queued, behind this many frames. */
	| { readonly kind: 'queued'; readonly behind: number };

export class Haste {
	#state: HasteState = { kind: 'none' };
	#savingsMs = MOST_SAVED_MS;

	/** Where the last change is. */
	get kind(): HasteState['kind'] {
		return this.#state.kind;
	}

	changeWaits(): void {
		this.#state = { kind: 'waiting' };
	}

	/** The chunk that is begun carries what waits; true when there is something. */
	chunkStarted(): boolean {
		if (this.#state.kind === 'waiting') {
			this.#state = { kind: 'coming' };
		}
		return this.#state.kind === 'coming';
	}

	/** The chunk that was begun came to nothing; the next one will carry it. */
	chunkFailed(): void {
		if (this.#state.kind === 'coming') {
			this.#state = { kind: 'waiting' };
		}
	}

	/** The first frame that carries a change is queued. A change that came after it still waits. */
	changeQueued(behind: number): void {
		if (this.#state.kind === 'coming') {
			this.#state = behind === 0 ? { kind: 'none' } : { kind: 'queued', behind };
		}
	}

	frameTaken(passedMs: number): void {
		if (this.#state.kind === 'queued') {
			this.#state = this.#state.behind > 1 ? { kind: 'queued', behind: this.#state.behind - 1 } : { kind: 'none' };
		}
		this.#savingsMs = Math.min(MOST_SAVED_MS, this.#savingsMs + SAVING_SHARE * passedMs);
	}

	/** Shortest time that a frame may be shown for now; it is to be told with `saved` what was made of it. */
	leastIntervalMs(intervalMs: number): number {
		return this.#state.kind === 'none' ? intervalMs : Math.max(intervalMs / MOST_HASTE, intervalMs - Math.max(0, this.#savingsMs));
	}

	saved(ms: number): void {
		this.#savingsMs -= ms;
	}

	/** Media time that is shown in this time, in haste. */
	shownInMs(ms: number): number {
		return Math.min(MOST_HASTE * ms, ms + Math.max(0, this.#savingsMs));
	}
}
