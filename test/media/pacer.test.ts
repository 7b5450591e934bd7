import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Estimate } from '../../src/media/estimate.js';
import { Pacer } from '../../src/media/pacer.js';
import { randomNumbers, simulate, type Generation } from './pacer-simulation.js';

const OPTIONS = { fps: 16, framesPerChunk: 8, maxLeadMs: 1000, firstRtpTimestamp: 0xffff_f000 };
const INTERVAL_MS = 62.5;

/** A chunk that arrives `firstMs` after its start, all at once. */
const chunk = (pacer: Pacer, startMs: number, firstMs: number): void => {
	pacer.chunkStarted(startMs);
	for (let index = 0; index < 8; index += 1) {
		pacer.frameQueued(startMs + firstMs);
	}
	pacer.chunkFinished(startMs + firstMs);
};

describe('the pacer', () => {
	test('starts the first chunk at once and shows the first frame at once', () => {
		const pacer = new Pacer(OPTIONS);
		assert.deepEqual(pacer.nextStart(5000), { start: true });
		assert.deepEqual(pacer.nextDue(5000), { starved: true });
		chunk(pacer, 5000, 100);
		assert.deepEqual(pacer.nextDue(5100), { dueInMs: 0 });
		assert.deepEqual(pacer.frameTaken(5100), { rtpTimestamp: 0xffff_f000, mediaMs: 0, intervalMs: 0 });
		assert.deepEqual(pacer.nextDue(5100), { dueInMs: INTERVAL_MS });
	});

	test('one chunk at a time', () => {
		const pacer = new Pacer(OPTIONS);
		pacer.chunkStarted(0);
		assert.equal(pacer.nextStart(0).start, false);
		pacer.chunkFailed();
		assert.equal(pacer.nextStart(0).start, true);
	});

	test('schedules against an absolute start: late timers do not add up, and RTP time follows the schedule and wraps', () => {
		const pacer = new Pacer({ ...OPTIONS, framesPerChunk: 200 });
		pacer.chunkStarted(0);
		for (let index = 0; index < 200; index += 1) {
			pacer.frameQueued(0);
		}
		pacer.chunkFinished(0);
		let nowMs = 0;
		for (let index = 0; index < 160; index += 1) {
			const due = pacer.nextDue(nowMs);
			assert.ok('dueInMs' in due);
			nowMs += due.dueInMs;
			assert.ok(Math.abs(nowMs - index * INTERVAL_MS) < 4, `frame ${index} at ${nowMs}`);
			// Every timer fires 3 ms late.
			nowMs += 3;
			const taken = pacer.frameTaken(nowMs);
			assert.equal(taken.rtpTimestamp, (0xffff_f000 + index * 5625) % 2 ** 32);
			assert.equal(taken.mediaMs, index * INTERVAL_MS);
		}
	});

	test('a caller that was away for long is not given a burst', () => {
		const pacer = new Pacer(OPTIONS);
		chunk(pacer, 0, 100);
		pacer.frameTaken(100);
		assert.equal(pacer.frameTaken(2100).intervalMs, 2000);
		assert.deepEqual(pacer.nextDue(2100), { dueInMs: INTERVAL_MS });
	});

	test('holds the next chunk back until the lead is what its generation needs', () => {
		const pacer = new Pacer(OPTIONS);
		chunk(pacer, 0, 100);
		for (let index = 1; index < 30; index += 1) {
			const decision = pacer.nextStart(100);
			assert.equal(decision.start, false);
		}
		pacer.frameTaken(100);
		const decision = pacer.nextStart(100);
		assert.ok(!decision.start);
		const startMs = 100 + decision.checkInMs;
		// 100 ms and 3 deviations of 25 ms, and one frame of safety, before the last frame ends at 600.
		assert.ok(Math.abs(startMs - (600 - 100 - 75 - 62.5)) < 1, `${startMs}`);
		assert.deepEqual(pacer.nextStart(startMs), { start: true });
	});

	test('counts a stall, goes on from the late frame, and says how late it is meanwhile', () => {
		const pacer = new Pacer(OPTIONS);
		chunk(pacer, 0, 0);
		for (let index = 0; index < 8; index += 1) {
			pacer.frameTaken(index * INTERVAL_MS);
		}
		assert.equal(pacer.leadMs(800), -300);
		chunk(pacer, 300, 600);
		assert.deepEqual(pacer.nextDue(900), { dueInMs: 0 });
		assert.equal(pacer.frameTaken(900).mediaMs, 900);
		assert.equal(pacer.stats.stalls, 1);
		assert.equal(pacer.stats.stalledMs, 400);
	});

	test('stretches frames by a quarter at most while the chunk being generated is late', () => {
		const pacer = new Pacer(OPTIONS);
		chunk(pacer, 0, 0);
		pacer.frameTaken(0);
		chunk(pacer, 0, 100);
		pacer.chunkStarted(100);
		const intervals: number[] = [];
		for (let nowMs = INTERVAL_MS; !('starved' in pacer.nextDue(nowMs));) {
			const due = pacer.nextDue(nowMs);
			nowMs += 'dueInMs' in due ? due.dueInMs : 0;
			intervals.push(pacer.frameTaken(nowMs).intervalMs);
		}
		assert.equal(Math.max(...intervals), INTERVAL_MS * 1.25);
		assert.ok(intervals.filter((interval) => interval > INTERVAL_MS).length >= 10);
	});
});

