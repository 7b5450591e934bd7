/** Clips of joined models with their state in the memory of the library: by the calls that CUDA gets, with the CPU provider. */
import { test } from 'node:test';
import { holdClipsToCpu } from './device-joined.js';
import { leavesNothing, native } from './native-device.js';

for (const [profile, decoder, levels] of [['cuda-fp32', 'taehv', 1], ['cuda-fp32', 'vae', 1], ['cuda-fp16', 'vae', 24]] as const) {
	test(`clips of ${profile} with ${decoder} show what the processor shows; noise, what forwards are told and pictures cross, and nothing is left behind`, () =>
		leavesNothing(() => holdClipsToCpu(profile, { decoder, levels, openDevice: native })));
}
