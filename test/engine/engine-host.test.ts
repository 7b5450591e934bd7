import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { RawFrame } from '../../src/base/frame.js';
import { i420Bytes } from '../../src/base/frame.js';
import { silentLog, type Log } from '../../src/base/log.js';
import { systemClock, type Clock } from '../../src/base/time.js';
import type { EngineProcessOptions } from '../../src/engine/engine-child.js';
import { EngineHost } from '../../src/engine/engine-host.js';
import type { ChunkRun, Engine, EngineState } from '../../src/engine/engine.js';
import { PUBLISHED } from '../../src/engine/patience.js';
import { HEARTBEAT_INTERVAL_MS } from '../../src/engine/protocol.js';
import { RESTART_POLICY } from '../../src/engine/restart-policy.js';
import { framesPerChunk } from '../../src/model/spec.js';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { writeRandomModel, type RandomModel } from '../model/random-model.js';

const INPUTS = { prompt: 'a cat jumps', steps: 2, controls: {} };
const hasCode = (code: ErrorCode) => (error: unknown): boolean => error instanceof TurbocastError && error.code === code;

const startEngine = async (model: RandomModel, clock: Clock = systemClock, log: Log = silentLog, maxStreams?: number): Promise<EngineHost & AsyncDisposable> => {
	const engine = await EngineHost.start({ modelFolder: model.path, profile: 'cpu-fp32', threads: 1, maxStreams, log, clock });
	return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
};

const sizeOf = ({ spec }: RandomModel): { width: number; height: number } => ({ width: spec.width, height: spec.height });

const readAll = async (run: ChunkRun): Promise<RawFrame[]> => {
	const frames: RawFrame[] = [];
	for await (const frame of run.frames) {
		frames.push(frame);
	}
	return frames;
};

/** Resolves when the engine is in a state of that kind. */
const inState = (engine: Engine, kind: EngineState['kind']): Promise<EngineState> =>
	new Promise((resolve) => {
		const look = (state: EngineState): void => {
			if (state.kind === kind) {
				stop();
				resolve(state);
			}
		};
		const stop = engine.onState(look);
		look(engine.state);
	});

const pidOf = (engine: Engine): number => (engine.state.kind === 'ready' ? engine.state.pid : assert.fail(`the engine is ${engine.state.kind}`));

const isAlive = (pid: number): boolean => {
	try {
		process.kill(pid, 0);
		return true;
	} catch {
		return false;
	}
};

/** A clock that goes when it is told to. */
const steppedClock = (): Clock & { readonly step: (ms: number) => void } => {
	let nowMs = 0;
	const sleepers = new Set<{ readonly untilMs: number; readonly wake: () => void }>();
	return {
		nowMs: () => nowMs,
		sleep: (delayMs, signal) =>
			new Promise((resolve, reject) => {
				const sleeper = { untilMs: nowMs + delayMs, wake: resolve };
				sleepers.add(sleeper);
				signal?.addEventListener('abort', () => {
					sleepers.delete(sleeper);
					reject(signal.reason as Error);
				});
			}),
		step: (ms) => {
			nowMs += ms;
			for (const sleeper of [...sleepers].filter(({ untilMs }) => untilMs <= nowMs)) {
				sleepers.delete(sleeper);
				sleeper.wake();
			}
		},
	};
};

test('a stream over the process border: frames in order and counted, timings, and the next chunk', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	assert.equal(engine.state.kind, 'starting');
	await engine.ready();
	const stream = await engine.openStream({ seed: 7, ...sizeOf(model) });
	for (let chunk = 0; chunk < 2; chunk++) {
		const run = stream.generate(INPUTS);
		const frames = await readAll(run);
		const count = framesPerChunk(model.spec);
		assert.deepEqual(frames.map(({ frameId }) => frameId), Array.from({ length: count }, (_, index) => chunk * count + index));
		assert.deepEqual(frames.map(({ indexInChunk }) => indexInChunk), Array.from({ length: count }, (_, index) => index));
		assert.ok(frames.every((frame) => frame.chunkIndex === chunk && frame.data.length === i420Bytes(model.spec.width, model.spec.height)));
		assert.ok(Object.values(await run.timings).every((ms) => ms >= 0));
	}
	assert.equal(stream.nextChunkIndex, 2);
});

