/** The line for a place: by itself on a stepped clock, and through a real server. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Engine, EngineState } from '../../src/engine/engine.js';
import type { ChunkTimings } from '../../src/engine/protocol.js';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { Admission, type AdmissionOptions, type QueuePlace, type Ticket, type Wish } from '../../src/server/admission.js';
import { MemoryBudget } from '../../src/server/memory-budget.js';
import { newServerKey } from '../../src/server/keys.js';
import { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine } from './service.js';
import { settle, SteppedClock } from './stepped-clock.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const hasCode = (code: ErrorCode) => (error: unknown): boolean => error instanceof TurbocastError && error.code === code;

/** Chunks of this model last 500 ms; so many milliseconds for each step, and as many for the rest. */
const costing = (msPerStep: number, steps: number): ChunkTimings => ({ queueMs: 1000, textMs: 0, recacheMs: 0, denoiseMs: msPerStep * steps, cleanMs: msPerStep, decodeMs: 0 });

type Door = {
	readonly admission: Admission;
	readonly clock: SteppedClock;
	readonly told: { [name: string]: QueuePlace[] };
	/** Steps that sessions were given while they ran. */
	readonly given: { [name: string]: number[] };
	readonly enter: (name: string, wish?: Partial<Wish>) => Ticket;
	readonly become: (state: EngineState) => void;
};

/** The real model's facts; only the state of the engine is the test's. */
const doorOf = (options: Partial<AdmissionOptions>): Door => {
	const clock = new SteppedClock();
	const { width, height } = machine.engine.model;
	let state: EngineState = machine.engine.state;
	const listeners = new Set<(state: EngineState) => void>();
	const engine = {
		model: machine.engine.model,
		get state() {
			return state;
		},
		onState: (listener: (state: EngineState) => void) => {
			listeners.add(listener);
			return () => void listeners.delete(listener);
		},
	} as unknown as Engine;
	const admission = new Admission({ engine, clock, places: 1, maxWaiting: 4, maxPerKey: 0, maxPerAddress: 0, maxShare: 0.8, usual: { width, height, steps: 4 }, ...options });
	const told: { [name: string]: QueuePlace[] } = {};
	const given: { [name: string]: number[] } = {};
	return {
		admission, clock, told, given,
		enter: (name, wish = {}) => admission.enter({
			keyId: undefined, address: name, steps: 4, width, height, allowFewerSteps: false, onSteps: (steps) => (given[name] ??= []).push(steps), ...wish,
			onQueued: (place) => (told[name] ??= []).push(place),
		}),
		become: (next) => {
			state = next;
			listeners.forEach((listener) => listener(next));
		},
	};
};

test('who comes first is served first, and everyone behind hears of each step forward', async () => {
	const { admission, clock, told, enter } = doorOf({});
	const first = enter('a');
	assert.equal(first.isWaiting, false);
	const [second, third, fourth] = [enter('b'), enter('c'), enter('d')];
	assert.deepEqual([told['a'], told['b'], told['d']], [undefined, [{ position: 1, queueSize: 1, estimatedWaitMs: 10_000 }], [{ position: 3, queueSize: 3, estimatedWaitMs: 30_000 }]]);
	third.release();
	assert.deepEqual(told['d']?.at(-1), { position: 2, queueSize: 2, estimatedWaitMs: 20_000 });
	assert.equal(told['b']?.length, 1, 'nothing changed for who is before');
	await clock.advanceTo(30_000);
	first.release();
	await second.admitted;
	assert.deepEqual([second.isWaiting, fourth.isWaiting], [false, true]);
	assert.deepEqual(told['d']?.at(-1), { position: 1, queueSize: 1, estimatedWaitMs: 16_000 }, 'a longer session makes the next look longer');
	first.release();
	assert.equal(fourth.isWaiting, true, 'a place is given back once');
	assert.deepEqual([admission.taken, admission.free, admission.waiting], [1, 0, 1]);
});

test('the line is bounded; 0 is no line; a server is ready while there is a place in the line', () => {
	const { admission, enter } = doorOf({ maxWaiting: 1 });
	assert.deepEqual([admission.obstacle(), admission.startsAtOnce], [undefined, true]);
	enter('a');
	assert.deepEqual([admission.obstacle(), admission.startsAtOnce], [undefined, false], 'the line has room');
	enter('b');
	const full = admission.obstacle();
	assert.ok(full?.code === 'capacity_exhausted' && full.retryAfterMs === 20_000);
	assert.throws(() => enter('c'), (error) => hasCode('capacity_exhausted')(error) && (error as TurbocastError).retryAfterMs === 20_000);
	const closed = doorOf({ maxWaiting: 0 });
	closed.enter('a');
	assert.equal(closed.admission.obstacle()?.code, 'capacity_exhausted');
	assert.throws(() => closed.enter('b'), hasCode('capacity_exhausted'));
});

