/** `turbocast bench gpu` times forwards with Wan's dimensions as an engine makes those of published networks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stage } from '../../src/bench/stage.js';
import { planWanStage, type WanConditions } from '../../src/bench/wan-stages.js';
import type { DeviceBackend } from '../../src/engine/backend.js';
import { leavesNothing, native } from '../engine/native-device.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { ofBench, ofService, type Seen, spied } from './seen-forwards.js';

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

test("forwards with Wan's dimensions are timed as those of published networks are made: a causal step, a clean pass that is recorded, and a step of a clip", () => leavesNothing(async () => {
	using stream = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv', changes: { stream: { latents_per_chunk: 1, window_latents: 3, sink_latents: 1 } } });
	for (const [name, isRecorded] of [['causal step', false], ['causal clean pass', true]] as const) {
		const service = await ofService({ folder: stream.path, profile: 'cuda-fp16', width: 32, height: 32, recordsForwards: isRecorded });
		const plan = planWanStage(name, { ...TINY, isRecorded });
		assert.ok(plan.kind === 'planned' && plan.blocks === 1, JSON.stringify(plan));
		const { stage, remove } = plan.build();
		assert.equal(stage.name, isRecorded ? `${name}, recorded` : name);
		assert.deepEqual(kinds(await ofWan(stage)), kinds(name === 'causal step' ? service.step : service.clean));
		remove();
	}
	const plan = planWanStage('clip step, dense', TINY);
	assert.ok(plan.kind === 'planned', JSON.stringify(plan));
	const { stage, remove } = plan.build();
	assert.deepEqual((await ofWan(stage)).map(({ graph, given }) => [graph, given.map((name) => name.split(' ').slice(0, 2).join(' '))]), [['dit', ['velocity there']], ['latent-update', []]]);
	remove();
}));