describe('an estimate', () => {
	test('is not moved far by one spike, and at once by two in a row', () => {
		const estimate = new Estimate();
		for (let index = 0; index < 30; index += 1) {
			estimate.add(100 + (index % 3));
		}
		estimate.add(1000);
		assert.ok(estimate.meanMs < 110, `${estimate.meanMs}`);
		estimate.add(1000);
		assert.equal(estimate.meanMs, 1000);
	});

	test('never believes in a perfectly steady machine', () => {
		const estimate = new Estimate();
		for (let index = 0; index < 100; index += 1) {
			estimate.add(200);
		}
		assert.equal(estimate.deviationMs, 20);
	});
});

/** A chunk whose parts all take `factor` times as long. */
const scaled = (factor: number): Generation => ({ firstMs: 140 * factor, laterMs: 25 * factor, endMs: 200 * factor });

/** Times with the long tail of a shared machine: the logarithm is normally distributed. */
const noisy = (meanFactor: number, spread: number, seed: number): ((chunkIndex: number) => Generation) => {
	const random = randomNumbers(seed);
	return () => {
		const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
		return scaled(meanFactor * Math.exp(spread * normal));
	};
};

const lateTimers = (): (() => number) => {
	const random = randomNumbers(5);
	return () => random() * 4;
};

describe('a stream of two minutes, simulated', () => {
	const run = (generation: (chunkIndex: number) => Generation): ReturnType<typeof simulate> => simulate({ seconds: 120, generation, timerLateMs: lateTimers() });

	test('steady generation at twice real time: no stall, edits in time', () => {
		const result = run(() => scaled(1.25));
		assert.equal(result.stalls, 0);
		assert.ok(result.p50Ms <= 600 && result.p95Ms <= 850, JSON.stringify([result.p50Ms, result.p95Ms]));
		assert.equal(result.fps, 16);
	});

	test('faster generation lowers the latency of edits', () => {
		const result = run(() => scaled(0.5));
		assert.equal(result.stalls, 0);
		assert.ok(result.p50Ms <= 470, `${result.p50Ms}`);
	});

	test('noisy generation at twice real time: no stall, and the promised latency', () => {
		for (const seed of [1, 2, 3, 4, 5, 6]) {
			assert.equal(run(noisy(1.25, 0.2, seed)).stalls, 0, `seed ${seed}`);
			// With more noise still, the rare chunk of 2.5 times the mean shows as a short hesitation.
			const result = run(noisy(1.25, 0.25, seed));
			assert.ok(result.stalledMs < 50, `seed ${seed}: ${result.stalledMs}`);
			assert.ok(result.p50Ms <= 750 && result.p95Ms <= 1050, JSON.stringify([result.p50Ms, result.p95Ms]));
		}
	});

	test('a spike costs the time that it takes and no latency afterwards', () => {
		const calm = run(() => scaled(1));
		const spiky = run((chunkIndex) => scaled(chunkIndex % 20 === 19 ? 4 : 1));
		// Twelve spikes of 560 ms against a lead of about 260 ms.
		assert.ok(spiky.stalls <= 12 && spiky.stalledMs <= 12 * 320, JSON.stringify([spiky.stalls, spiky.stalledMs]));
		assert.ok(spiky.p50Ms <= calm.p50Ms + 100, JSON.stringify([spiky.p50Ms, calm.p50Ms]));
	});

	test('generation slower than real time slows the clock down instead of stalling', () => {
		const result = run(() => scaled(4));
		// Those of the first two chunks, before anything is known of the next.
		assert.ok(result.stalls <= 2, `${result.stalls}`);
		assert.ok(Math.abs(result.fps - 9.9) < 0.1, `${result.fps}`);
		// Everything that was generated is shown: 8 frames every 800 ms.
		assert.ok(result.shownFrames >= 1165, `${result.shownFrames}`);
	});

	test('the clock never falls below 8 frames a second; what is missing then shows as stalls', () => {
		const result = run(() => scaled(7));
		assert.equal(result.fps, 8);
		assert.ok(result.stalls > 10);
	});

	test('slow for a while, then fast again: few stalls, and full speed in the end', () => {
		const result = run((chunkIndex) => scaled(chunkIndex > 40 && chunkIndex < 70 ? 3.5 : 1));
		assert.ok(result.stalls <= 3, `${result.stalls}`);
		assert.ok(result.fps > 15.9);
	});

	test('RTP time moves by what the clock really used', () => {
		const { rtp } = run(noisy(2.2, 0.3, 4));
		const [first, last] = [rtp[0], rtp.at(-1)];
		assert.ok(first !== undefined && last !== undefined);
		assert.ok(Math.abs((last.rtpTimestamp - first.rtpTimestamp) / 90 - (last.atMs - first.atMs)) < 10);
		assert.ok(rtp.every((entry, index) => index === 0 || entry.rtpTimestamp > (rtp[index - 1]?.rtpTimestamp ?? 0)));
	});

	test('generation stays within the lead', () => {
		for (const maxLeadMs of [600, 1000, 3000]) {
			const result = simulate({ seconds: 60, generation: noisy(1, 0.2, 6), pacer: { maxLeadMs } });
			// A chunk may be faster than any before it; then by what it was faster.
			assert.ok(result.mostLeadMs <= maxLeadMs + INTERVAL_MS, `${result.mostLeadMs} of ${maxLeadMs}`);
		}
	});

	test('twelve frames in a chunk work as well', () => {
		const result = simulate({ seconds: 120, generation: noisy(1.8, 0.2, 8), pacer: { framesPerChunk: 12 } });
		assert.equal(result.stalls, 0);
		assert.ok(result.p50Ms <= 900, `${result.p50Ms}`);
	});
});