test('one key and one address have only so many sessions, running and waiting', () => {
	const { enter } = doorOf({ maxPerKey: 2, maxPerAddress: 3 });
	const first = enter('a', { keyId: 'k' });
	enter('b', { keyId: 'k' });
	assert.throws(() => enter('c', { keyId: 'k' }), hasCode('rate_limited'));
	enter('c', { keyId: 'other' });
	first.release();
	enter('c', { keyId: 'k' });
	enter('c');
	assert.throws(() => enter('c'), hasCode('rate_limited'));
});

test('what fits is what was measured: the share of real time, not only the places', async () => {
	const { admission, enter } = doorOf({ places: 4 });
	const { width, height } = machine.engine.model;
	const first = enter('a');
	// 5 x 50 of 500 ms: half. Two would take all of it.
	admission.observe({ width, height, steps: 4 }, costing(50, 4));
	assert.equal(admission.startsAtOnce, false);
	const second = enter('b');
	assert.equal(second.isWaiting, true);
	assert.equal(enter('z', { steps: 1 }).isWaiting, true, 'nobody passes who waits before');
	for (let chunk = 0; chunk < 20; chunk += 1) {
		admission.observe({ width, height, steps: 4 }, costing(20, 4));
	}
	await second.admitted;
	first.release();
});

/** A stream takes a byte a pixel on the card, and two on this machine. */
const budgetOf = (card: number | undefined, host: number | undefined, configuredBytes?: number): MemoryBudget => new MemoryBudget({
	bytesOf: ({ width, height }) => ({ card: width * height, host: 2 * width * height }), place: 'card', configuredBytes, freeBytes: { card: () => card, host: () => host },
});

test('a session waits until there is memory for its stream, and one for which there never would be is refused with the figures', async () => {
	const { width, height } = machine.engine.model;
	const stream = width * height;
	const places = 8;
	const measured = (door: Door): void => door.admission.observe({ width, height, steps: 4 }, costing(1, 4));
	const door = doorOf({ places, maxWaiting: 1, memory: budgetOf(undefined, undefined, 2.5 * stream) });
	const first = door.enter('a');
	measured(door);
	door.enter('b');
	assert.deepEqual([door.admission.free, door.admission.startsAtOnce], [6, false], 'places are not what lacks');
	const third = door.enter('c');
	assert.equal(third.isWaiting, true);
	assert.throws(() => door.enter('d'), (error) => hasCode('capacity_exhausted')(error) && /streams would take 1 MB of the memory of the graphics card, of 1 MB that they may \(engine\.memory_mb\)/u.test((error as Error).message));
	first.release();
	await third.admitted;
	for (const memory of [budgetOf(undefined, undefined, 0.9 * stream), budgetOf(1.2 * stream, undefined), budgetOf(undefined, 3.9 * stream)]) {
		assert.throws(() => doorOf({ places, memory }).enter('a'), (error) => hasCode('not_enough_memory')(error) && (error as Error).message.includes(`A stream of ${width}x${height} needs 1 MB`));
	}
	// What is measured is measured once; where nobody tells, memory keeps nobody out.
	let asked = 0;
	const memory = new MemoryBudget({ bytesOf: () => ({ card: 0, host: 1 }), place: 'host', freeBytes: { card: () => undefined, host: () => (asked += 1) * 4 } });
	assert.deepEqual([memory.shortage([{ width, height }, { width, height }]), memory.shortage(new Array(3).fill({ width, height }))], [undefined, { place: 'host', neededBytes: 3, budgetBytes: 2 }]);
	assert.equal(asked, 1);
	assert.equal(budgetOf(undefined, undefined).shortage(new Array(1000).fill({ width, height })), undefined);
});

test('a session alone runs however slow it is', () => {
	const { admission, enter } = doorOf({ places: 2 });
	const { width, height } = machine.engine.model;
	const first = enter('a');
	admission.observe({ width, height, steps: 4 }, costing(1000, 4));
	first.release();
	assert.equal(admission.startsAtOnce, true);
	assert.equal(enter('b').isWaiting, false);
});

