/** Time until something ends by itself, with a warning in time. */
import type { Clock } from '../base/time.js';

/** Seconds left at which a warning is given. */
export const WARNINGS_S = [60, 30, 10] as const;

export type CountdownEvents = {
	/** `undefined` takes the warnings back: the countdown was stopped after one. */
	readonly onWarning?: (secondsLeft: number | undefined) => void;
	readonly onElapsed: () => void;
};

export class Countdown {
	readonly #clock: Clock;
	readonly #events: CountdownEvents;
	#stopped = new AbortController();
	#endsAtMs: number | undefined;
	#hasWarned = false;

	constructor(clock: Clock, events: CountdownEvents) {
		this.#clock = clock;
		this.#events = events;
	}

	/** Milliseconds until the end; `undefined` while it does not run. */
	get leftMs(): number | undefined {
		return this.#endsAtMs === undefined ? undefined : Math.max(0, this.#endsAtMs - this.#clock.nowMs());
	}

	/** From now; one that runs begins again. */
	start(delayMs: number): void {
		this.stop();
		this.#endsAtMs = this.#clock.nowMs() + delayMs;
		this.#stopped = new AbortController();
		this.#run(this.#endsAtMs, this.#stopped.signal).then(
			() => {
				this.#endsAtMs = undefined;
				this.#hasWarned = false;
				this.#events.onElapsed();
			},
			() => undefined,
		);
	}

	/** Idempotent. */
	stop(): void {
		this.#stopped.abort(new Error('The countdown was stopped.'));
		this.#endsAtMs = undefined;
		if (this.#hasWarned) {
			this.#hasWarned = false;
			this.#events.onWarning?.(undefined);
		}
	}

	async #run(endsAtMs: number, signal: AbortSignal): Promise<void> {
		for (const seconds of WARNINGS_S) {
			const inMs = endsAtMs - seconds * 1000 - this.#clock.nowMs();
			if (inMs >= 0 && this.#events.onWarning !== undefined) {
				await this.#clock.sleep(inMs, signal);
				this.#hasWarned = true;
				this.#events.onWarning(seconds);
			}
		}
		await this.#clock.sleep(endsAtMs - this.#clock.nowMs(), signal);
	}
}
