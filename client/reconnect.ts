/** When to connect again: attempt and error in, delay or nothing out. */
import type { TurbocastError } from '../src/protocol/errors.js';

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 8000;

/**
 * Milliseconds to wait before attempt number `attempt` (from 0), or `undefined` when the error will not go away by itself.
 * Doubles up to eight seconds, half of it at random, so that the clients of a restarted server do not come all at once.
 */
export const reconnectDelayMs = (attempt: number, error: TurbocastError | undefined, random: () => number = Math.random): number | undefined => {
	if (error !== undefined && !error.entry.retryable) {
		return undefined;
	}
	const delayMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
	return Math.max(error?.retryAfterMs ?? 0, delayMs * (0.5 + random() / 2));
};
