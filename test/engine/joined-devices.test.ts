/** Joined models with the state of streams in the memory of the library: by the calls that CUDA gets, with the CPU provider. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { holdClipsToCpu, holdJoinedStreamToCpu, holdPictureClipToCpu } from './device-joined.js';

const native = () => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });

/** Nothing that was taken from the library is left. */
const leavesNothing = async (work: () => Promise<void>): Promise<void> => {
	const before = ortLibrary().open();
	await work();
	assert.deepEqual(ortLibrary().open(), before);
};

for (const [profile, decoder, levels] of [['cuda-fp32', 'taehv', 1], ['cuda-fp32', 'vae', 1], ['cuda-fp16', 'vae', 24]] as const) {
	test(`clips of ${profile} with ${decoder} show what the processor shows; noise, what forwards are told and pictures cross, and nothing is left behind`, () =>
		leavesNothing(() => holdClipsToCpu(profile, { decoder, levels, openDevice: native })));
}

for (const [profile, decoder, levels, residency] of [['cuda-fp32', 'vae', 1, 'all'], ['cuda-fp16', 'taehv', 24, 'all'], ['cuda-fp32', 'taehv', 1, 'one']] as const) {
	test(`a stream of ${profile} with ${decoder} shows what the processor shows, its state where it was made, with ${residency} of its networks loaded at a time`, () =>
		leavesNothing(() => holdJoinedStreamToCpu(profile, { decoder, levels, residency, openDevice: native })));
}

for (const residency of ['all', 'one'] as const) {
	test(`a clip that begins with a picture and has two experts, with ${residency} of its networks loaded at a time`, () =>
		leavesNothing(() => holdPictureClipToCpu('cuda-fp32', { decoder: 'vae', levels: 1, residency, openDevice: native })));
}