test('kill -9 in mid-chunk: the chunk fails, the engine restarts, and a new stream goes on, the same from any process', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	await engine.ready();
	const first = await engine.openStream({ seed: 7, ...sizeOf(model) });
	const before = await readAll(first.generate(INPUTS));
	const states: string[] = [];
	engine.onState((state) => states.push(state.kind));
	const pid = pidOf(engine);
	const run = first.generate(INPUTS);
	const reading = readAll(run);
	process.kill(pid, 'SIGKILL');
	await assert.rejects(reading, hasCode('engine_failed'));
	await assert.rejects(run.timings, hasCode('engine_failed'));
	await assert.rejects(engine.openStream({ seed: 7, ...sizeOf(model) }), hasCode('not_ready'));
	await engine.ready();
	assert.deepEqual(states, ['restarting', 'ready']);
	assert.notEqual(pidOf(engine), pid);
	await assert.rejects(readAll(first.generate(INPUTS)), hasCode('engine_failed'));

	const second = await engine.openStream({ seed: 7, ...sizeOf(model) });
	assert.deepEqual((await readAll(second.generate(INPUTS))).map(({ data }) => data), before.map(({ data }) => data));
	const goingOn = await engine.openStream({ seed: 7, ...sizeOf(model), firstChunkIndex: 1, firstFrameId: before.length });
	const frames = await readAll(goingOn.generate(INPUTS));
	assert.deepEqual([frames[0]?.frameId, frames[0]?.chunkIndex], [before.length, 1]);
});

test('a process that dies again and again is given up with a reason', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	for (let crash = 0; crash < RESTART_POLICY.maxCrashes; crash++) {
		await engine.ready();
		const pid = pidOf(engine);
		const lost = new Promise<void>((resolve) => {
			const stop = engine.onState(() => {
				stop();
				resolve();
			});
		});
		process.kill(pid, 'SIGKILL');
		await lost;
	}
	assert.equal(engine.state.kind, 'failed');
	await assert.rejects(engine.ready(), hasCode('engine_failed'));
	await assert.rejects(engine.openStream({ seed: 7, ...sizeOf(model) }), hasCode('not_ready'));
});

test('a process that hangs is noticed by its silence, killed and replaced', async () => {
	await using model = await writeRandomModel();
	const clock = steppedClock();
	await using engine = await startEngine(model, clock);
	const pump = setInterval(() => clock.step(1), 1);
	await engine.ready();
	clearInterval(pump);
	const pid = pidOf(engine);
	const run = (await engine.openStream({ seed: 7, ...sizeOf(model) })).generate(INPUTS);
	process.kill(pid, 'SIGSTOP');
	const failed = assert.rejects(readAll(run), hasCode('engine_failed'));
	while (engine.state.kind === 'ready') {
		clock.step(HEARTBEAT_INTERVAL_MS);
		await new Promise((resolve) => setImmediate(resolve));
	}
	await failed;
	assert.equal(isAlive(pid), false);
	clock.step(RESTART_POLICY.maxDelayMs);
	await engine.ready();
	assert.notEqual(pidOf(engine), pid);
});

test('a process with a published model that hangs is noticed once what its chunks take is known', async () => {
	using model = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv' });
	const clock = steppedClock();
	const engine = await EngineHost.start({ modelFolder: model.path, profile: 'cpu-fp32', threads: 1, log: silentLog, clock });
	try {
		const pump = setInterval(() => clock.step(1), 1);
		await engine.ready();
		const stream = await engine.openStream({ seed: 7, width: 48, height: 32 });
		await readAll(stream.generate({ ...INPUTS, steps: 1 }));
		clearInterval(pump);
		const pid = pidOf(engine);
		process.kill(pid, 'SIGSTOP');
		const failed = assert.rejects(readAll(stream.generate({ ...INPUTS, steps: 1 })), hasCode('engine_failed'));
		while (engine.state.kind === 'ready') {
			clock.step(HEARTBEAT_INTERVAL_MS);
			await new Promise((resolve) => setImmediate(resolve));
		}
		await failed;
		const { state } = engine;
		assert.match(state.kind === 'restarting' ? state.error.message : '', new RegExp(`not been heard of for ${PUBLISHED.leastMs / 1000} seconds`, 'u'));
		assert.equal(isAlive(pid), false);
	} finally {
		await engine.close();
	}
});

test('cancelling stops within a step, and the next chunk is as if the cancelled one had never been', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	await engine.ready();
	const [plain, cancelled] = [await engine.openStream({ seed: 7, ...sizeOf(model) }), await engine.openStream({ seed: 7, ...sizeOf(model) })];
	const expected = [await readAll(plain.generate(INPUTS)), await readAll(plain.generate(INPUTS))];
	await readAll(cancelled.generate(INPUTS));
	const controller = new AbortController();
	const reason = new Error('the prompt was edited');
	const run = cancelled.generate({ ...INPUTS, prompt: 'the dog', steps: 4 }, controller.signal);
	controller.abort(reason);
	await assert.rejects(readAll(run), reason);
	assert.equal(cancelled.nextChunkIndex, 1);
	assert.deepEqual((await readAll(cancelled.generate(INPUTS))).map(({ data }) => data), expected[1]?.map(({ data }) => data));
});

