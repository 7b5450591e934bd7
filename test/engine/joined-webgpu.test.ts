/** Streams of joined models on a card of WebGPU. By themselves, because software Vulkan is slow where a machine is busy. */
import { test } from 'node:test';
import { holdJoinedStreamToCpu } from './device-joined.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();

test('a stream on the card shows what the processor shows, its state where it was made', { skip }, () =>
	holdJoinedStreamToCpu('webgpu-fp32', { decoder: 'taehv', levels: 2, isBrief: true }));
