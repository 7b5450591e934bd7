/** Clips that begin with a picture, of joined models with their state in the memory of the library: by the calls that CUDA gets, with the CPU provider. */
import { test } from 'node:test';
import { holdPictureClipToCpu } from './device-joined.js';
import { leavesNothing, native } from './native-device.js';

for (const residency of ['all', 'one'] as const) {
	test(`a clip that begins with a picture and has two experts, with ${residency} of its networks loaded at a time`, () =>
		leavesNothing(() => holdPictureClipToCpu('cuda-fp32', { decoder: 'vae', levels: 1, residency, openDevice: native })));
}
