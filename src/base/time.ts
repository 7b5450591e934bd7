/** Time. Milliseconds everywhere (names end in `Ms`); RTP time is 90 kHz ticks modulo 2^32 (names end in `Rtp90k`). */

/** A monotonic clock. Passed in, so that tests can step it. */
export type Clock = {
	/** Milliseconds since some fixed moment; never goes back. */
	readonly nowMs: () => number;
	/** Resolves after `delayMs`, or rejects with the signal's reason when it aborts first. */
	readonly sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>;
};

export const systemClock: Clock = {
	nowMs: () => performance.now(),
	sleep: (delayMs, signal) =>
		new Promise((resolve, reject) => {
			if (signal?.aborted === true) {
				reject(signal.reason as Error);
				return;
			}
			const onAbort = (): void => {
				clearTimeout(timer);
				reject(signal?.reason as Error);
			};
			const timer = setTimeout(() => {
				signal?.removeEventListener('abort', onAbort);
				resolve();
			}, Math.max(0, delayMs));
			signal?.addEventListener('abort', onAbort, { once: true });
		}),
};

export const RTP_TICKS_PER_MS = 90;

/** `a - b` for 32-bit RTP timestamps, taking the wrap into account (RFC 3550 section 5.1): from -2^31 to 2^31 - 1. */
export const rtpDifference = (a: number, b: number): number => (a - b) | 0;
