/**
 * Sends lost packets again, in place of the library's own way of doing it, which keeps too little (128 packets), has no limit (a
 * congested link then carries hardly anything but repeats) and repeats under the old transport-wide number (losses
 * become invisible to whoever reads the feedback).
 *
 * That a packet is lost is told by the receiver, who asks for it (RFC 4585 section 6.2.1), and by transport-wide feedback, in which it is missing: a
 * request that is lost itself comes again only after the receiver's own interval (Chromium: 100 ms and more), and a repeat that is lost is not asked for
 * before, which is what one sees. What both miss is the end of a picture, after which nothing comes for a while: where packets are lost it is sent twice.
 */
import type { Clock } from '../base/time.js';
import type { PacketReport } from './rtcp-repair.js';

/** A packet as it was handed to the library, without the extensions that are new in every sending. */
export type KeptPacket = { readonly sequence: number; readonly bytes: number };

/** What is kept: five seconds at 2 Mbps. A power of two, as sequence numbers wrap at one. */
const HISTORY_PACKETS = 1024;
/** Of sendings, repeats among them: what 20 Mbps send in a second. A power of two for the same reason. */
const MOST_SENDINGS = 2048;
/** A frame this late is of no use to a viewer; a key frame gets further. */
const MOST_AGE_MS = 1000;
/** A receiver that asks again within this has not had the time to see the first repeat. Until there is a measurement: a usual round trip. */
const DEFAULT_ROUND_TRIP_MS = 50;
const LEAST_REPEAT_INTERVAL_MS = 20;
/**
 * Repeats may take this share of what is sent, plus a burst of a quarter of a second at 1 Mbps. The greater where nothing says that the way is full: what it
 * loses then is its nature, and ten percent twice repeated and the ends of pictures take three tenths.
 */
const BUDGET_SHARE = { full: 0.25, free: 0.5 } as const;
const BUDGET_BURST_BYTES = 32_000;
/** From this loss on ends of pictures are sent twice, and repeats so often that one of a thousand is lost in all its copies. Not with the last half of the budget. */
const LOSSY = 0.02;
const LOST_REPEATS = 0.001;
const MOST_COPIES = 3;
/** A packet is lost when one sent so many later has arrived (RFC 9002 section 6.1.1); before, it may only have been overtaken. */
const OVERTAKEN_BY = 3;

/** `underWay`: sendings whose fate is not known. */
type Entry<P> = { readonly packet: P; readonly sentAtMs: number; resentAtMs: number; underWay: number; hasArrived: boolean };
/** `isMissing`: reported so. */
type Sending<P> = { readonly number: number; readonly entry: Entry<P>; isMissing: boolean };

export type ResendOptions<P> = {
	readonly clock: Clock;
	/** Returns the transport-wide number of the sending, where there is one. */
	readonly send: (packet: P) => number | undefined;
	/** A packet is gone for good: only a key frame helps. */
	readonly onLost: () => void;
	/** Of the connection, when known. */
	readonly roundTripMs: () => number | undefined;
	/** Share of packets that are lost, 0 to 1. */
	readonly loss: () => number;
	/** Whether the way is known to carry less than would be sent. */
	readonly isWayFull: () => boolean;
};

export class Resender<P extends KeptPacket> {
	readonly #options: ResendOptions<P>;
	readonly #history: (Entry<P> | undefined)[] = new Array<Entry<P> | undefined>(HISTORY_PACKETS).fill(undefined);
	readonly #sendings: (Sending<P> | undefined)[] = new Array<Sending<P> | undefined>(MOST_SENDINGS).fill(undefined);
	/** Reported missing, and not yet overtaken by enough. Each once, and no longer than it is among the sendings, so that those bound it. */
	#missing: Sending<P>[] = [];
	#newestArrived: number | undefined;
	/** The number that the next feedback begins at, unless one is lost. */
	#nextReported: number | undefined;
	#budgetBytes = BUDGET_BURST_BYTES;
	resent = 0;

	constructor(options: ResendOptions<P>) {
		this.#options = options;
	}

	/** A packet has been sent for the first time, under this transport-wide number. */
	remember(packet: P, number?: number): void {
		const { clock, isWayFull } = this.#options;
		this.#budgetBytes = Math.min(BUDGET_BURST_BYTES, this.#budgetBytes + packet.bytes * (isWayFull() ? BUDGET_SHARE.full : BUDGET_SHARE.free));
		const entry: Entry<P> = { packet, sentAtMs: clock.nowMs(), resentAtMs: Number.NEGATIVE_INFINITY, underWay: 0, hasArrived: false };
		this.#history[packet.sequence % HISTORY_PACKETS] = entry;
		this.#follow(entry, number);
	}

