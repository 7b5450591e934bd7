/** Clips of joined models on a card of WebGPU. By themselves, because software Vulkan is slow where a machine is busy. */
import { test } from 'node:test';
import { holdClipsToCpu } from './device-joined.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();

test('clips on the card show what the processor shows; noise, what forwards are told and pictures cross, and nothing is left behind', { skip }, () =>
	holdClipsToCpu('webgpu-fp32', { decoder: 'taehv', levels: 2, isBrief: true }));
