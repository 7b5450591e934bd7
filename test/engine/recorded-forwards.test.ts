/** Forwards that are recorded and replayed, with the CPU provider, which records nothing: what is recorded reads and writes where the recording does, and the option reaches each run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceBackend, DeviceSession, Feeds, ResidentTensor } from '../../src/engine/backend.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type NetworksOptions } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { canRecord, MAX_RECORDINGS, recordForwards, type RecordingDevice, RUNS_BEFORE_RECORDING } from '../../src/engine/recorded-forwards.js';
import { runRecordingTest } from '../../src/engine/recording-test.js';
import { slotsFeed } from '../../src/engine/window-kv.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import type { Graph } from '../../src/model/graph.js';
import { add, scatter } from '../../src/model/operators.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { writeRandomModel } from '../model/random-model.js';
import { leavesNothing, native } from './native-device.js';

type Run = { readonly feeds: Feeds; readonly fetch: readonly string[]; readonly into: { readonly [name: string]: ResidentTensor }; readonly recording: number | undefined };

/** The same device; `runs` has those of sessions that were loaded to be recorded. */
const spied = (device: DeviceBackend, runs: Run[], whenRun = (): void => undefined): DeviceBackend => ({
	...device,
	load: async (graph, loading) => {
		const session = await device.load(graph, loading);
		return loading?.recordsRuns !== true ? session : { ...session, runInto: (feeds, fetch, into, signal, recording) => {
			runs.push({ feeds, fetch, into, recording });
			whenRun();
			return session.runInto(feeds, fetch, into, signal, recording);
		} };
	},
});

const recording = (device: DeviceBackend): RecordingDevice => (canRecord(device) ? device : assert.fail('it records nothing'));

/** Where all lies that a run is given, by name; what does not lie on the device is text. */
const bindings = (device: RecordingDevice, { feeds, into }: Run): Map<string, string> =>
	new Map([...Object.entries(feeds), ...Object.entries(into)].map(([name, tensor]) => [name, 'isResident' in tensor ? `${device.address(tensor)} ${tensor.dims.join()}` : 'ours']));

const changed = (before: Map<string, string>, now: Map<string, string>): string[] => [...new Set([...before.keys(), ...now.keys()])].filter((name) => before.get(name) !== now.get(name));

const PROMPTS = ['a cat jumps', 'a dog runs'];

/** What a stream shows in so many chunks of two steps, prompts in turn. */
const shown = async (generator: Generator, chunks: number, seen?: () => void): Promise<Uint8Array> => {
	const frames: Uint8Array[] = [];
	for (let chunk = 0; chunk < chunks; chunk++) {
		await generator.generateChunk({ prompt: PROMPTS[chunk % 2] ?? '', steps: 2, controls: {} }, (_, pictures) => frames.push(...pictures), new AbortController().signal, false);
		seen?.();
	}
	return Buffer.concat(frames);
};

