/** `turbocast bench gpu` times forwards as an engine makes them: what is run, fed and written is what the service runs, feeds and writes; with the CPU provider, which takes the calls of CUDA. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownModelStages } from '../../src/bench/own-model.js';
import { measureStage, type Place, type Stage } from '../../src/bench/stage.js';
import { planWanStage, type WanConditions } from '../../src/bench/wan-stages.js';
import { type DeviceBackend, type Feeds, isResident, type ResidentTensor, type Tensor } from '../../src/engine/backend.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type NetworksOptions } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { leavesNothing, native } from '../engine/native-device.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { writeRandomModel } from '../model/random-model.js';

/** A run: its graph, where each tensor lies that it is fed and gives, and whether it is replayed. */
type Seen = { readonly graph: string; readonly fed: readonly string[]; readonly given: readonly string[]; readonly isReplayed: boolean };

const faces = (tensors: { readonly [name: string]: Tensor | ResidentTensor }): string[] =>
	Object.entries(tensors).map(([name, tensor]) => `${name} ${isResident(tensor) ? 'there' : 'ours'} ${tensor.type} ${tensor.dims.join('x')}`).sort();

/** The same device; `seen` has the runs of its graphs in their order. */
const spied = (device: DeviceBackend, seen: Seen[]): DeviceBackend => ({
	...device,
	load: async (graph, loading) => {
		const session = await device.load(graph, loading);
		const runInto: typeof session.runInto = (feeds, fetch, into, signal, recording) => {
			seen.push({ graph: graph.name, fed: faces(feeds), given: [...fetch.map((name) => `${name} ours`), ...faces(into)].sort(), isReplayed: recording !== undefined });
			return session.runInto(feeds, fetch, into, signal, recording);
		};
		return { ...session, runInto, run: (feeds: Feeds, fetch = graph.outputs.map(({ name }) => name), signal) => runInto(feeds, fetch, {}, signal) };
	},
	loadResident: async (graph, host = []) => {
		const session = await device.loadResident(graph, host);
		return { ...session, run: (feeds, signal) => {
			seen.push({ graph: graph.name, fed: faces(feeds), given: [...host], isReplayed: false });
			return session.run(feeds, signal);
		} };
	},
});

/** From a denoiser's run to the next, without the decoder's. */
const forwardsOf = (seen: readonly Seen[]): Seen[][] => {
	const groups: Seen[][] = [];
	for (const run of seen.filter(({ graph }) => !graph.endsWith('decoder'))) {
		// What a recorded forward is told is copied before it.
		const isFirst = run.graph === 'dit' && groups.at(-1)?.at(-1)?.graph !== 'copy' || run.graph === 'copy' && groups.at(-1)?.at(-1)?.graph !== 'copy';
		if (isFirst) {
			groups.push([]);
		}
		groups.at(-1)?.push(run);
	}
	return groups;
};

/** What an engine runs in the middle of a chunk of four steps over a full window, and in its clean pass. */
const ofService = async (options: Omit<NetworksOptions, 'openDevice' | 'threads'>): Promise<{ readonly step: readonly Seen[]; readonly clean: readonly Seen[] }> => {
	const seen: Seen[] = [];
	const networks = await loadNetworks({ ...options, threads: 1, openDevice: () => spied(native(), seen) });
	const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
	// Recordings are made after eight forwards over a full window.
	for (let chunk = 0; chunk < 6; chunk++) {
		seen.splice(0);
		await generator.generateChunk({ prompt: 'a cat jumps', steps: 4, controls: {} }, () => undefined, new AbortController().signal, false);
	}
	const forwards = forwardsOf(seen);
	assert.equal(forwards.length, 5);
	generator.close();
	await networks.close();
	return { step: forwards[1] ?? [], clean: forwards[4] ?? [] };
};

