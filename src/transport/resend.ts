/**
 * Sends lost packets again, in place of the library's own way of doing it, which keeps too little (128 packets), has no limit (a
 * congested link then carries hardly anything but repeats) and repeats under the old transport-wide number (losses
 * become invisible to whoever reads the feedback).
 */
import type { Clock } from '../base/time.js';

/** A packet as it was handed to the library, without the extensions that are new in every sending. */
export type KeptPacket = { readonly sequence: number; readonly bytes: number };

/** What is kept: five seconds at 2 Mbps. A power of two, as sequence numbers wrap at one. */
const HISTORY_PACKETS = 1024;
/** A frame this late is of no use to a viewer; a key frame gets further. */
const MOST_AGE_MS = 1000;
/** A receiver that asks again within this has not had the time to see the first repeat. Until there is a measurement: a usual round trip. */
const DEFAULT_ROUND_TRIP_MS = 50;
const LEAST_REPEAT_INTERVAL_MS = 20;
/** Repeats may take this share of what is sent, plus a burst of a quarter of a second at 1 Mbps. */
const BUDGET_SHARE = 0.25;
const BUDGET_BURST_BYTES = 32_000;
/**
 * From this loss on a repeat is sent twice: one that is lost itself is asked for again only after the receiver's own interval (Chromium: 100 ms), which is
 * what one sees. Not with the last half of the budget.
 */
const TWICE_FROM_LOSS = 0.03;

type Entry<P> = { readonly packet: P; readonly sentAtMs: number; resentAtMs: number };

export type ResendOptions<P> = {
	readonly clock: Clock;
	readonly send: (packet: P) => void;
	/** A packet is gone for good: only a key frame helps. */
	readonly onLost: () => void;
	/** Of the connection, when known. */
	readonly roundTripMs: () => number | undefined;
	/** Share of packets that are lost, 0 to 1. */
	readonly loss: () => number;
};

export class Resender<P extends KeptPacket> {
	readonly #options: ResendOptions<P>;
	readonly #history: (Entry<P> | undefined)[] = new Array<Entry<P> | undefined>(HISTORY_PACKETS).fill(undefined);
	#budgetBytes = BUDGET_BURST_BYTES;
	resent = 0;

	constructor(options: ResendOptions<P>) {
		this.#options = options;
	}

	/** A packet has been sent for the first time. */
	remember(packet: P): void {
		this.#budgetBytes = Math.min(BUDGET_BURST_BYTES, this.#budgetBytes + packet.bytes * BUDGET_SHARE);
		this.#history[packet.sequence % HISTORY_PACKETS] = { packet, sentAtMs: this.#options.clock.nowMs(), resentAtMs: Number.NEGATIVE_INFINITY };
	}

	/** The receiver lacks these packets (16-bit numbers). */
	request(sequences: readonly number[]): void {
		const { clock, roundTripMs, loss, send, onLost } = this.#options;
		const nowMs = clock.nowMs();
		const intervalMs = Math.max(LEAST_REPEAT_INTERVAL_MS, roundTripMs() ?? DEFAULT_ROUND_TRIP_MS);
		let isLost = false;
		for (const sequence of sequences) {
			const entry = this.#history[sequence % HISTORY_PACKETS];
			if (entry === undefined || entry.packet.sequence !== sequence || nowMs - entry.sentAtMs > MOST_AGE_MS || entry.packet.bytes > this.#budgetBytes) {
				isLost = true;
			} else if (nowMs - entry.resentAtMs >= intervalMs) {
				entry.resentAtMs = nowMs;
				this.#budgetBytes -= entry.packet.bytes;
				this.resent += 1;
				send(entry.packet);
				if (loss() > TWICE_FROM_LOSS && this.#budgetBytes > BUDGET_BURST_BYTES / 2) {
					this.#budgetBytes -= entry.packet.bytes;
					this.resent += 1;
					send(entry.packet);
				}
			}
		}
		if (isLost) {
			onLost();
		}
	}
}
