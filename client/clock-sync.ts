/** The offset of the server's clock, from the round trips of `ping` and `pong` (the arithmetic of RFC 5905 section 8). */

export type ClockOffset = {
	/** Server clock minus `performance.now()`, ms. */
	readonly offsetMs: number;
	/** The true offset lies within this much of it, however unlike the two ways are: half the shortest round trip. */
	readonly uncertaintyMs: number;
	readonly roundTripMs: number;
};

/** Round trips at first, quickly one after the other, and kept: the shortest of them counts. */
const FIRST_SAMPLES = 4;
const KEPT_SAMPLES = 8;
/** Quartz clocks drift apart by some 50 parts in a million: a quarter of a millisecond in this time. */
const INTERVAL_MS = 5000;

export type ClockSyncEvents = {
	/** Sends `ping`; may throw when there is no connection. */
	readonly sendPing: (sentAtMs: number) => void;
	readonly onSynced: (offset: ClockOffset) => void;
	readonly nowMs: () => number;
};

export class ClockSync {
	readonly #events: ClockSyncEvents;
	#samples: ClockOffset[] = [];
	#timer: ReturnType<typeof setTimeout> | undefined;
	#isRunning = false;

	constructor(events: ClockSyncEvents) {
		this.#events = events;
	}

	/** The best that is known, or `undefined` before the first round trip. */
	get offset(): ClockOffset | undefined {
		return this.#samples.reduce<ClockOffset | undefined>((best, sample) => (best === undefined || sample.uncertaintyMs < best.uncertaintyMs ? sample : best), undefined);
	}

	/** A connection is open. Another server process has another clock: what was known is forgotten. */
	start(): void {
		this.stop();
		this.#samples = [];
		this.#isRunning = true;
		this.ping();
	}

	/** A `pong` came back. */
	received(sentAtMs: number, serverMs: number): void {
		const nowMs = this.#events.nowMs();
		const roundTripMs = nowMs - sentAtMs;
		if (!this.#isRunning || !(roundTripMs >= 0)) {
			return;
		}
		this.#samples = [...this.#samples, { offsetMs: serverMs - (sentAtMs + nowMs) / 2, uncertaintyMs: roundTripMs / 2, roundTripMs }].slice(-KEPT_SAMPLES);
		clearTimeout(this.#timer);
		if (this.#samples.length < FIRST_SAMPLES) {
			this.ping();
		} else {
			this.#rest();
		}
		const { offset } = this;
		if (offset !== undefined) {
			this.#events.onSynced(offset);
		}
	}

	/** Idempotent. */
	stop(): void {
		this.#isRunning = false;
		clearTimeout(this.#timer);
	}

	/** Also outside the plan; it is one more round trip. */
	ping(): void {
		clearTimeout(this.#timer);
		try {
			this.#events.sendPing(this.#events.nowMs());
			this.#rest();
		} catch {
			this.stop();
		}
	}

	/** Until the next ping, whether or not this one is answered. */
	#rest(): void {
		this.#timer = setTimeout(() => this.ping(), INTERVAL_MS);
	}
}
