/** The committed golden folders on the backends of graphics cards: CUDA's by the calls that it gets, with the CPU provider, and WebGPU on software Vulkan. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Backend } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { createWebGpu } from '../../src/engine/backends/onnxruntime.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { verifyFolder } from '../../src/verify/verify.js';
import { prepareVulkan } from '../engine/vulkan.js';
import { repositoryRoot } from '../repository.js';

const assertPasses = async (kind: string, profile: EngineProfile, backend: Backend): Promise<void> => {
	let cases = 0;
	for await (const verdict of verifyFolder(join(repositoryRoot, 'test/fixtures/golden', kind), profile, backend, () => undefined)) {
		cases += 1;
		assert.ok(verdict.pass, `${kind} ${verdict.case} at ${profile}: relative error ${verdict.relativeError}`);
	}
	assert.ok(cases > 0);
};

for (const kind of ['wan-causal-window', 'turbo-dit', 'rcm', 'w8a8', 'taehv', 'umt5']) {
	test(`${kind} of the original implementation passes at cuda-fp32, computed by the processor through the same calls`, async () => {
		const device = createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });
		await assertPasses(kind, 'cuda-fp32', device);
		await device.close();
	});
}

const skip = prepareVulkan();

// Those that are small enough for software Vulkan on a busy machine; docs/gpu.md has the others, by hand.
for (const kind of ['w8a8', 'turbo-dit']) {
	test(`${kind} of the original implementation passes at webgpu-fp32`, { skip }, async () => {
		const device = createWebGpu({ threads: 1 });
		await assertPasses(kind, 'webgpu-fp32', device);
		await device.close();
	});
}