test('prompts of every kind give frames, and what the model cannot do is refused without harm', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	await engine.ready();
	const stream = await engine.openStream({ seed: 7, ...sizeOf(model) });
	for (const prompt of ['', 'a cat '.repeat(1700), '🐱\u0000', 'a \ud800 cat']) {
		engine.prepare(prompt);
		assert.equal((await readAll(stream.generate({ ...INPUTS, prompt }))).length, framesPerChunk(model.spec));
	}
	await assert.rejects(readAll(stream.generate({ ...INPUTS, steps: 3 })), hasCode('invalid_request'));
	await assert.rejects(readAll(stream.generate({ ...INPUTS, controls: { jump: 1 } })), hasCode('invalid_request'));
	assert.equal((await readAll(stream.generate(INPUTS))).length, framesPerChunk(model.spec));
});

test('one log line per turn of an engine\'s life, and no prompt in any of them', async () => {
	await using model = await writeRandomModel();
	const lines: string[] = [];
	const write = (level: string) => (fields: object, message: string): void => void lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
	const log: Log = { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug'), child: () => log };
	{
		await using engine = await startEngine(model, systemClock, log);
		await engine.ready();
		const stream = await engine.openStream({ seed: 7, ...sizeOf(model) });
		engine.prepare('a confidential cat');
		await readAll(stream.generate({ ...INPUTS, prompt: 'a confidential cat' }));
		await assert.rejects(readAll(stream.generate({ ...INPUTS, prompt: 'a confidential cat', steps: 3 })));
		// Stopped first, so that it cannot be done before it is killed.
		process.kill(pidOf(engine), 'SIGSTOP');
		const lost = assert.rejects(readAll(stream.generate({ ...INPUTS, prompt: 'a confidential cat' })));
		process.kill(pidOf(engine), 'SIGKILL');
		await lost;
		await engine.ready();
	}
	assert.deepEqual(lines.map((line) => line.slice(0, line.indexOf('.'))), ['info Engine ready', 'warn Engine process lost; starting another', 'info Engine ready', 'info Engine closed']);
	assert.ok(!lines.some((line) => line.includes('confidential')));
});

test('words that the model does not know are told as they were written, without asking the process', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	assert.deepEqual(engine.unknownWords('a cat on the Zeppelin'), ['Zeppelin']);
	assert.deepEqual(engine.unknownWords(''), []);
});

test('streams that cannot be are refused: size, seed, indices, one too many', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model, systemClock, silentLog, 3);
	await assert.rejects(engine.openStream({ seed: 7, ...sizeOf(model) }), hasCode('not_ready'));
	await engine.ready();
	for (const options of [
		{ seed: 7, width: 50, height: 32 }, { seed: -1, ...sizeOf(model) }, { seed: 2 ** 32, ...sizeOf(model) }, { seed: 0.5, ...sizeOf(model) },
		{ seed: 7, ...sizeOf(model), firstChunkIndex: -1 }, { seed: 7, ...sizeOf(model), firstFrameId: Number.NaN },
	]) {
		await assert.rejects(engine.openStream(options), hasCode('invalid_request'), JSON.stringify(options));
	}
	const streams = await Promise.all(Array.from({ length: 3 }, () => engine.openStream({ seed: 7, ...sizeOf(model) })));
	await assert.rejects(engine.openStream({ seed: 7, ...sizeOf(model) }), hasCode('capacity_exhausted'));
	await streams[0]?.close();
	await engine.openStream({ seed: 7, ...sizeOf(model) });
});

test('a size other than the default one works too, and streams of both sizes live side by side', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	await engine.ready();
	const [wide, square] = [await engine.openStream({ seed: 7, ...sizeOf(model) }), await engine.openStream({ seed: 7, width: 32, height: 32 })];
	const [a, b] = await Promise.all([readAll(wide.generate(INPUTS)), readAll(square.generate(INPUTS))]);
	assert.deepEqual([a[0]?.data.length, b[0]?.data.length], [i420Bytes(48, 32), i420Bytes(32, 32)]);
});

test('a flipped bit in a weight file: the engine has failed for good with weights_corrupt, and is not started again', async () => {
	for (const which of ['text', 'dit', 'vae'] as const) {
		await using model = await writeRandomModel();
		const path = join(model.path, model.spec.files[which].file);
		const bytes = await readFile(path);
		const at = bytes.length - 3;
		bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
		await writeFile(path, bytes);
		await using engine = await startEngine(model);
		await assert.rejects(engine.ready(), (error) => hasCode('weights_corrupt')(error) && (error as Error).message.includes(model.spec.files[which].file));
		assert.equal((await inState(engine, 'failed')).kind, 'failed');
	}
});

