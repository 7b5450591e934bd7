/** Sessions that were forked from one and wait to be begun. */
import { TurbocastError } from '../protocol/errors.js';
import type { Session } from './session.js';

/** Each is a few MB of state that nobody has asked for yet. */
export const MOST_WAITING_FORKS = 4;
/** How long a fork waits where sessions are not held. */
export const DEFAULT_FORK_WAIT_MS = 15_000;

export class ForkShelf {
	/** Bounded by `MOST_WAITING_FORKS`; those that were begun or let go are forgotten at the next. */
	#waiting: Session[] = [];

	/** Throws `rate_limited` when too many wait. */
	assertRoom(): void {
		this.#waiting = this.#waiting.filter((fork) => fork.isDetached && !fork.isRunning);
		if (this.#waiting.length >= MOST_WAITING_FORKS) {
			throw new TurbocastError('rate_limited', `${MOST_WAITING_FORKS} forks of this session wait to be begun already; begin one, or let it go.`);
		}
	}

	add(fork: Session): void {
		this.#waiting.push(fork);
	}
}
