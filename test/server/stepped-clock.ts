/** A clock that a test moves by hand: sleepers wake in the order of their times. */
import type { Clock } from '../../src/base/time.js';

type Sleeper = { readonly atMs: number; readonly wake: () => void };

export class SteppedClock implements Clock {
	#nowMs = 0;
	#sleepers: Sleeper[] = [];

	readonly nowMs = (): number => this.#nowMs;

	readonly sleep = (delayMs: number, signal?: AbortSignal): Promise<void> =>
		new Promise((resolve, reject) => {
			if (signal?.aborted === true) {
				reject(signal.reason as Error);
				return;
			}
			const onAbort = (): void => {
				this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
				reject(signal?.reason as Error);
			};
			const sleeper: Sleeper = {
				atMs: this.#nowMs + delayMs,
				wake: () => {
					signal?.removeEventListener('abort', onAbort);
					resolve();
				},
			};
			this.#sleepers.push(sleeper);
			signal?.addEventListener('abort', onAbort, { once: true });
		});

	/** Lets everything run that is due up to `toMs`, each at its own time. */
	async advanceTo(toMs: number): Promise<void> {
		for (;;) {
			await settle();
			const next = this.#sleepers.filter((sleeper) => sleeper.atMs <= toMs).sort((a, b) => a.atMs - b.atMs)[0];
			if (next === undefined) {
				this.#nowMs = toMs;
				await settle();
				return;
			}
			this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== next);
			this.#nowMs = Math.max(this.#nowMs, next.atMs);
			next.wake();
		}
	}
}

/** Everything that waits for nothing but its turn has run. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