test('a weight file that was cut short is told before a process is started', async () => {
	await using model = await writeRandomModel();
	await truncate(join(model.path, model.spec.files.dit.file), 1000);
	await assert.rejects(startEngine(model), hasCode('weights_corrupt'));
	await assert.rejects(EngineHost.start({ modelFolder: join(model.path, 'nowhere'), profile: 'cpu-fp32', threads: 1, log: silentLog, clock: systemClock }), hasCode('model_not_found'));
});

test('closing is idempotent, ends what is open, and leaves no process', async () => {
	await using model = await writeRandomModel();
	const engine = await startEngine(model);
	await engine.ready();
	const pid = pidOf(engine);
	const stream = await engine.openStream({ seed: 7, ...sizeOf(model) });
	const run = stream.generate({ ...INPUTS, steps: 4 });
	const failed = assert.rejects(readAll(run), hasCode('engine_failed'));
	await Promise.all([engine.close(), engine.close()]);
	await failed;
	assert.equal(engine.state.kind, 'closed');
	assert.equal(isAlive(pid), false);
	await assert.rejects(engine.ready(), hasCode('draining'));
	await assert.rejects(engine.openStream({ seed: 7, ...sizeOf(model) }), hasCode('not_ready'));
	engine.prepare('a cat');
	await stream.close();
});

test('closing while the engine loads or waits to restart leaves no process either', { timeout: 30_000 }, async () => {
	await using model = await writeRandomModel();
	const loading = await startEngine(model);
	const refused = assert.rejects(loading.ready(), hasCode('draining'));
	await loading.close();
	await refused;
	const clock = steppedClock();
	const restarting = await startEngine(model, clock);
	await restarting.ready();
	process.kill(pidOf(restarting), 'SIGKILL');
	await inState(restarting, 'restarting');
	await restarting.close();
	assert.equal(restarting.state.kind, 'closed');
	clock.step(RESTART_POLICY.maxDelayMs);
	// A process that has ended is listed for a few turns more; one that was left behind is listed for ever.
	while (process.getActiveResourcesInfo().includes('ProcessWrap')) {
		await new Promise((resolve) => setTimeout(resolve, 5));
	}
});

test('waiting for the engine can be given up', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	const reason = new Error('no longer wanted');
	await assert.rejects(engine.ready(AbortSignal.abort(reason)), reason);
	const controller = new AbortController();
	const waiting = engine.ready(controller.signal);
	controller.abort(reason);
	await assert.rejects(waiting, reason);
	await engine.ready();
});

test('every option of an engine reaches its process', { skip: process.platform === 'linux' ? false : 'what a process was started with is read from /proc' }, async () => {
	await using model = await writeRandomModel();
	const options: Required<EngineProcessOptions> = {
		modelFolder: model.path, profile: 'cpu-fp32', threads: 2, batch: 2, maxStreams: 7, kernels: true, recordsForwards: true, residency: 'one', loadsAhead: false,
		embeddingCache: { folder: join(model.path, 'embeddings'), maxBytes: 1000 },
	};
	const engine = await EngineHost.start({ ...options, log: silentLog, clock: systemClock });
	try {
		await engine.ready();
		const line = await readFile(`/proc/${pidOf(engine)}/cmdline`, 'utf8');
		assert.deepEqual(JSON.parse(line.split('\0').find((part) => part.startsWith('{')) ?? ''), options);
	} finally {
		await engine.close();
	}
});

test('Ctrl-C, which reaches every process of the group, does not end the engine: its parent does', async () => {
	await using model = await writeRandomModel();
	await using engine = await startEngine(model);
	await engine.ready();
	const pid = pidOf(engine);
	process.kill(pid, 'SIGINT');
	process.kill(pid, 'SIGTERM');
	const stream = await engine.openStream({ seed: 7, ...sizeOf(model) });
	assert.equal((await readAll(stream.generate(INPUTS))).length, framesPerChunk(model.spec));
	assert.equal(pidOf(engine), pid);
});

test('an engine whose parent is killed ends by itself', async () => {
	await using model = await writeRandomModel();
	const parent = fork(fileURLToPath(new URL('./engine-parent.js', import.meta.url)), [model.path], { execArgv: [] });
	const pid = await new Promise<number>((resolve) => parent.once('message', (message) => resolve(message as number)));
	assert.ok(isAlive(pid));
	const gone = new Promise<void>((resolve) => parent.once('exit', () => resolve()));
	parent.kill('SIGKILL');
	await gone;
	while (isAlive(pid)) {
		await new Promise((resolve) => setTimeout(resolve, 5));
	}
});
