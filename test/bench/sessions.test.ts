/** How many streams an engine keeps in time: tries on a clock that is stepped, and with a real engine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, type Clock } from '../../src/base/time.js';
import { type ChunkMaker, findSessions, measureSessions, trySessions } from '../../src/bench/sessions.js';
import { writeRandomModel } from '../model/random-model.js';

type Wake = { readonly atMs: number; readonly wake: () => void };

/** Time that stands still while anything is done, and then goes on to what is waited for next. */
class SteppedClock implements Clock {
	#nowMs = 0;
	#waiting: readonly Wake[] = [];

	readonly nowMs = (): number => this.#nowMs;

	readonly sleep = (delayMs: number, signal?: AbortSignal): Promise<void> => new Promise((resolve, reject) => {
		const wake: Wake = { atMs: this.#nowMs + Math.max(0, delayMs), wake: resolve };
		this.#waiting = [...this.#waiting, wake];
		signal?.addEventListener('abort', () => {
			this.#waiting = this.#waiting.filter((other) => other !== wake);
			reject(signal.reason as Error);
		}, { once: true });
	});

	async run<Result>(work: Promise<Result>): Promise<Result> {
		let isDone = false;
		const end = (): void => {
			isDone = true;
		};
		work.then(end, end);
		for (;;) {
			await new Promise((resolve) => setImmediate(resolve));
			if (isDone) {
				return work;
			}
			const [next] = [...this.#waiting].sort((one, other) => one.atMs - other.atMs);
			if (next !== undefined) {
				this.#waiting = this.#waiting.filter((wake) => wake !== next);
				this.#nowMs = next.atMs;
				next.wake();
			}
		}
	}
}

/** One chunk after the other, that which is due first; each takes as long. */
const serial = (clock: Clock, chunkMs: number): ChunkMaker & { readonly dues: number[] } => {
	const asked: { readonly dueMs: number; readonly done: () => void }[] = [];
	const dues: number[] = [];
	let isWorking = false;
	const work = async (): Promise<void> => {
		isWorking = true;
		for (let next = asked.shift(); next !== undefined; next = asked.shift()) {
			await clock.sleep(chunkMs);
			next.done();
			asked.sort((one, other) => one.dueMs - other.dueMs);
		}
		isWorking = false;
	};
	return {
		dues,
		chunk: (_, dueInMs) => new Promise((resolve) => {
			dues.push(dueInMs);
			asked.push({ dueMs: clock.nowMs() + dueInMs, done: resolve });
			if (!isWorking) {
				void work();
			}
		}),
		close: () => {
			asked.splice(0).forEach(({ done }) => done());
			return Promise.resolve();
		},
	};
};

const PACE = { periodMs: 100, warmChunks: 2, chunks: 10 };

test('streams ask once a period, spread over it, for chunks that are due at its end', async () => {
	const clock = new SteppedClock();
	const maker = serial(clock, 10);
	const found = await clock.run(trySessions(4, maker, PACE, clock));
	assert.deepEqual(found, { sessions: 4, lateShare: 0, p95Ms: 10 });
	assert.deepEqual(new Set(maker.dues), new Set([100]));
	assert.equal(maker.dues.length, 4 * 12);
	assert.equal(clock.nowMs(), 3 * 25 + 11 * 100 + 10);
});

test('chunks that come late, or not before a try is over, are late', async () => {
	const slow = new SteppedClock();
	// Half of what is asked for can be made.
	const found = await slow.run(trySessions(20, serial(slow, 10), PACE, slow));
	assert.ok(found.lateShare > 0.9, JSON.stringify(found));
	assert.equal(slow.nowMs(), 13 * 100, 'a try ends after what is in time has come');
});

test('the most that are kept in time are found to a tenth, up to a bound; none where one is too many', async () => {
	const find = async (chunkMs: number, most: number) => {
		const tried: number[] = [];
		const found = await findSessions(async (sessions) => {
			tried.push(sessions);
			const clock = new SteppedClock();
			return clock.run(trySessions(sessions, serial(clock, chunkMs), PACE, clock));
		}, PACE.periodMs, most);
		return { kept: found.kept?.sessions, missed: found.missed?.sessions, tried };
	};
	// Ten fill a period; a little more does not show in so few chunks.
	const ten = await find(10, 256);
	assert.ok(ten.kept !== undefined && ten.missed !== undefined && ten.kept >= 10 && ten.missed <= 12 && ten.missed - ten.kept <= 1, JSON.stringify(ten));
	assert.deepEqual(ten.tried.slice(0, 3), [1, 5, 10]);
	assert.deepEqual(await find(10, 8), { kept: 8, missed: undefined, tried: [1, 5, 8] });
	assert.deepEqual(await find(150, 256), { kept: undefined, missed: 1, tried: [1] });
});

test('an engine is tried with streams that it makes chunks for; a try that is longer than the budget is none', async () => {
	await using model = await writeRandomModel({ changes: { fps: 60 } });
	const options = { folder: model.path, profile: 'cpu-fp32', threads: 1 } as const;
	const { fps, steps, isRecorded, kept, missed } = await measureSessions({ ...options, clock: systemClock, budgetMs: 60_000, most: 2 });
	assert.deepEqual([fps, steps, isRecorded], [60, model.spec.default_steps, false]);
	// How many are in time is the machine's business; what did not come at all has no time.
	assert.ok(kept !== undefined || missed !== undefined);
	for (const found of [kept, missed]) {
		assert.ok(found === undefined || (found.sessions <= 2 && (found.p95Ms > 0 || found.lateShare === 1)), JSON.stringify(found));
	}
	await assert.rejects(measureSessions({ ...options, clock: systemClock, budgetMs: 100 }), { message: /a try takes .* s, and --budget is 0\.10 s/u });
});
