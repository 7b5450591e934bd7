/** `turbocast bench gpu` times forwards of own models as an engine makes them: what is run, fed and written is what the service runs, feeds and writes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownModelStages } from '../../src/bench/own-model.js';
import { leavesNothing, native } from '../engine/native-device.js';
import { writeRandomModel } from '../model/random-model.js';
import { ofBench, ofService, type Seen, spied } from './seen-forwards.js';

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