for (const kind of ['embedded', 'joined'] as const) {
	test(`over a full window every forward of a stream has the tensors of its recording, prompts, steps and clean passes alike, and shows what it shows without: ${kind}`, () => leavesNothing(async () => {
		await using own = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
		using joined = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv', changes: { stream: { latents_per_chunk: 1, window_latents: 3, sink_latents: 1 } } });
		const options: Omit<NetworksOptions, 'openDevice'> = { ...(kind === 'embedded' ? { folder: own.path, width: 48, height: 32 } : { folder: joined.path, width: 32, height: 32 }), threads: 1, profile: 'cuda-fp16' };
		const runs: Run[] = [];
		const device = recording(native());
		const [recorded, direct] = [
			await loadNetworks({ ...options, recordsForwards: true, openDevice: () => spied(device, runs) }),
			await loadNetworks({ ...options, openDevice: native }),
		];
		const of = (networks: typeof recorded, seed: number) => new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed, firstChunkIndex: 0 });
		const [first, second, without] = [of(recorded, 5), of(recorded, 6), of(direct, 5)];
		const open: (number | undefined)[] = [];
		const chunks = 8;
		assert.deepEqual(await shown(first, chunks, () => open.push(ortLibrary().open().Value)), await shown(without, chunks));
		// From the third chunk on the window is full, and its forwards are recorded once there were enough of them.
		const replayed = runs.filter((run) => run.recording !== undefined);
		assert.equal(runs.length, 3 * chunks);
		assert.equal(replayed.length, 3 * (chunks - 2) - RUNS_BEFORE_RECORDING);
		assert.deepEqual(new Set(runs.slice(-replayed.length).map((run) => run.recording)), new Set([1]));
		const [one = assert.fail('no recording')] = replayed;
		assert.equal(Object.keys(one.feeds).length + Object.keys(one.into).length, bindings(device, one).size);
		assert.ok(![...bindings(device, one).values()].includes('ours'), 'all of it lies on the device');
		for (const run of replayed) {
			assert.deepEqual([run.fetch, changed(bindings(device, one), bindings(device, run))], [[], []]);
		}
		assert.equal(new Set(open.slice(-3)).size, 1, 'nothing more is kept from chunk to chunk');

		// Another stream is told at the same places, and has windows and a recording of its own.
		await shown(second, chunks);
		const other = runs.at(-1) ?? assert.fail('no run');
		assert.equal(other.recording, 2);
		assert.ok(changed(bindings(device, one), bindings(device, other)).every((name) => /^(?:window|held)_/u.test(name)));
		[first, second, without].forEach((generator) => generator.close());
		await recorded.close();
		await direct.close();
	}));
}

/** `doubled` is `fresh` + `fresh`, and `held` is `window` with that where `slots` says. */
const smallGraph = (): Graph => {
	const g = new GraphBuilder('small');
	const [window, slots, fresh] = [g.input('window', 'float32', ['window', 2]), g.input('slots', 'int64', [1, 1]), g.input('fresh', 'float32', [1, 2])];
	const sum = add(g, 'sum', fresh, fresh);
	g.output('doubled', sum);
	scatter(g, 'written', window, slots, sum, 'held');
	return g.finish();
};

const told = (slot: number, ...fresh: readonly [number, number]): Feeds => ({ slots: slotsFeed([slot]), fresh: { type: 'float32', dims: [1, 2], data: Float32Array.from(fresh) } });

type Small = {
	readonly device: RecordingDevice;
	readonly session: DeviceSession;
	readonly runs: Run[];
	readonly window: () => Promise<ResidentTensor>;
	/** Writes twice `fresh` into a window. */
	readonly write: (window: ResidentTensor, slot: number, fresh: readonly [number, number], signal?: AbortSignal) => Promise<unknown>;
	readonly whenRun: (listener: () => void) => void;
};

const withSmall = async (runsBefore: number, use: (small: Small) => Promise<void>): Promise<void> => leavesNothing(async () => {
	const runs: Run[] = [];
	let listener = (): void => undefined;
	const device = recording(spied(native(), runs, () => listener()));
	const session = await recordForwards(device, await device.load(smallGraph(), { recordsRuns: true }), runsBefore);
	const doubled = await device.upload(new Float32Array(2), [1, 2]);
	const tensors: ResidentTensor[] = [doubled];
	await use({
		device, session, runs,
		window: async () => {
			const window = await device.upload(new Float32Array(6), [3, 2]);
			tensors.push(window);
			return window;
		},
		write: (window, slot, fresh, signal) => session.runInto({ ...told(slot, ...fresh), window }, [], { doubled, held: window }, signal),
		whenRun: (other) => {
			listener = other;
		},
	});
	tensors.forEach((tensor) => tensor.close());
	await session.close();
	await device.close();
});

