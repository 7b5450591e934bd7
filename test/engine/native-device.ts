/** The calls that CUDA gets, with the CPU provider. */
import assert from 'node:assert/strict';
import type { DeviceBackend } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';

export const native = (): DeviceBackend => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });

/** Nothing that `work` takes from the library is left after it. */
export const leavesNothing = async (work: () => Promise<void>): Promise<void> => {
	const before = ortLibrary().open();
	await work();
	assert.deepEqual(ortLibrary().open(), before);
};
