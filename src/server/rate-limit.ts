/** A token bucket (RFC 2697 has the idea): `perInterval` events in an interval, all of them at once if need be. */
export class RateLimit {
	readonly #perInterval: number;
	readonly #intervalMs: number;
	#tokens: number;
	#filledAtMs: number;

	constructor(perInterval: number, intervalMs: number, nowMs: number) {
		this.#perInterval = perInterval;
		this.#intervalMs = intervalMs;
		this.#tokens = perInterval;
		this.#filledAtMs = nowMs;
	}

	/** Counts one event. 0 when it is within the limit, otherwise how many milliseconds until one more would be. */
	take(nowMs: number): number {
		const grown = ((nowMs - this.#filledAtMs) * this.#perInterval) / this.#intervalMs;
		this.#tokens = Math.min(this.#perInterval, this.#tokens + grown);
		this.#filledAtMs = nowMs;
		if (this.#tokens >= 1) {
			this.#tokens -= 1;
			return 0;
		}
		return Math.ceil(((1 - this.#tokens) * this.#intervalMs) / this.#perInterval);
	}
}
