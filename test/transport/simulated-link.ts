/** A network made in code, put around one connection of the library: loss, a rate with a queue, delay and outages, the same for the same seed. */
import type { RTCPeerConnection } from 'werift';
import { createRandom } from '../model/random-model.js';

export type LinkConditions = {
	/** Share of packets that vanish, 0 to 1, in both directions. */
	readonly loss?: number;
	/** Each way. */
	readonly delayMs?: number;
	/** Of the way to the viewer. */
	readonly rateBps?: number;
	/** What waits for that rate at most; more is thrown away. */
	readonly queueMs?: number;
	/** Nothing passes, in both directions. */
	readonly isDown?: boolean;
};

type Counts = { sent: number; lost: number; overflowed: number; bytes: number };

/** Bytes of IPv4 and UDP around each packet. */
const NETWORK_HEADER_BYTES = 28;

export class SimulatedLink {
	/** Towards the viewer. */
	readonly counts: Counts = { sent: 0, lost: 0, overflowed: 0, bytes: 0 };
	readonly #random: () => number;
	#conditions: LinkConditions;
	/** When the last packet in the queue will have left it. */
	#freeAtMs = 0;

	constructor(seed: number, conditions: LinkConditions = {}) {
		this.#random = createRandom(seed);
		this.#conditions = conditions;
	}

	/** From the next packet on. */
	become(conditions: LinkConditions): void {
		this.#conditions = conditions;
	}

	/** Takes the place of the connection's ways in and out. */
	attach(connection: RTCPeerConnection): void {
		for (const { connection: ice } of connection.iceTransports) {
			const send = ice.send.bind(ice);
			ice.send = (data: Buffer): Promise<void> => {
				this.#pass(data.length, true, () => void send(data).catch(() => undefined));
				return Promise.resolve();
			};
			const execute = ice.onData.execute.bind(ice.onData);
			ice.onData.execute = (data: Buffer): void => this.#pass(data.length, false, () => execute(data));
		}
	}

	#pass(bytes: number, isOut: boolean, deliver: () => void): void {
		const { loss = 0, delayMs = 0, rateBps, queueMs = 400, isDown = false } = this.#conditions;
		const nowMs = performance.now();
		if (isOut) {
			this.counts.sent += 1;
		}
		if (isDown || (loss > 0 && this.#random() < loss)) {
			this.counts.lost += isOut ? 1 : 0;
			return;
		}
		let atMs = nowMs + delayMs;
		if (isOut && rateBps !== undefined) {
			const waitMs = Math.max(0, this.#freeAtMs - nowMs);
			if (waitMs > queueMs) {
				this.counts.overflowed += 1;
				return;
			}
			this.#freeAtMs = nowMs + waitMs + ((bytes + NETWORK_HEADER_BYTES) * 8000) / rateBps;
			atMs = this.#freeAtMs + delayMs;
		}
		if (isOut) {
			this.counts.bytes += bytes;
		}
		if (atMs <= nowMs) {
			deliver();
		} else {
			setTimeout(deliver, atMs - nowMs);
		}
	}
}
