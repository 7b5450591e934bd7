/** Streams of joined models with their state in the memory of the library: by the calls that CUDA gets, with the CPU provider. */
import { test } from 'node:test';
import { holdJoinedStreamToCpu } from './device-joined.js';
import { leavesNothing, native } from './native-device.js';

for (const [profile, decoder, levels, residency] of [['cuda-fp32', 'vae', 1, 'all'], ['cuda-fp16', 'taehv', 24, 'all'], ['cuda-fp32', 'taehv', 1, 'one']] as const) {
	test(`a stream of ${profile} with ${decoder} shows what the processor shows, its state where it was made, with ${residency} of its networks loaded at a time`, () =>
		leavesNothing(() => holdJoinedStreamToCpu(profile, { decoder, levels, residency, openDevice: native })));
}