/** The last run of a stage, which is one of those that are timed. */
const ofBench = async (stage: Stage, place: Place, seen: Seen[]): Promise<readonly Seen[]> => {
	seen.splice(0);
	let now = 0;
	const report = await measureStage(stage, place, { limits: { copyBytesPerSecond: 1e9, flopsPerSecond: { float32: 1e9, float16: 1e9 } }, device: 'cuda', budgetMs: 10, nowMs: () => now++ });
	assert.ok(report.runs > 1 && report.shareOfLimit > 0, JSON.stringify(report));
	const forwards = forwardsOf(seen);
	assert.deepEqual(forwards.at(-1), forwards.at(-2));
	return forwards.at(-1) ?? [];
};

for (const profile of ['cuda-fp16', 'cuda-fp32'] as const) {
	for (const recordsForwards of [false, true]) {
		test(`steps and clean passes of an own model are timed as the service makes them: ${profile}${recordsForwards ? ', recorded' : ''}`, () => leavesNothing(async () => {
			await using model = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
			const { width, height } = model.spec;
			const service = await ofService({ folder: model.path, profile, width, height, recordsForwards });
			assert.ok(service.step.some(({ graph, isReplayed }) => graph === 'dit' && isReplayed === recordsForwards));
			const device = native();
			const seen: Seen[] = [];
			const place = { kind: 'device', backend: spied(device, seen) } as const;
			const { onHost, onDevice, close } = await ownModelStages({ folder: model.path, profile, threads: 1, recordsForwards }, place);
			assert.deepEqual([onHost.length, onDevice.length], recordsForwards ? [0, 2] : [2, 3]);
			const [step, clean] = onDevice;
			assert.ok(step !== undefined && clean !== undefined);
			const end = recordsForwards ? ', recorded' : '';
			assert.deepEqual([step.name, clean.name], [`denoising step${end}`, `clean pass${end}`]);
			assert.deepEqual(await ofBench(step, place, seen), service.step);
			assert.deepEqual(await ofBench(clean, place, seen), service.clean);
			await close();
			await device.close();
		}));
	}
}

/** Of the first layer alone, and without sizes. */
const kinds = (runs: readonly Seen[]): unknown[] => runs.map(({ graph, fed, given, isReplayed }) => {
	const ofFirst = (names: readonly string[]): string[] => names.filter((name) => !/\.[1-9]\d* /u.test(name)).map((name) => name.split(' ').slice(0, 2).join(' '));
	return { graph, fed: ofFirst(fed), given: ofFirst(given), isReplayed };
});

/** One block of Wan's. */
const TINY: WanConditions = { profile: 'cuda-fp16', size: { width: 32, height: 32 }, memoryBytes: 7e8, budgetMs: 1e12, limitMs: (_work, bytes) => bytes / 1e6 };

const ofWan = async (stage: Stage): Promise<readonly Seen[]> => {
	const [device, seen]: [DeviceBackend, Seen[]] = [native(), []];
	const last = await ofBench(stage, { kind: 'device', backend: spied(device, seen) }, seen);
	await device.close();
	return last;
};

test("forwards with Wan's dimensions are timed as those of published networks are made: causal steps and clean passes, recorded and not, and steps of clips", () => leavesNothing(async () => {
	using stream = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv', changes: { stream: { latents_per_chunk: 1, window_latents: 3, sink_latents: 1 } } });
	for (const isRecorded of [false, true]) {
		const service = await ofService({ folder: stream.path, profile: 'cuda-fp16', width: 32, height: 32, recordsForwards: isRecorded });
		for (const [name, expected] of [['causal step', service.step], ['causal clean pass', service.clean]] as const) {
			const plan = planWanStage(name, { ...TINY, isRecorded });
			assert.ok(plan.kind === 'planned' && plan.blocks === 1, JSON.stringify(plan));
			const { stage, remove } = plan.build();
			assert.equal(stage.name, isRecorded ? `${name}, recorded` : name);
			assert.deepEqual(kinds(await ofWan(stage)), kinds(expected));
			remove();
		}
	}
	const plan = planWanStage('clip step, dense', TINY);
	assert.ok(plan.kind === 'planned', JSON.stringify(plan));
	const { stage, remove } = plan.build();
	assert.deepEqual((await ofWan(stage)).map(({ graph, given }) => [graph, given.map((name) => name.split(' ').slice(0, 2).join(' '))]), [['dit', ['velocity there']], ['latent-update', []]]);
	remove();
}));
