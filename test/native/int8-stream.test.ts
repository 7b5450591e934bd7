/** A stream of `cuda-int8` on the CPU provider, its layers and its attention by the emulated kernels of native/cuda. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { openKernels } from '../../src/engine/c-api/kernels.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { holdStreamToCpu } from '../engine/device-stream.js';
import { missing } from './build-cuda.js';
import { buildKernels } from './emulated-kernels.js';

/** Of 255. A random network, and five chunks that each see those before: twice what float16 may be off there. */
const LEVELS = 48;

describe('a stream of cuda-int8, on the processor', { skip: missing('g++') }, () => {
	let built: Awaited<ReturnType<typeof buildKernels>>;

	before(async () => {
		built = await buildKernels();
	});
	after(() => built[Symbol.asyncDispose]());

	test('a stream of the embedded kind shows what the processor shows, over eviction, a sink, a cancelled chunk, recache and a snapshot', async () => {
		const before = ortLibrary().open();
		await holdStreamToCpu('cuda-int8', LEVELS, {
			openDevice: () => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' }, kernels: openKernels('cpu', built.library) }), changes: { dit: { dim: 128, ffn_dim: 128, num_layers: 1 } },
		});
		assert.deepEqual(ortLibrary().open(), before);
	});
});