test('a run is recorded after a few over the same tensors; of another size, or with an output that is not bound, it is another or none', () => withSmall(2, async ({ device, session, runs, window, write }) => {
	const place = await window();
	for (const slot of [0, 1, 2, 0]) {
		await write(place, slot, [slot, 10 * slot]);
	}
	assert.deepEqual(runs.map((one) => one.recording), [undefined, undefined, 1, 1]);
	assert.deepEqual([...await device.download(place)], [0, 0, 2, 20, 4, 40]);
	// The same memory, and less of it.
	const part = device.view(place, [2, 2]);
	for (const slot of [0, 1, 1]) {
		await write(part, slot, [slot, 10 * slot]);
	}
	part.close();
	await session.runInto({ ...told(0, 1, 2), window: place }, [], { held: place });
	assert.deepEqual((await session.run({ ...told(1, 7, 8), window: place }))['held']?.data, Float32Array.of(2, 4, 14, 16, 4, 40));
	assert.deepEqual([...await device.download(place)], [2, 4, 2, 20, 4, 40], 'an output that is fetched is not written over the input');
	await write(place, 2, [1, 1]);
	assert.deepEqual(runs.map((one) => one.recording).slice(4), [undefined, undefined, 2, undefined, undefined, 1]);
}));

test('recordings are bounded: the forwards of more streams run as they are', () => withSmall(0, async ({ device, runs, window, write }) => {
	const windows: ResidentTensor[] = [];
	for (let stream = 0; stream < MAX_RECORDINGS + 2; stream++) {
		const held = await window();
		windows.push(held);
		await write(held, 1, [stream, stream]);
	}
	assert.deepEqual(runs.map((run) => run.recording), windows.map((_, stream) => (stream < MAX_RECORDINGS ? stream + 1 : undefined)));
	for (const [stream, held] of windows.entries()) {
		assert.deepEqual([...await device.download(held)], [0, 0, 2 * stream, 2 * stream, 0, 0]);
	}
}));

test('a run that is recorded is not ended in the middle, and throws the reason when it is over; one that is cancelled before does not run', () => withSmall(0, async ({ device, runs, window, write, whenRun }) => {
	const [held, abort, reason] = [await window(), new AbortController(), new Error('cancelled')];
	whenRun(() => abort.abort(reason));
	await assert.rejects(write(held, 2, [3, 4], abort.signal), reason);
	assert.deepEqual([...await device.download(held)], [0, 0, 0, 0, 6, 8]);
	await assert.rejects(write(held, 1, [3, 4], abort.signal), reason);
	assert.equal(runs.length, 1);
	await write(held, 0, [1, 1]);
	assert.deepEqual([...await device.download(held)], [2, 2, 0, 0, 6, 8]);
}));

/** A device whose replays compute what `replay` makes of a run. */
const replaying = (device: DeviceBackend, replay: (run: () => Promise<{ [name: string]: never }>, count: number) => Promise<{ [name: string]: never }>): DeviceBackend => ({
	...device,
	load: async (graph, loading) => {
		const session = await device.load(graph, loading);
		let count = 0;
		return loading?.recordsRuns !== true ? session : { ...session, runInto: (...run) => replay(() => session.runInto(...run) as Promise<{ [name: string]: never }>, count++) };
	},
});

test('the self-test of recordings finds equal what is equal, and a replay that computes something else', () => leavesNothing(async () => {
	const request = { profile: 'cuda-fp16', threads: 1, rounds: 3 } as const;
	const right = await runRecordingTest({ ...request, open: native }, () => performance.now());
	assert.equal(right.relativeError, 0);
	assert.ok(right.directMs > 0 && right.recordedMs > 0);
	// One that does nothing leaves what the run before has left, which was told something else.
	const wrong = await runRecordingTest({ ...request, open: () => replaying(native(), (run, count) => (count === 0 ? run() : Promise.resolve({}))) }, () => 0);
	assert.ok(wrong.relativeError > 0.01, String(wrong.relativeError));
	const without = (): DeviceBackend => Object.fromEntries(Object.entries(native()).filter(([name]) => name !== 'address')) as DeviceBackend;
	await assert.rejects(runRecordingTest({ ...request, open: without }, () => 0), { code: 'device_unavailable', message: /records nothing/u });
}));
