/**
 * A stream over a way that loses packets in both directions, in virtual time: repair and estimate of the sender are the product's, the receiver asks and
 * reports as Chromium does (modules/video_coding/nack_requester.cc, modules/remote_bitrate_estimator/remote_estimator_proxy.cc of WebRTC).
 */
import type { Clock } from '../../src/base/time.js';
import { BandwidthEstimator } from '../../src/transport/bandwidth.js';
import { Resender, type KeptPacket } from '../../src/transport/resend.js';
import { createRandom } from '../model/random-model.js';

const FRAME_MS = 62.5;
const PACKET_BYTES = 1160;
const HEADER_BYTES = 60;
const FEEDBACK_MS = 60;
/** A receiver that knows no round trip asks again after this, looking every 20 ms. */
const ASK_AGAIN_MS = 100;
const ASK_TICK_MS = 20;
const MOST_ASKS = 10;
/** Until then the sender does not know the loss. */
const SETTLED_MS = 1000;

export type LossyWay = {
	readonly seed: number;
	/** 0 to 1, each way. */
	readonly loss: number;
	/** Each way. */
	readonly delayMs: number;
	readonly packetsPerFrame: number;
	readonly seconds: number;
};

export type Outcome = {
	/** From sending to completeness of a frame and of all before it, one a frame. */
	readonly latencyMs: readonly number[];
	/** Between two frames that became showable, after the first second. */
	readonly longestGapMs: number;
	readonly sent: number;
	/** Packets beside the first sending of each. */
	readonly extra: number;
	readonly keyframesAsked: number;
	readonly limitedMs: number;
	readonly mostBacklogMs: number;
};

type SimulatedPacket = KeptPacket & { readonly frame: number };

/** Events in order of their time. */
class Timeline {
	readonly #events: { readonly atMs: number; readonly order: number; readonly run: () => void }[] = [];
	#order = 0;
	nowMs = 0;

