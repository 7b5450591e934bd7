/** The WebGPU backend on software Vulkan (or whichever driver VK_ICD_FILENAMES names): real shaders, held to the CPU. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime, createWebGpu } from '../../src/engine/backends/onnxruntime.js';
import { transferGraph } from '../../src/model/state-graphs.js';
import { randomNormals } from '../model/random-model.js';
import { holdStreamToCpu } from './device-stream.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();

test('tensors stay on the card: they are read back, fed on, refused by the CPU, and dead once they are closed', { skip }, async () => {
	const device = createWebGpu({ threads: 1 });
	const numbers = randomNormals(24, 1);
	const tensor = await device.upload(numbers, [2, 3, 4]);
	assert.deepEqual([tensor.type, tensor.dims], ['float32', [2, 3, 4]]);
	assert.deepEqual(await device.download(tensor), numbers);
	const copy = await device.loadResident(transferGraph('copy', 'float32', 'float32'));
	const flat = await device.upload(numbers, [24]);
	const { resident: { y } } = await copy.run({ x: flat });
	assert.deepEqual(await device.download(y ?? assert.fail('no y')), numbers);

	const cpu = await createOnnxRuntime({ threads: 1 }).load(transferGraph('copy', 'float32', 'float32'));
	await assert.rejects(cpu.run({ x: flat }), { code: 'internal', message: /on a graphics card is fed to a graph on the CPU/u });
	flat.close();
	flat.close();
	await assert.rejects(copy.run({ x: flat }), { code: 'internal', message: /after it was closed/u });
	await copy.close();
	await cpu.close();
	await device.close();
});

test('a stream on the card shows what it shows on the CPU, over eviction and a sink; goes on bit for bit from a snapshot; and loses nothing to a cancelled chunk', { skip }, () =>
	holdStreamToCpu('webgpu-fp32', 2));