describe('changes, simulated for five minutes', () => {
	const run = (meanFactor: number, everyMs: number, isHasty: boolean): ReturnType<typeof simulate> =>
		simulate({ seconds: 300, generation: noisy(meanFactor, 0.1, 3), timerLateMs: lateTimers(), changes: { everyMs, recacheMs: 70 * meanFactor, isHasty } });

	test('what is queued before a change is shown faster: it is seen in little more than half the time, and nothing stands still', () => {
		for (const everyMs of [800, 2000]) {
			const plain = run(0.85, everyMs, false);
			const hasty = run(0.85, everyMs, true);
			assert.equal(hasty.stalls, 0, `${everyMs}`);
			assert.ok(hasty.p50Ms < 0.65 * plain.p50Ms && hasty.p95Ms < 0.65 * plain.p95Ms, JSON.stringify([everyMs, plain.p50Ms, hasty.p50Ms, plain.p95Ms, hasty.p95Ms]));
			assert.ok(hasty.p50Ms <= 400, `${hasty.p50Ms}`);
		}
	});

	test('changes without end make the world a fifth faster, no more', () => {
		const { shownFrames } = run(0.85, 100, true);
		assert.ok(shownFrames > 300 * 16 && shownFrames < 1.25 * 300 * 16, `${shownFrames}`);
	});

	test('generation that has no time to spare is not made to stall by changes', () => {
		const [plain, hasty] = [run(2.2, 1500, false), run(2.2, 1500, true)];
		assert.ok(hasty.stalledMs <= plain.stalledMs + 300, JSON.stringify([plain.stalledMs, hasty.stalledMs]));
	});

	test('no frame is shown for less than half its time, and haste ends with the change', () => {
		const pacer = new Pacer(OPTIONS);
		chunk(pacer, 0, 100);
		pacer.frameTaken(100);
		pacer.changeWaits(110);
		assert.deepEqual(pacer.nextDue(110), { dueInMs: 100 + INTERVAL_MS / 2 - 110 });
		const intervals: number[] = [];
		for (let nowMs = 110, begun = false; intervals.length < 12;) {
			if (!begun && pacer.nextStart(nowMs).start) {
				begun = true;
				chunk(pacer, nowMs, 0);
			}
			const due = pacer.nextDue(nowMs);
			nowMs += 'dueInMs' in due ? due.dueInMs : assert.fail('nothing to show');
			intervals.push(pacer.frameTaken(nowMs).intervalMs);
		}
		assert.equal(Math.min(...intervals), INTERVAL_MS / 2);
		assert.deepEqual(intervals.slice(-4), [INTERVAL_MS, INTERVAL_MS, INTERVAL_MS, INTERVAL_MS]);
	});

	test('a clip keeps its speed', () => {
		const pacer = new Pacer({ ...OPTIONS, keepsSpeed: true });
		chunk(pacer, 0, 100);
		pacer.frameTaken(100);
		pacer.changeWaits(110);
		assert.deepEqual(pacer.nextDue(110), { dueInMs: 100 + INTERVAL_MS - 110 });
	});
});
