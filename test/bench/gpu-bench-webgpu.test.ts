/** `turbocast bench gpu` on software Vulkan, or whichever driver VK_ICD_FILENAMES names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { benchGpu } from '../../src/bench/gpu-bench.js';
import { prepareVulkan } from '../engine/vulkan.js';
import { writeRandomModel } from '../model/random-model.js';
import { checkReport } from './report-check.js';

const skip = prepareVulkan();

test('a card: its driver and its rates beside the processor\'s, stages where they run, and a chunk that would take too long left out', { skip }, async () => {
	// As small as it may be: software Vulkan on a busy machine takes long for each run.
	await using model = await writeRandomModel({ changes: { dit: { num_layers: 1 }, vae: { blocks: [1, 0, 1] }, stream: { window_latents: 4 } } });
	const report = await benchGpu({
		profile: 'webgpu-fp32', threads: 1, folder: model.path, size: { width: 32, height: 32 }, budgetMs: 1, withWan: false, whyNotRecorded: 'it does not run on CUDA', signal: new AbortController().signal,
	});
	checkReport(report);
	assert.deepEqual(report.own.map(({ stage, device }) => `${device} ${stage}`), ['cpu text encode', 'cpu keys and values of the text', 'webgpu denoising step', 'webgpu clean pass', 'webgpu decode, a latent']);
	assert.deepEqual(report.wan, []);
	assert.equal(report.device, 'webgpu');
	assert.notEqual(report.card.driver, 'none');
	assert.notDeepEqual(report.limits?.cpu, report.limits?.device);
	assert.deepEqual(report.excluded.map(({ stage }) => stage), ['denoising step, recorded', 'clean pass, recorded', 'own chunks', 'own chunks, recorded', 'own sessions', 'own sessions, recorded']);
});
