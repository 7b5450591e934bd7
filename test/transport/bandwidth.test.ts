/** The estimator over a simulated link: packets leave in bursts, wait for the link's rate, and feedback comes back as Chromium sends it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BandwidthEstimator, LEAST_BANDWIDTH_BPS } from '../../src/transport/bandwidth.js';
import type { PacketReport } from '../../src/transport/rtcp-repair.js';
import { createRandom } from '../model/random-model.js';

const FPS = 16;
const PACKET_BYTES = 1200;
const MOST_BPS = 2_000_000;
const FEEDBACK_MS = 60;
const DELAY_MS = 20;

type Link = { readonly rateBps: number; readonly loss?: number; readonly feedbackLoss?: number; readonly queueMs?: number; readonly readEveryMs?: number };
type Moment = { readonly atMs: number; readonly bps: number | undefined; readonly backlogMs: number; readonly queueMs: number };

/** Sends at the estimate, or at the most, and skips while the backlog is long, as playout does. Whole packets; with a share of the estimate, pictures of just that rate. */
const simulate = (linkAt: (nowMs: number) => Link, seconds: number, share?: number): { estimator: BandwidthEstimator; moments: Moment[]; sentBps: (fromMs: number, toMs: number) => number } => {
	const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS * 1.3 });
	const random = createRandom(1);
	const moments: Moment[] = [];
	const frames: { atMs: number; bytes: number }[] = [];
	/** What the receiver knows and has not told. */
	let waiting: (PacketReport & { readonly knownAtMs: number })[] = [];
	let freeAtMs = 0;
	let sequence = 65_000;
	let burst = 0;
	for (let nowMs = 0; nowMs < seconds * 1000; nowMs += 1) {
		const { rateBps, loss = 0, feedbackLoss = 0, queueMs = 400, readEveryMs = 1 } = linkAt(nowMs);
		if (nowMs % Math.round(1000 / FPS) === 0 && estimator.backlogMs(nowMs) < 150) {
			burst += 1;
			const bps = Math.min(MOST_BPS, estimator.bps(nowMs) ?? MOST_BPS);
			const packets = Math.max(1, Math.round(bps / 8 / FPS / PACKET_BYTES));
			const packetBytes = share === undefined ? PACKET_BYTES : Math.round((share * bps) / 8 / FPS / packets);
			frames.push({ atMs: nowMs, bytes: packets * packetBytes });
			for (let index = 0; index < packets; index += 1) {
				sequence = (sequence + 1) & 0xffff;
				estimator.packetSent(sequence, packetBytes, burst, nowMs);
				const isLost = random() < loss || freeAtMs - nowMs > queueMs;
				if (!isLost) {
					freeAtMs = Math.max(freeAtMs, nowMs) + (packetBytes * 8000) / rateBps;
				}
				const reachedAtMs = Math.max(freeAtMs, nowMs) + DELAY_MS;
				const arrivedAtMs = readEveryMs === 1 ? reachedAtMs : Math.ceil(reachedAtMs / readEveryMs) * readEveryMs;
				// The receiver's clock is another.
				waiting.push({ sequence, arrivedAtMs: isLost ? undefined : arrivedAtMs + 5_000_000, knownAtMs: arrivedAtMs });
			}
		}
		if (nowMs % FEEDBACK_MS === 0) {
			const known = waiting.filter(({ knownAtMs }) => knownAtMs + DELAY_MS <= nowMs);
			waiting = waiting.filter((entry) => !known.includes(entry));
			if (known.length > 0 && (feedbackLoss === 0 || random() >= feedbackLoss)) {
				estimator.onTransportFeedback(known, nowMs);
			}
		}
		if (nowMs % 50 === 0) {
			moments.push({ atMs: nowMs, bps: estimator.bps(nowMs), backlogMs: estimator.backlogMs(nowMs), queueMs: Math.max(0, freeAtMs - nowMs) });
		}
	}
	return {
		estimator, moments,
		sentBps: (fromMs, toMs) => (frames.filter(({ atMs }) => atMs >= fromMs && atMs < toMs).reduce((sum, { bytes }) => sum + bytes, 0) * 8000) / (toMs - fromMs),
	};
};