	/** The packet remembered last ended a picture. */
	pictureSent(sequence: number): void {
		const entry = this.#history[sequence % HISTORY_PACKETS];
		if (entry !== undefined && this.#isLossy()) {
			this.#send(entry);
		}
	}

	/** The receiver lacks these packets (16-bit numbers). */
	request(sequences: readonly number[]): void {
		const { clock, roundTripMs, onLost } = this.#options;
		const nowMs = clock.nowMs();
		const intervalMs = Math.max(LEAST_REPEAT_INTERVAL_MS, roundTripMs() ?? DEFAULT_ROUND_TRIP_MS);
		let isLost = false;
		for (const sequence of sequences) {
			const entry = this.#history[sequence % HISTORY_PACKETS];
			if (entry === undefined || entry.packet.sequence !== sequence || !this.#isRepeatable(entry, nowMs)) {
				isLost = true;
			} else if (nowMs - entry.resentAtMs >= intervalMs) {
				this.#repeat(entry, nowMs);
			}
		}
		if (isLost) {
			onLost();
		}
	}

	/** Transport-wide feedback. What is lost by it and can not be sent again is left to the receiver to ask for. */
	reported(reports: readonly PacketReport[]): void {
		const nowMs = this.#options.clock.nowMs();
		this.#cover(reports);
		for (const { sequence: number, arrivedAtMs } of reports) {
			const sending = this.#sendings[number % MOST_SENDINGS];
			if (sending?.number !== number) {
				continue;
			}
			if (arrivedAtMs === undefined) {
				if (!sending.isMissing) {
					sending.isMissing = true;
					this.#missing.push(sending);
				}
			} else {
				this.#sendings[number % MOST_SENDINGS] = undefined;
				sending.entry.hasArrived = true;
				this.#newestArrived = this.#newestArrived === undefined || isAfter(number, this.#newestArrived) ? number : this.#newestArrived;
			}
		}
		this.#missing = this.#missing.filter((sending) => this.#sendings[sending.number % MOST_SENDINGS] === sending);
		const newest = this.#newestArrived;
		if (newest === undefined) {
			return;
		}
		const isLost = ({ number }: Sending<P>): boolean => isAfter(newest, number + OVERTAKEN_BY - 1);
		const lost = this.#missing.filter(isLost);
		this.#missing = this.#missing.filter((sending) => !isLost(sending));
		for (const { number, entry } of lost) {
			this.#sendings[number % MOST_SENDINGS] = undefined;
			entry.underWay -= 1;
			if (entry.underWay === 0 && !entry.hasArrived && this.#isRepeatable(entry, nowMs)) {
				this.#repeat(entry, nowMs);
			}
		}
	}

	/** Of packets between two feedbacks, whose own feedback is lost, nobody knows what the receiver lacks: with its request lost too, that would come late. */
	#cover(reports: readonly PacketReport[]): void {
		const first = reports[0]?.sequence;
		const next = this.#nextReported;
		const end = first === undefined ? undefined : (first + reports.length) & 0xffff;
		this.#nextReported = next === undefined || (end !== undefined && isAfter(end, next)) ? end : next;
		if (first === undefined || next === undefined || !isAfter(first, next)) {
			return;
		}
		for (let number = next; number !== first && this.#isLossy(); number = (number + 1) & 0xffff) {
			const sending = this.#sendings[number % MOST_SENDINGS];
			if (sending?.number === number && sending.entry.underWay === 1 && !sending.entry.hasArrived) {
				this.#send(sending.entry);
			}
		}
	}

	#isRepeatable({ packet, sentAtMs }: Entry<P>, nowMs: number): boolean {
		return nowMs - sentAtMs <= MOST_AGE_MS && packet.bytes <= this.#budgetBytes;
	}

	/** Whether to send what nobody has asked for. */
	#isLossy(): boolean {
		return this.#options.loss() > LOSSY && this.#budgetBytes > BUDGET_BURST_BYTES / 2;
	}

	#repeat(entry: Entry<P>, nowMs: number): void {
		entry.resentAtMs = nowMs;
		this.#send(entry);
		const copies = Math.min(MOST_COPIES, Math.ceil(Math.log(LOST_REPEATS) / Math.log(this.#options.loss())));
		for (let copy = 1; copy < copies && this.#isLossy(); copy += 1) {
			this.#send(entry);
		}
	}

	#send(entry: Entry<P>): void {
		this.#budgetBytes -= entry.packet.bytes;
		this.resent += 1;
		this.#follow(entry, this.#options.send(entry.packet));
	}

	#follow(entry: Entry<P>, number: number | undefined): void {
		if (number !== undefined) {
			entry.underWay += 1;
			this.#sendings[number % MOST_SENDINGS] = { number, entry, isMissing: false };
		}
	}
}

/** For 16-bit numbers, wrapping. */
const isAfter = (a: number, b: number): boolean => ((a - b) << 16) > 0;
