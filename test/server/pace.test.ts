/** What a session does over a long time, and when generation cannot keep up: delays that stay, and a picture that slows down instead of halting. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomNumbers } from '../media/pacer-simulation.js';
import { simulateSession, type SimulatedSession } from './simulated-session.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const INTERVAL_MS = 1000 / 16;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Delays of the changes that were applied in a span of time. */
const delays = (session: SimulatedSession, fromMs: number, toMs: number): number[] =>
	session.all('event.applied').filter((applied) => applied.media_ms >= fromMs && applied.media_ms < toMs).map((applied) => applied.server_latency_ms);

const gapsOf = (sentAtMs: readonly number[]): number[] => sentAtMs.slice(1).map((atMs, index) => atMs - (sentAtMs[index] ?? atMs));

test('an hour with a model at three times real time: a change is seen as soon in the last minute as in the first', async () => {
	const random = randomNumbers(3);
	await using session = await simulateSession(() => (500 / 3) * (0.9 + 0.3 * random()));
	// Changes come at every moment of a chunk, each once a minute.
	const everyMs = (MINUTE_MS + 500) / 60;
	for (let atMs = everyMs, count = 0; atMs < HOUR_MS; atMs += everyMs, count += 1) {
		await session.advanceTo(atMs);
		session.change(`change-${count}`);
	}
	await session.advanceTo(HOUR_MS + 2000);
	const minutes = Array.from({ length: 60 }, (_, minute) => delays(session, minute * MINUTE_MS, (minute + 1) * MINUTE_MS));
	assert.ok(minutes.every((values) => values.length >= 58), 'every minute has its changes');
	console.log(minutes.map((m) => mean(m).toFixed(0)).join(' '));
	const [first = [], last = []] = [minutes[0], minutes.at(-1)];
	assert.ok(Math.abs(mean(last) / mean(first) - 1) < 0.1, `mean ${mean(last)} ms in the last minute, ${mean(first)} in the first`);
	assert.ok(Math.abs(median(last) / median(first) - 1) < 0.1, `median ${median(last)} ms in the last minute, ${median(first)} in the first`);
	const worst = Math.max(...minutes.map((values) => mean(values)));
	assert.ok(worst < 1.1 * mean(first), `mean ${worst} ms in the worst minute`);
	const chunks = session.all('chunk.completed');
	assert.ok(Math.abs(chunks.length - HOUR_MS / 500) < 5, `${chunks.length} chunks`);
	assert.ok(chunks.every((chunk) => chunk.lead_ms < 600 && !chunk.deadline_missed));
	assert.deepEqual(session.all('pacing.updated'), []);
	// The media clock is that of the wall: 57 600 pictures, none early or late.
	assert.ok(Math.abs(session.sentAtMs.length - (HOUR_MS + 2000) / INTERVAL_MS) < 10, `${session.sentAtMs.length} pictures`);
	assert.ok(Math.max(...gapsOf(session.sentAtMs)) < 2 * INTERVAL_MS);
});

test('generation that falls behind: the picture slows down step by step and says so, and is told again when it has recovered', async () => {
	// A chunk of half a second takes 200 ms, then ever longer up to 800 ms, and 200 ms again.
	const [slowAtMs, slowestAtMs, overAtMs, endMs] = [20_000, 40_000, 80_000, 120_000];
	const takesMs = (nowMs: number): number => (nowMs < slowAtMs || nowMs > overAtMs ? 200 : 200 + 600 * Math.min(1, (nowMs - slowAtMs) / (slowestAtMs - slowAtMs)));
	const random = randomNumbers(4);
	await using session = await simulateSession((_, nowMs) => takesMs(nowMs) * (0.95 + 0.1 * random()));
	// Twenty changes come at twenty moments of a chunk.
	const everyMs = 525;
	for (let atMs = everyMs; atMs < endMs; atMs += everyMs) {
		await session.advanceTo(atMs);
		session.change(`at-${atMs}`);
	}
	await session.advanceTo(endMs);

	const told = session.all('pacing.updated');
	assert.deepEqual(told.map(({ reason }) => reason), ['behind', 'recovered'], 'said once each');
	const [behind, recovered] = told;
	assert.ok(behind !== undefined && behind.fps < 0.95 * 16 && behind.fps > 0.8 * 16, `told at ${behind?.fps} frames a second: at once, not when it was at its worst`);
	assert.ok(recovered !== undefined && recovered.fps >= 0.99 * 16);

	const gaps = gapsOf(session.sentAtMs);
	// What generation can do is 10 frames a second: 100 ms apart, stretched by a quarter at most.
	assert.ok(Math.max(...gaps) < 1.25 * 100 + 2 * INTERVAL_MS, `the picture stood for ${Math.max(...gaps)} ms`);
	const perSecond = Array.from({ length: endMs / 1000 }, (_, second) => session.sentAtMs.filter((atMs) => atMs >= second * 1000 && atMs < (second + 1) * 1000).length);
	const drops = perSecond.slice(1).map((count, index) => (perSecond[index] ?? count) - count);
	assert.ok(Math.max(...drops) <= 3, `from one second to the next ${Math.max(...drops)} pictures fewer`);
	const slow = perSecond.slice(slowestAtMs / 1000 + 5, overAtMs / 1000 - 1);
	assert.ok(slow.every((count) => count >= 8 && count <= 11), `when it is slow: ${slow.join(' ')}`);
	assert.ok(mean(slow) > 9.5, 'all that generation can do is shown');
	assert.ok(mean(perSecond.slice(-20)) > 15.9, 'full speed in the end');

	// It never piles up: but for the chunk whose sudden speed nobody could foresee nothing waits longer than the lead, and afterwards a change is as soon as before.
	assert.ok(session.all('chunk.completed').filter((chunk) => chunk.lead_ms > 1000).length <= 1);
	const before = delays(session, slowAtMs - 20 * everyMs, slowAtMs);
	const after = session.all('event.applied').slice(-20).map((applied) => applied.server_latency_ms);
	assert.ok(mean(after) < 1.15 * mean(before), `${mean(after)} ms after, ${mean(before)} before`);
});
