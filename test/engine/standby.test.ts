/** A second engine process that waits: it takes over, is replaced, is given up, and is never left behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Log } from '../../src/base/log.js';
import { systemClock, type Clock } from '../../src/base/time.js';
import { EngineHost } from '../../src/engine/engine-host.js';
import { HEARTBEAT_INTERVAL_MS } from '../../src/engine/protocol.js';
import { RESTART_POLICY } from '../../src/engine/restart-policy.js';
import { STANDBY_LEAST_FREE_BYTES, wantsStandby } from '../../src/engine/standby.js';
import { writeRandomModel, type RandomModel } from '../model/random-model.js';

type Line = { readonly message: string; readonly fields: { readonly pid?: number; readonly why?: string } };

/** What an engine logs, and a wait for the next line of a kind. */
const recorder = () => {
	const lines: Line[] = [];
	let wake: () => void = () => undefined;
	const write = (fields: object, message: string): void => {
		lines.push({ message, fields });
		wake();
	};
	const log: Log = { error: write, warn: write, info: write, debug: write, child: () => log };
	let seen = 0;
	const next = async (message: string): Promise<Line['fields']> => {
		for (;;) {
			const index = lines.findIndex((line, at) => at >= seen && line.message === message);
			if (index >= 0) {
				seen = index + 1;
				return lines[index]?.fields ?? {};
			}
			await new Promise<void>((resolve) => (wake = resolve));
		}
	};
	return { log, lines, next };
};

/** The usual clock, but nobody waits longer than a moment, except those who count heartbeats. */
const hasty: Clock = { nowMs: systemClock.nowMs, sleep: (delayMs, signal) => systemClock.sleep(delayMs === HEARTBEAT_INTERVAL_MS ? delayMs : Math.min(delayMs, 20), signal) };

const start = (model: RandomModel, log: Log, clock: Clock = hasty) =>
	EngineHost.start({ modelFolder: model.path, profile: 'cpu-fp32', threads: 1, log, clock, standby: 'on' });

const processes = (): number => process.getActiveResourcesInfo().filter((name) => name === 'ProcessWrap').length;

const noProcessLeft = async (): Promise<void> => {
	while (processes() > 0) {
		await systemClock.sleep(5);
	}
};

const pidOf = ({ state }: EngineHost): number => (state.kind === 'ready' ? state.pid : assert.fail(`the engine is ${state.kind}`));

test('the engine is lost: the standby is at work in the same breath, goes on bit for bit, and is replaced', async () => {
	await using model = await writeRandomModel();
	const { log, next } = recorder();
	const engine = await start(model, log);
	const standby = (await next('Standby engine ready.')).pid ?? 0;
	const options = { seed: 7, width: model.spec.width, height: model.spec.height, keepsSnapshot: true };
	const inputs = { prompt: 'a cat jumps', steps: 2, controls: {} };
	const stream = await engine.openStream(options);
	const pictures = async (from: typeof stream): Promise<string[]> => {
		const frames: string[] = [];
		for await (const frame of from.generate(inputs).frames) {
			frames.push(Buffer.from(frame.data).toString('base64'));
		}
		return frames;
	};
	await pictures(stream);
	const { snapshot } = stream;
	const expected = await pictures(stream);
	const states: string[] = [];
	const settled = new Promise<void>((resolve) => {
		engine.onState(({ kind }) => {
			states.push(kind);
			if (kind === 'ready') {
				resolve();
			}
		});
	});
	assert.notEqual(pidOf(engine), standby);
	process.kill(pidOf(engine), 'SIGKILL');
	assert.equal((await next('Engine process lost; the standby takes over.')).why, 'it was ended by SIGKILL');
	await settled;
	assert.deepEqual([states, pidOf(engine)], [['restarting', 'ready'], standby]);
	assert.ok(snapshot !== undefined);
	assert.deepEqual(await pictures(await engine.openStream({ ...options, restore: snapshot })), expected);
	assert.notEqual((await next('Standby engine ready.')).pid, standby);
	await engine.close();
	await noProcessLeft();
});

test('a standby that still loads is taken too, rather than started twice', async () => {
	await using model = await writeRandomModel();
	const { log, next, lines } = recorder();
	const engine = await start(model, log);
	await engine.ready();
	while (processes() < 2) {
		await systemClock.sleep(1);
	}
	process.kill(pidOf(engine), 'SIGKILL');
	await next('Engine process lost; the standby takes over.');
	assert.equal(engine.state.kind, 'restarting');
	await engine.ready();
	assert.ok(!lines.some(({ message }) => message === 'Standby engine ready.'));
	await engine.close();
	await noProcessLeft();
});

test('a standby that dies is replaced without a word to the streams; one that dies again and again is given up', async () => {
	await using model = await writeRandomModel();
	const { log, next } = recorder();
	const engine = await start(model, log);
	await engine.ready();
	const pid = pidOf(engine);
	const states: string[] = [];
	engine.onState(({ kind }) => states.push(kind));
	for (let death = 1; death <= RESTART_POLICY.maxCrashes; death += 1) {
		process.kill((await next('Standby engine ready.')).pid ?? 0, 'SIGKILL');
		await next(death < RESTART_POLICY.maxCrashes ? 'Standby engine lost; starting another.' : 'The standby engine stops again and again; going on without one.');
	}
	assert.deepEqual([states, pidOf(engine)], [[], pid]);
	process.kill(pid, 'SIGKILL');
	await next('Engine process lost; starting another.');
	await engine.ready();
	await engine.close();
	await noProcessLeft();
});

test('closing before the standby is begun, while it loads, and when it is there leaves no process', async () => {
	await using model = await writeRandomModel();
	for (const enough of [1, 2, 3]) {
		const { log, next } = recorder();
		const engine = await start(model, log, enough === 1 ? systemClock : hasty);
		await engine.ready();
		while (processes() < Math.min(enough, 2)) {
			await systemClock.sleep(1);
		}
		if (enough === 3) {
			await next('Standby engine ready.');
		}
		await Promise.all([engine.close(), engine.close()]);
		await noProcessLeft();
	}
});

test('one is kept of small models where there is memory, and of any where it is wanted', async () => {
	await using model = await writeRandomModel();
	const published = { ...model.spec, format: 2 } as unknown as typeof model.spec;
	assert.deepEqual([
		wantsStandby('auto', model.spec, STANDBY_LEAST_FREE_BYTES), wantsStandby('auto', model.spec, STANDBY_LEAST_FREE_BYTES - 1),
		wantsStandby('auto', published, 1e12), wantsStandby('on', published, 0), wantsStandby('off', model.spec, 1e12),
	], [true, false, false, true, false]);
});
