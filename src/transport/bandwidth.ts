/**
 * Estimates what the way to one receiver carries. Pure: packets, feedback and the time are told to it. Where there is transport-wide feedback
 * (draft-holmer-rmcat-transport-wide-cc-extensions-01) it follows delay and rate of arrival, in the manner of Google congestion control
 * (draft-ietf-rmcat-gcc-02) with packet trains in place of probes, and loss; otherwise it believes the receiver's own estimate (REMB), or at last its
 * reports of loss (RFC 3550 section 6.4.2).
 *
 * Nothing is limited until the way has shown that it is full: a stream has a rate that it does not exceed, and most ways carry it.
 */
import { DelayTrend } from './delay-trend.js';
import type { PacketReport } from './rtcp-repair.js';

/** Sent and not reported yet: what 20 Mbps send in a second. A power of two, as the numbers wrap at one. */
const MOST_SENT = 2048;
/** Feedback that has not come after this will not. */
const MOST_WAIT_MS = 1000;
/** Over which arrivals are counted, receiver's clock: eight pictures at 16 a second. */
const RATE_WINDOW_MS = 500;

/**
 * A way is full when its queue is this long and grows, and the trains show a link too slow for what is sent or the picture before found it so too; or,
 * whatever it does, when it stays that long. A picture of 2 Mbps fills a link of 3 for 40 ms, so that the next finds nothing.
 */
const GROWING_QUEUE_MS = 30;
const LONG_QUEUE_MS = 120;
const GROWING_SLOPE = 0.1;
const SLOW_LINK = 1.1;
/** Of the link, which is then measured: what is left drains the queue. */
const SHARE_AFTER_OVERUSE = 0.85;
/** Until the change has arrived and its effect is reported. */
const HOLD_MS = 250;
const REPEATED_MS = 1000;
const TRAINS_ABOVE_ARRIVED = 1.3;

/** Below this the queue is empty enough to ask for more. */
const SHORT_QUEUE_MS = 20;
const HOLD_BEFORE_GROWTH_MS = 700;
/**
 * Growth in a second: up to what the trains of packets show, beyond it, where pictures are too small to be trains, and where trains show a wider link. Beyond
 * it there is mostly nothing: as fast as before, growth ended in an overuse and 200 ms of latency every five seconds (simulated: 188 ms at p95, now 128).
 */
const SLOW_GROWTH = 0.08;
const GROWTH_BEYOND_TRAINS = 0.02;
const BLIND_GROWTH = 0.15;
const FAST_GROWTH = 0.6;
/** Of what the trains show. */
const SHARE_OF_TRAINS = 0.9;
const ALL_OF_TRAINS = 0.95;
const TRAINS = 8;

/** Loss without delay: below it is the nature of the way (a radio), above it the way is full, as a policer makes it. */
const MOST_LOSS = 0.2;
const LOSS_WINDOW_MS = 4000;
/** Of ten percent, fewer than this are one time in a hundred more than twenty. */
const LEAST_LOSS_PACKETS = 100;
/** An outage loses all for a moment, which says nothing of the rate: loss must be spread over so many of these slices. */
const LOSS_SLICES = 8;
const LEAST_LOSSY_SLICES = 5;

/** Feedback that stays out for longer than this is no longer believed to come. */
const FEEDBACK_SILENCE_MS = 3000;
/**
 * Nor is feedback believed that leaves out most packets, as receivers with werift 0.25.2 send it (most of what they write cannot be read): what it does not tell of would be taken
 * for packets under way, and a good way for a full one. Of the last two hundred or so, when they should have been told; more than an outage of a second.
 */
const LEAST_TOLD = 0.25;
const TOLD_WEIGHT = 1 / 256;
/** REMB comes every second at least, and at once when it falls. */
const REMB_HOLD_MS = 5000;
/** Receiver reports alone: as the loss-based controller of draft-ietf-rmcat-gcc-02 section 6. */
const REPORTED_LOSS = { high: 0.1, low: 0.02 } as const;

export const LEAST_BANDWIDTH_BPS = 60_000;

type Sent = { readonly sequence: number; readonly bytes: number; readonly sentAtMs: number; readonly burst: number; readonly order: number; isReported: boolean };

