/** When to connect again: what was lost in, delay or nothing out. */
import type { TurbocastError } from '../src/protocol/errors.js';

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 8000;
/** Longer than a server holds a session by default. */
const PATIENCE_MS = 120_000;

export type LostConnection = {
	/** Attempts since the connection was last up, from 0. */
	readonly attempt: number;
	/** Milliseconds since then. */
	readonly sinceMs: number;
	readonly error: TurbocastError;
	/** False until the first connection: a wrong address, or a server that is not there. */
	readonly wasConnected: boolean;
};

/** Milliseconds to wait before the next attempt, or `undefined` to give up. */
export type ReconnectPolicy = (lost: LostConnection) => number | undefined;

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

/** What `connect` does by default: goes after a connection that was lost for two minutes, and not at all after one that never was. */
export const defaultReconnect: ReconnectPolicy = ({ attempt, sinceMs, error, wasConnected }) =>
	wasConnected && sinceMs < PATIENCE_MS ? reconnectDelayMs(attempt, error) : undefined;
