/** Whole chunks on a card of WebGPU: what crosses is counted. By itself, because software Vulkan is slow where a machine is busy. */
import { test } from 'node:test';
import { holdChunkToDevice } from './device-stream.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();

test('a chunk is made on the card: only its pictures and a few numbers that say they are some come back, in any number of steps', { skip }, () =>
	holdChunkToDevice('webgpu-fp32', 2, { chunks: [2, 1, 1] }));