export type BandwidthOptions = {
	/** More than this is never asked for: an estimate above it is no limit. */
	readonly enoughBps: number;
};

export class BandwidthEstimator {
	readonly #enoughBps: number;
	readonly #trend = new DelayTrend();
	readonly #sent: (Sent | undefined)[] = new Array<Sent | undefined>(MOST_SENT).fill(undefined);
	/** Counts sendings, which numbers do not, as they wrap. */
	#order = 0;
	#newestArrived = 0;
	/** In order of sending, from the first that may be under way. */
	#outstanding: Sent[] = [];
	#outstandingBytes = 0;
	#arrivals: { readonly arrivedAtMs: number; readonly bytes: number }[] = [];
	#outcomes: { readonly atMs: number; readonly isLost: boolean }[] = [];
	#limitBps: number | undefined;
	#decreasedAtMs = Number.NEGATIVE_INFINITY;
	#grownAtMs = 0;
	#feedbackAtMs: number | undefined;
	/** Share of packets that feedback told of, 0 to 1. */
	#told = 1;
	#feedbackIntervalMs = 60;
	/** Age of the newest packet reported, at its least: round trip and what the receiver waits. */
	#reportAgeMs: number | undefined;
	#remb: { readonly bps: number; readonly atMs: number } | undefined;
	/** Bytes sent since the receiver report before. */
	#sentSince = { bytes: 0, atMs: 0 };

	constructor({ enoughBps }: BandwidthOptions) {
		this.#enoughBps = enoughBps;
	}

