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

/** One bucket for each of many: for each address, say. */
export class RateLimits {
	readonly #perInterval: number;
	readonly #intervalMs: number;
	#limits = new Map<string, RateLimit>();
	/** Of before the last interval: a bucket that was not used for a whole one is full, and as good as none. Keeps the memory bounded by the rate of requests. */
	#before = new Map<string, RateLimit>();
	#sweptAtMs = Number.NEGATIVE_INFINITY;

	constructor(perInterval: number, intervalMs: number) {
		this.#perInterval = perInterval;
		this.#intervalMs = intervalMs;
	}

	/** As `RateLimit.take`. */
	take(key: string, nowMs: number): number {
		if (nowMs - this.#sweptAtMs >= this.#intervalMs) {
			this.#before = this.#limits;
			this.#limits = new Map();
			this.#sweptAtMs = nowMs;
		}
		const limit = this.#limits.get(key) ?? this.#before.get(key) ?? new RateLimit(this.#perInterval, this.#intervalMs, nowMs);
		this.#limits.set(key, limit);
		return limit.take(nowMs);
	}
}