test('who allows fewer steps gets the most that fit rather than a place in the line', () => {
	const { admission, enter } = doorOf({ places: 4, maxShare: 0.75 });
	const { width, height } = machine.engine.model;
	enter('a');
	admission.observe({ width, height, steps: 4 }, costing(50, 4));
	const second = enter('b', { allowFewerSteps: true });
	assert.deepEqual([second.isWaiting, second.steps], [false, 1], '250 + 100 of 500 ms; 2 steps would need 400 ms and 4 all of it');
	assert.throws(() => second.useSteps(4), hasCode('capacity_exhausted'));
	assert.equal(second.steps, 1);
	assert.equal(enter('c', { allowFewerSteps: true }).isWaiting, true);
});

test('who runs and allows fewer steps gives way before anybody waits, and has them back afterwards', () => {
	const { admission, given, enter } = doorOf({ places: 4 });
	const { width, height } = machine.engine.model;
	const first = enter('a', { allowFewerSteps: true });
	// 4 steps take 5 x 40 of 500 ms, 2 take 120 ms, 1 takes 80; 400 ms may be taken.
	admission.observe({ width, height, steps: 4 }, costing(40, 4));
	const second = enter('b');
	assert.deepEqual([second.isWaiting, second.steps, given['a']], [false, 4, undefined]);
	const third = enter('c');
	assert.deepEqual([third.isWaiting, third.steps, first.steps], [true, 4, 4], 'a and b take it all: even with a at 1 step c does not fit, and then nobody gives way for nothing');
	third.release();
	const modest = enter('d', { steps: 1, allowFewerSteps: true });
	assert.deepEqual([modest.isWaiting, first.steps, given['a']], [false, 2, [2]]);
	second.release();
	assert.deepEqual([first.steps, given['a']], [4, [2, 4]], 'there is room again');
	assert.equal(admission.share <= 0.8, true);
});

test('until the first chunk is measured one session runs alone; the next waits for that and no longer', async () => {
	const { admission, told, enter } = doorOf({ places: 3, maxWaiting: 0 });
	const { width, height } = machine.engine.model;
	enter('a');
	const [second, third] = [enter('b'), enter('c')];
	assert.deepEqual([second.isWaiting, told['b']?.[0]?.estimatedWaitMs], [true, 1000]);
	assert.throws(() => enter('d'), hasCode('capacity_exhausted'), 'there are three places');
	// Half of real time: two would take all of it.
	admission.observe({ width, height, steps: 4 }, costing(50, 4));
	await assert.rejects(second.admitted, hasCode('capacity_exhausted'));
	await assert.rejects(third.admitted, hasCode('capacity_exhausted'));
	const quick = doorOf({ places: 3, maxWaiting: 0 });
	quick.enter('a');
	const [next, last] = [quick.enter('b'), quick.enter('c')];
	quick.admission.observe({ width, height, steps: 4 }, costing(10, 4));
	await Promise.all([next.admitted, last.admitted]);
});

test('through the server: one address has only so many connections, and a trusted proxy says which it is', async () => {
	await using service = await startService(machine, { maxConnectionsPerAddress: 2, trustedProxies: ['127.0.0.1'] });
	const from = (address: string): ControlClient => new ControlClient(service.socketUrl, undefined, { headers: { 'x-forwarded-for': address } });
	const [one, two] = [from('192.0.2.1'), from('192.0.2.1')];
	await Promise.all([one.next('session.created'), two.next('session.created')]);
	const many = from('192.0.2.1');
	assert.equal((await many.next('error')).code, 'rate_limited');
	assert.equal((await many.closed).code, 4429);
	await from('192.0.2.2').next('session.created');
	one.socket.terminate();
	await one.closed;
	for (;;) {
		const again = from('192.0.2.1');
		if ((await Promise.race([again.next('session.created').catch(() => undefined), again.next('error').catch(() => undefined)]))?.type === 'session.created') {
			return;
		}
		await again.closed;
	}
});

test('while the engine restarts the line stands; when it is back it moves; when it is given up it ends', async () => {
	const { enter, become } = doorOf({});
	const first = enter('a');
	const [second, third] = [enter('b'), enter('c')];
	const ready = machine.engine.state;
	become({ kind: 'restarting', error: new TurbocastError('engine_failed', 'It died.') } as EngineState);
	assert.throws(() => enter('d'), hasCode('not_ready'));
	first.release();
	await settle();
	assert.equal(second.isWaiting, true);
	become(ready);
	await second.admitted;
	become({ kind: 'failed', error: new TurbocastError('engine_failed', 'It cannot be started.') });
	await assert.rejects(third.admitted, hasCode('engine_failed'));
});