	/** `burst` counts pictures; all packets sent together have the same. */
	packetSent(sequence: number, bytes: number, burst: number, nowMs: number): void {
		this.#order += 1;
		const entry: Sent = { sequence, bytes, sentAtMs: nowMs, burst, order: this.#order, isReported: false };
		this.#forget(nowMs);
		this.#sent[sequence % MOST_SENT] = entry;
		this.#outstanding.push(entry);
		this.#outstandingBytes += bytes;
		this.#sentSince.bytes += bytes;
	}

	/** What the way carries, bits a second of whole packets; `undefined`: no limit is known. */
	bps(nowMs: number): number | undefined {
		const remb = this.#remb;
		if (!this.#hasFeedback(nowMs, FEEDBACK_SILENCE_MS) && remb !== undefined && nowMs - remb.atMs < REMB_HOLD_MS) {
			return remb.bps >= this.#enoughBps ? undefined : Math.max(LEAST_BANDWIDTH_BPS, remb.bps);
		}
		return this.#limitBps;
	}

	/** Share of packets lost, 0 to 1, lately; 0 while too little is known. */
	get loss(): number {
		return this.#outcomes.length < LEAST_LOSS_PACKETS ? 0 : this.#outcomes.filter(({ isLost }) => isLost).length / this.#outcomes.length;
	}

	/** How long what is on its way will still take, beyond what the way takes anyhow; 0 while nothing limits. */
	backlogMs(nowMs: number): number {
		this.#forget(nowMs);
		if (this.#limitBps === undefined || !this.#hasFeedback(nowMs, FEEDBACK_SILENCE_MS)) {
			return 0;
		}
		const linkBps = this.#limitBps / SHARE_AFTER_OVERUSE;
		return Math.max(0, (this.#outstandingBytes * 8000) / linkBps - (this.#reportAgeMs ?? 0) - this.#feedbackIntervalMs);
	}

	onTransportFeedback(reports: readonly PacketReport[], nowMs: number): void {
		if (this.#feedbackAtMs !== undefined) {
			this.#feedbackIntervalMs += (Math.min(300, nowMs - this.#feedbackAtMs) - this.#feedbackIntervalMs) / 8;
		}
		this.#feedbackAtMs = nowMs;
		let newest: Sent | undefined;
		for (const { sequence, arrivedAtMs } of reports) {
			const sent = this.#sent[sequence % MOST_SENT];
			if (sent?.sequence !== sequence || sent.isReported) {
				continue;
			}
			sent.isReported = true;
			this.#outcomes.push({ atMs: nowMs, isLost: arrivedAtMs === undefined });
			if (arrivedAtMs !== undefined) {
				newest = sent;
				this.#newestArrived = Math.max(this.#newestArrived, sent.order);
				this.#arrivals.push({ arrivedAtMs, bytes: sent.bytes });
				this.#trend.add({ burst: sent.burst, bytes: sent.bytes, sentAtMs: sent.sentAtMs, arrivedAtMs });
			}
		}
		if (newest !== undefined) {
			const ageMs = nowMs - newest.sentAtMs;
			// Rises slowly, so that a longer way is learnt and a queue is not.
			this.#reportAgeMs = this.#reportAgeMs === undefined ? ageMs : Math.min(ageMs, this.#reportAgeMs + 1);
		}
		this.#outcomes = this.#outcomes.filter(({ atMs }) => nowMs - atMs < LOSS_WINDOW_MS);
		const lastArrivalMs = this.#arrivals.at(-1)?.arrivedAtMs ?? 0;
		this.#arrivals = this.#arrivals.filter(({ arrivedAtMs }) => lastArrivalMs - arrivedAtMs < RATE_WINDOW_MS);
		this.#forget(nowMs);
		if (this.#told >= LEAST_TOLD) {
			this.#adapt(nowMs);
		}
	}

	/** Whether what came within this time is the truth about most packets. */
	#hasFeedback(nowMs: number, withinMs: number): boolean {
		return this.#told >= LEAST_TOLD && this.#feedbackAtMs !== undefined && nowMs - this.#feedbackAtMs < withinMs;
	}

	/** The receiver's own estimate (draft-alvestrand-rmcat-remb-03). */
	onReceiverEstimate(bps: number, nowMs: number): void {
		this.#remb = { bps, atMs: nowMs };
	}

	/** A receiver report; heard only while nothing better comes. */
	onReceiverReport(fractionLost: number, nowMs: number): void {
		const sentBps = (this.#sentSince.bytes * 8000) / Math.max(1, nowMs - this.#sentSince.atMs);
		this.#sentSince = { bytes: 0, atMs: nowMs };
		if (this.#hasFeedback(nowMs, REMB_HOLD_MS) || (this.#remb !== undefined && nowMs - this.#remb.atMs < REMB_HOLD_MS)) {
			return;
		}
		if (fractionLost > REPORTED_LOSS.high) {
			this.#limit(Math.min(this.#limitBps ?? sentBps, sentBps) * (1 - fractionLost / 2));
		} else if (fractionLost < REPORTED_LOSS.low && this.#limitBps !== undefined) {
			this.#limit(this.#limitBps * (1 + SLOW_GROWTH));
		}
	}

	/** Of the packets that arrived, bits a second. */
	get arrivedBps(): number {
		const first = this.#arrivals[0];
		const last = this.#arrivals.at(-1);
		if (first === undefined || last === undefined || last.arrivedAtMs - first.arrivedAtMs < RATE_WINDOW_MS / 4) {
			return 0;
		}
		const bytes = this.#arrivals.reduce((sum, arrival) => sum + arrival.bytes, -first.bytes);
		return (bytes * 8000) / (last.arrivedAtMs - first.arrivedAtMs);
	}

	#adapt(nowMs: number): void {
		const { queuedMs, slope } = this.#trend;
		const linkIsSlow = (this.#trend.linkBps(2) ?? Number.POSITIVE_INFINITY) < SLOW_LINK * (this.#limitBps ?? this.#enoughBps);
		const isOverused = this.#trend.hasQueued(LONG_QUEUE_MS)
			|| (queuedMs > GROWING_QUEUE_MS && slope > GROWING_SLOPE && (linkIsSlow || this.#trend.hasQueued(GROWING_QUEUE_MS)));
		if (isOverused) {
			this.#grownAtMs = nowMs;
			if (nowMs - this.#decreasedAtMs > HOLD_MS) {
				// At first the trains are believed, within bounds: what arrived was less than the link while nothing waited. If that was too much, what arrives is all there is.
				const isRepeated = nowMs - this.#decreasedAtMs < REPEATED_MS;
				this.#decreasedAtMs = nowMs;
				const arrivedBps = this.arrivedBps || Number.POSITIVE_INFINITY;
				const linkBps = Math.min(this.#trend.linkBps(2) ?? arrivedBps, arrivedBps * (isRepeated ? 1 : TRAINS_ABOVE_ARRIVED));
				if (Number.isFinite(linkBps)) {
					this.#limit(Math.min(this.#limitBps ?? Number.POSITIVE_INFINITY, linkBps * SHARE_AFTER_OVERUSE));
				}
			}
			return;
		}
		if (this.loss > MOST_LOSS && this.#isLossSpread(nowMs) && this.arrivedBps > 0) {
			this.#decreasedAtMs = nowMs;
			this.#limit(Math.min(this.#limitBps ?? Number.POSITIVE_INFINITY, this.arrivedBps * (1 - this.loss / 4)));
			// What was lost at the old rate says nothing of the new one.
			this.#outcomes = [];
			return;
		}
		this.#grow(nowMs, queuedMs);
	}

	#isLossSpread(nowMs: number): boolean {
		const slices = Array.from({ length: LOSS_SLICES }, () => ({ lost: 0, all: 0 }));
		for (const { atMs, isLost } of this.#outcomes) {
			const slice = slices[Math.floor(((nowMs - atMs) / LOSS_WINDOW_MS) * LOSS_SLICES)];
			if (slice !== undefined) {
				slice.all += 1;
				slice.lost += isLost ? 1 : 0;
			}
		}
		return slices.filter(({ lost, all }) => lost > MOST_LOSS * 0.5 * all).length >= LEAST_LOSSY_SLICES;
	}

	#grow(nowMs: number, queuedMs: number): void {
		const sinceMs = Math.min(200, nowMs - this.#grownAtMs);
		this.#grownAtMs = nowMs;
		const linkBps = this.#trend.linkBps(TRAINS);
		const shownBps = ALL_OF_TRAINS * (linkBps ?? Number.POSITIVE_INFINITY);
		if (this.#limitBps !== undefined && this.#limitBps > shownBps && this.#trend.hasQueued(SHORT_QUEUE_MS)) {
			// The trains were right: back to them, before the queue is long enough for an overuse.
			this.#limit(shownBps);
		}
		if (this.#limitBps === undefined || queuedMs > SHORT_QUEUE_MS || nowMs - this.#decreasedAtMs < HOLD_BEFORE_GROWTH_MS) {
			return;
		}
		// What is not used is not tested: an estimate must not run away while the picture stands still.
		const testedBps = Math.max(this.arrivedBps * 1.5, LEAST_BANDWIDTH_BPS);
		const trainsBps = (linkBps ?? 0) * SHARE_OF_TRAINS;
		if (trainsBps > this.#limitBps) {
			this.#limit(Math.min(trainsBps, testedBps, this.#limitBps * (1 + (FAST_GROWTH * sinceMs) / 1000)), this.#limitBps);
		} else {
			const growth = linkBps === undefined ? BLIND_GROWTH : this.#limitBps < shownBps ? SLOW_GROWTH : GROWTH_BEYOND_TRAINS;
			this.#limit(Math.min(testedBps, this.#limitBps * (1 + (growth * sinceMs) / 1000)), this.#limitBps);
		}
	}

	/** Above what is ever sent nothing limits any more. */
	#limit(bps: number, atLeastBps = 0): void {
		const limitBps = Math.max(LEAST_BANDWIDTH_BPS, atLeastBps, bps);
		this.#limitBps = limitBps >= this.#enoughBps ? undefined : limitBps;
	}

	/** What was sent before something that has arrived is not under way, though its feedback may be lost and never come. */
	#forget(nowMs: number): void {
		let gone = 0;
		for (const entry of this.#outstanding) {
			if (entry.order > this.#newestArrived && nowMs - entry.sentAtMs < MOST_WAIT_MS) {
				break;
			}
			this.#outstandingBytes -= entry.bytes;
			this.#told += ((entry.isReported ? 1 : 0) - this.#told) * TOLD_WEIGHT;
			gone += 1;
		}
		if (gone > 0) {
			this.#outstanding = this.#outstanding.slice(gone);
		}
	}
}