	at(atMs: number, run: () => void): void {
		const event = { atMs, order: this.#order++, run };
		let index = this.#events.length;
		while (index > 0 && (this.#events[index - 1]?.atMs ?? 0) > atMs) {
			index -= 1;
		}
		this.#events.splice(index, 0, event);
	}

	run(untilMs: number): void {
		for (let event = this.#events.shift(); event !== undefined && event.atMs <= untilMs; event = this.#events.shift()) {
			this.nowMs = event.atMs;
			event.run();
		}
	}
}

class AskingReceiver {
	readonly #timeline: Timeline;
	readonly #ask: (sequences: readonly number[]) => void;
	readonly #missing = new Map<number, { askedAtMs: number; asks: number }>();
	readonly #received = new Map<number, number>();
	readonly #early = new Set<number>();
	#newest = -1;

	constructor(timeline: Timeline, ask: (sequences: readonly number[]) => void) {
		this.#timeline = timeline;
		this.#ask = ask;
		const tick = (): void => {
			this.#askAgain();
			timeline.at(timeline.nowMs + ASK_TICK_MS, tick);
		};
		timeline.at(ASK_TICK_MS, tick);
	}

	/** How many packets of a frame are there. */
	countOf(frame: number): number {
		return this.#received.get(frame) ?? 0;
	}

	/** False: it was there already. */
	receive({ sequence, frame }: SimulatedPacket, isRepeat: boolean): boolean {
		if (sequence <= this.#newest ? !this.#missing.delete(sequence) : this.#early.has(sequence)) {
			return false;
		}
		this.#received.set(frame, this.countOf(frame) + 1);
		if (sequence > this.#newest) {
			// A repeat of what is not known to be missing shows no gap.
			if (isRepeat) {
				this.#early.add(sequence);
				return true;
			}
			const gap: number[] = [];
			for (let missing = this.#newest + 1; missing < sequence; missing += 1) {
				if (!this.#early.delete(missing)) {
					gap.push(missing);
					this.#missing.set(missing, { askedAtMs: this.#timeline.nowMs, asks: 1 });
				}
			}
			this.#newest = sequence;
			if (gap.length > 0) {
				this.#ask(gap);
			}
		}
		return true;
	}

	#askAgain(): void {
		const due = [...this.#missing].filter(([, { askedAtMs, asks }]) => asks < MOST_ASKS && this.#timeline.nowMs - askedAtMs >= ASK_AGAIN_MS);
		for (const [, entry] of due) {
			entry.askedAtMs = this.#timeline.nowMs;
			entry.asks += 1;
		}
		if (due.length > 0) {
			this.#ask(due.map(([sequence]) => sequence));
		}
	}
}

export const playOver = ({ seed, loss, delayMs, packetsPerFrame, seconds }: LossyWay): Outcome => {
	const random = createRandom(seed);
	const timeline = new Timeline();
	const clock: Clock = { nowMs: () => timeline.nowMs, sleep: () => Promise.reject(new Error('nothing sleeps here')) };
	const estimator = new BandwidthEstimator({ enoughBps: 2_600_000 });
	const outcome = { sent: 0, extra: 0, keyframesAsked: 0, limitedMs: 0, mostBacklogMs: 0 };
	let transportSequence = 0;
	let burst = 0;
	/** Transport-wide numbers that arrived and were not reported. */
	let arrived: { sequence: number; arrivedAtMs: number }[] = [];
	let reportedUpTo = 0;
	const sentAtMs: number[] = [];
	const latencyMs: number[] = [];
	const shownAtMs: number[] = [];

	const cross = (deliver: () => void): void => {
		if (random() >= loss) {
			timeline.at(timeline.nowMs + delayMs, deliver);
		}
	};
	const receiver = new AskingReceiver(timeline, (sequences) => cross(() => resender.request(sequences)));
	const write = (packet: SimulatedPacket, isRepeat: boolean): number => {
		transportSequence += 1;
		const number = transportSequence;
		estimator.packetSent(number & 0xffff, packet.bytes + HEADER_BYTES, burst, timeline.nowMs);
		outcome.extra += isRepeat ? 1 : 0;
		cross(() => {
			arrived.push({ sequence: number, arrivedAtMs: timeline.nowMs });
			receiver.receive(packet, isRepeat);
			while (latencyMs.length < sentAtMs.length && receiver.countOf(latencyMs.length) === packetsPerFrame) {
				latencyMs.push(timeline.nowMs - (sentAtMs[latencyMs.length] ?? 0));
				shownAtMs.push(timeline.nowMs);
			}
		});
		return number & 0xffff;
	};
	const resender = new Resender<SimulatedPacket>({
		clock, send: (packet) => write(packet, true), onLost: () => { outcome.keyframesAsked += 1; },
		roundTripMs: () => 2 * delayMs, loss: () => estimator.loss,
		isWayFull: () => estimator.bps(timeline.nowMs) !== undefined,
	});
	const report = (): void => {
		const newest = arrived.reduce((most, { sequence }) => Math.max(most, sequence), reportedUpTo);
		const times = new Map(arrived.map(({ sequence, arrivedAtMs }) => [sequence, arrivedAtMs]));
		const reports = Array.from({ length: newest - reportedUpTo }, (_, index) => ({ sequence: (reportedUpTo + index + 1) & 0xffff, arrivedAtMs: times.get(reportedUpTo + index + 1) }));
		reportedUpTo = newest;
		arrived = [];
		if (reports.length > 0) {
			cross(() => {
				estimator.onTransportFeedback(reports, timeline.nowMs);
				resender.reported(reports);
			});
		}
		timeline.at(timeline.nowMs + FEEDBACK_MS, report);
	};
	const frame = (): void => {
		burst += 1;
		const index = sentAtMs.length;
		sentAtMs.push(timeline.nowMs);
		outcome.limitedMs += estimator.bps(timeline.nowMs) === undefined ? 0 : FRAME_MS;
		outcome.mostBacklogMs = Math.max(outcome.mostBacklogMs, estimator.backlogMs(timeline.nowMs));
		for (let part = 0; part < packetsPerFrame; part += 1) {
			const packet = { sequence: index * packetsPerFrame + part, bytes: PACKET_BYTES, frame: index };
			outcome.sent += 1;
			resender.remember(packet, write(packet, false));
		}
		resender.pictureSent(index * packetsPerFrame + packetsPerFrame - 1);
		timeline.at(timeline.nowMs + FRAME_MS, frame);
	};
	timeline.at(0, frame);
	timeline.at(FEEDBACK_MS, report);
	timeline.run(seconds * 1000);
	const settledAtMs = shownAtMs.filter((atMs) => atMs >= SETTLED_MS);
	const longestGapMs = settledAtMs.reduce((most, atMs, index) => Math.max(most, atMs - (settledAtMs[index - 1] ?? atMs)), 0);
	return { latencyMs, longestGapMs, ...outcome };
};