const START = { type: 'session.start', event_id: 's', prompt: 'a cat' };

test('through the server: a session waits, is told, takes changes, and starts with them when the place is free', async () => {
	await using service = await startService(machine, { maxSessions: 1, maxWaiting: 2, startTimeoutMs: 1_000_000 });
	const first = await service.connect();
	first.send(START);
	await first.next('session.ready');
	const second = await service.connect();
	second.send(START);
	const queued = await second.next('session.queued');
	assert.deepEqual([queued.position, queued.queue_size], [1, 1]);
	assert.equal((await second.refusalOf(START)).code, 'invalid_state');
	second.send({ type: 'session.update', event_id: 'u', prompt: 'a dog', parameters: { steps: 1 } });
	assert.equal((await second.next('event.accepted')).event_id, 'u');
	const third = await service.connect();
	third.send(START);
	assert.equal((await third.next('session.queued')).position, 2);
	const fourth = await service.connect();
	const refused = await fourth.refusalOf(START);
	assert.ok(refused.code === 'capacity_exhausted' && refused.retry_after_ms !== undefined);
	assert.equal((await fetch(`${service.url}readyz`)).status, 503);
	assert.match(await (await fetch(`${service.url}metrics`)).text(), /^turbocast_sessions_waiting 2$/mu);
	first.send({ type: 'session.stop' });
	assert.equal((await second.next('session.ready')).steps, 1);
	assert.deepEqual([(await second.next('event.applied')).event_id, (await second.next('event.applied')).event_id], ['s', 'u']);
	assert.equal((await third.next('session.queued')).position, 1);
});

test('through the server: who closes or stops leaves the line, and the next moves up', async () => {
	await using service = await startService(machine, { maxSessions: 1, maxWaiting: 4 });
	const clients: ControlClient[] = [];
	for (let index = 0; index < 4; index += 1) {
		const client = await service.connect();
		client.send(START);
		await client.next(index === 0 ? 'session.ready' : 'session.queued');
		clients.push(client);
	}
	const [first, second, third, fourth] = clients as [ControlClient, ControlClient, ControlClient, ControlClient];
	second.socket.terminate();
	assert.equal((await fourth.next('session.queued')).position, 2);
	third.send({ type: 'session.stop' });
	assert.equal((await third.closed).code, 1000);
	assert.equal((await fourth.next('session.queued')).position, 1);
	first.socket.terminate();
	await fourth.next('session.ready');
});

test('through the server: nobody is late who waits; a shutdown ends the line with draining', async () => {
	await using service = await startService(machine, { maxSessions: 1, maxWaiting: 1, startTimeoutMs: 3000 });
	const first = await service.connect();
	first.send(START);
	await first.next('session.ready');
	const second = await service.connect();
	second.send(START);
	await second.next('session.queued');
	const idle = await service.connect();
	assert.equal((await idle.next('error')).code, 'start_timeout', 'which proves that the time has passed');
	assert.equal(await second.isAlive(), true);
	await service[Symbol.asyncDispose]();
	assert.equal((await second.next('error')).code, 'draining');
	assert.equal((await second.closed).code, 1013);
});

test('through the server: the secrets of one key share its limit', async () => {
	const [key, other] = [newServerKey(), newServerKey()];
	// However slow the machine is: it is not time that the second key is to be short of.
	await using service = await startService(machine, { maxSessionsPerKey: 1, maxEngineShare: Infinity }, undefined, { keys: [key, other] });
	const open = async (credential: string): Promise<ControlClient> => {
		const client = new ControlClient(service.socketUrl, undefined, { headers: { authorization: `Bearer ${credential}` } });
		await client.next('session.created');
		client.send(START);
		return client;
	};
	await (await open(key)).next('session.ready');
	const minted = await fetch(new URL('/v1/realtime/client_secrets', service.url), { method: 'POST', headers: { authorization: `Bearer ${key}` } });
	const { value } = (await minted.json()) as { value: string };
	assert.equal((await (await open(value)).next('error')).code, 'rate_limited');
	await (await open(other)).next('session.ready');
});