describe('the bandwidth of a way', () => {
	test('nothing is limited on a way that carries the stream', () => {
		const { moments } = simulate(() => ({ rateBps: 3_000_000 }), 20);
		assert.ok(moments.every(({ bps, backlogMs }) => bps === undefined && backlogMs === 0));
	});

	test('a way that becomes narrow: known within half a second, used to three quarters or more, its queue short after three; wide again: all within eight', () => {
		const { moments, sentBps } = simulate((nowMs) => ({ rateBps: nowMs >= 5000 && nowMs < 20_000 ? 800_000 : 3_000_000 }), 32);
		const known = moments.find(({ bps }) => bps !== undefined);
		assert.ok((known?.atMs ?? 0) > 5000 && (known?.atMs ?? Infinity) <= 5500, `known at ${known?.atMs}`);
		assert.ok(sentBps(8000, 20_000) >= 600_000, `${sentBps(8000, 20_000)} bit/s while narrow`);
		const queues = moments.filter(({ atMs }) => atMs >= 8000 && atMs < 20_000).map(({ queueMs }) => queueMs).sort((a, b) => a - b);
		assert.ok((queues[Math.floor(queues.length * 0.95)] ?? Infinity) <= 150, `queue ${queues.at(-1)} ms`);
		assert.ok(sentBps(27_000, 28_000) >= 1_500_000, `${sentBps(27_000, 28_000)} bit/s seven seconds after`);
		assert.equal(moments.at(-1)?.bps, undefined, 'no limit in the end');
	});

	test('what the trains of packets show of a narrow link is not exceeded again and again, each time with a long queue', () => {
		const { moments, sentBps } = simulate((nowMs) => ({ rateBps: nowMs >= 5000 ? 800_000 : 3_000_000 }), 45, 0.95);
		const settled = moments.filter(({ atMs }) => atMs >= 8000);
		const queues = settled.map(({ queueMs }) => queueMs).sort((a, b) => a - b);
		// A picture alone takes the link for 60 ms.
		assert.ok((queues[Math.floor(queues.length * 0.95)] ?? Infinity) <= 100, `queue ${queues[Math.floor(queues.length * 0.95)]} ms`);
		assert.ok(sentBps(8000, 45_000) >= 700_000, `${sentBps(8000, 45_000)} bit/s`);
	});

	test('trains that show less than the link carries do not hold the rate down for good', () => {
		// Each packet is read 16 ms after the one before, on a link ten times as wide.
		const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS });
		const play = (fromMs: number, toMs: number, queueMs: number): void => {
			for (let sentAtMs = fromMs; sentAtMs < toMs; sentAtMs += 62.5) {
				const burst = sentAtMs / 62.5;
				const sequences = Array.from({ length: 4 }, (_, index) => (burst * 4 + index) & 0xffff);
				sequences.forEach((sequence) => estimator.packetSent(sequence, PACKET_BYTES, burst, sentAtMs));
				estimator.onTransportFeedback(sequences.map((sequence, index) => ({ sequence, arrivedAtMs: sentAtMs + 20 + queueMs * Math.min(1, (sentAtMs - fromMs) / 1000) + 16 * index })), sentAtMs + 61);
			}
		};
		play(0, 3000, 0);
		play(3000, 6000, 300);
		const limitBps = estimator.bps(6000) ?? Infinity;
		assert.ok(limitBps < 600_000, `${limitBps}`);
		play(6000, 66_000, 0);
		assert.ok((estimator.bps(66_000) ?? Infinity) > 1.5 * limitBps, `${estimator.bps(66_000)} after ${limitBps}`);
	});

	test('a receiver that is busy reads several packets at once: its link looks neither wider nor narrower for that', () => {
		for (const readEveryMs of [20, 25]) {
			const { moments, sentBps } = simulate((nowMs) => ({ rateBps: nowMs >= 5000 ? 800_000 : 3_000_000, readEveryMs }), 40);
			const mostBps = moments.filter(({ atMs }) => atMs >= 8000).reduce((most, { bps }) => Math.max(most, bps ?? Infinity), 0);
			assert.ok(mostBps <= 900_000, `${mostBps} bit/s, read every ${readEveryMs} ms`);
			assert.ok(sentBps(8000, 40_000) >= 680_000, `${sentBps(8000, 40_000)} bit/s, read every ${readEveryMs} ms`);
		}
	});

	test('a way that is narrow from the start is found out', () => {
		const { moments, sentBps } = simulate(() => ({ rateBps: 500_000 }), 15);
		assert.ok(moments.filter(({ atMs }) => atMs > 3000).every(({ bps }) => bps !== undefined && bps <= 560_000));
		assert.ok(sentBps(5000, 15_000) >= 350_000, `${sentBps(5000, 15_000)}`);
	});

	test('ten percent of random loss limits nothing; a policer that throws half away does', () => {
		const random = simulate(() => ({ rateBps: 10_000_000, loss: 0.1 }), 20);
		assert.ok(random.moments.every(({ bps }) => bps === undefined));
		assert.ok(Math.abs(random.estimator.loss - 0.1) < 0.06);
		const lossyAndNarrow = simulate(() => ({ rateBps: 700_000, loss: 0.1 }), 60);
		const settled = lossyAndNarrow.moments.filter(({ atMs }) => atMs > 10_000);
		assert.ok(settled.every(({ bps }) => (bps ?? Infinity) >= 250_000), 'loss that does not come from the rate does not sink it');
		const policed = simulate(() => ({ rateBps: 1_000_000, queueMs: 5 }), 10);
		assert.ok((policed.moments.at(-1)?.bps ?? Infinity) <= 1_300_000, `${policed.moments.at(-1)?.bps}`);
	});

	test('an outage limits nothing, nor does a receiver that was busy for a moment', () => {
		const { moments } = simulate((nowMs) => ({ rateBps: 5_000_000, loss: nowMs % 5000 > 4700 ? 1 : 0 }), 20);
		assert.ok(moments.every(({ bps }) => bps === undefined));
		const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS });
		for (let burst = 0; burst < 100; burst += 1) {
			const sentAtMs = burst * 62;
			const sequences = Array.from({ length: 12 }, (_, index) => burst * 12 + index);
			sequences.forEach((sequence) => estimator.packetSent(sequence, PACKET_BYTES, burst, sentAtMs));
			// Every twentieth picture is read 100 ms late, all of it at once.
			const arrivedAtMs = sentAtMs + 20 + (burst % 20 === 19 ? 100 : 0);
			estimator.onTransportFeedback(sequences.map((sequence) => ({ sequence, arrivedAtMs })), sentAtMs + 61);
			assert.equal(estimator.bps(sentAtMs + 61), undefined);
		}
	});

	test('what a lost feedback spoke of is not taken to be under way for ever: no picture is left out for it', () => {
		const { moments, sentBps } = simulate(() => ({ rateBps: 900_000, feedbackLoss: 0.2 }), 30);
		assert.ok(sentBps(8000, 30_000) >= 600_000, `${sentBps(8000, 30_000)} bit/s`);
		const long = moments.filter(({ atMs, backlogMs }) => atMs > 8000 && backlogMs > 150);
		assert.ok(long.length <= moments.length / 20, `${long.length} of ${moments.length}`);
	});

	test('feedback that tells of few packets is not believed: no picture is left out for it, and receiver reports lift what it limited', () => {
		const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS * 1.3 });
		let sequence = 0;
		const backlogs: number[] = [];
		/** A picture every 62.5 ms; feedback on every tenth of them, with times that say that the way fills. */
		const play = (fromMs: number, toMs: number): void => {
			for (let nowMs = fromMs; nowMs < toMs; nowMs += 62.5) {
				const first = sequence;
				for (let index = 0; index < 10; index += 1) {
					estimator.packetSent(sequence & 0xffff, PACKET_BYTES, nowMs, nowMs);
					sequence += 1;
				}
				if (sequence % 100 === 0) {
					estimator.onTransportFeedback(Array.from({ length: 10 }, (_, index) => ({ sequence: (first + index) & 0xffff, arrivedAtMs: 1.2 * nowMs + 12 * index })), nowMs + 40);
				}
				backlogs.push(estimator.backlogMs(nowMs));
			}
		};
		play(0, 3000);
		assert.ok(Math.max(...backlogs) > 150, 'without the rule pictures are left out');
		assert.ok((estimator.bps(3000) ?? Number.POSITIVE_INFINITY) < MOST_BPS);
		backlogs.length = 0;
		for (let atMs = 3000; atMs < 60_000; atMs += 1000) {
			play(atMs, atMs + 1000);
			estimator.onReceiverReport(0, atMs + 1000);
		}
		assert.equal(Math.max(...backlogs.slice(64)), 0);
		assert.equal(estimator.bps(60_000), undefined);
	});

	test('without feedback the receiver\'s own estimate counts, while it is fresh', () => {
		const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS });
		estimator.onReceiverEstimate(700_000, 1000);
		assert.equal(estimator.bps(1500), 700_000);
		estimator.onReceiverEstimate(10, 1600);
		assert.equal(estimator.bps(1700), LEAST_BANDWIDTH_BPS);
		estimator.onReceiverEstimate(5_000_000, 1800);
		assert.equal(estimator.bps(1900), undefined);
		assert.equal(estimator.bps(30_000), undefined);
	});

	test('with nothing but receiver reports loss lowers the rate and its absence raises it', () => {
		const estimator = new BandwidthEstimator({ enoughBps: MOST_BPS });
		const second = (nowMs: number, loss: number): number | undefined => {
			for (let index = 0; index < 100; index += 1) {
				estimator.packetSent(index, 1250, 1, nowMs);
			}
			estimator.onReceiverReport(loss, nowMs + 1000);
			return estimator.bps(nowMs + 1000);
		};
		assert.equal(second(0, 0), undefined);
		const low = second(1000, 0.3) ?? Infinity;
		assert.ok(low <= 850_000 * 1.01, `${low}`);
		assert.equal(second(2000, 0.05), low);
		assert.ok((second(3000, 0) ?? 0) > low);
	});
});
