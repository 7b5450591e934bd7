/** A backend for the CPU provider with our kernels, compiled for the processor. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { DeviceBackend, Feeds, Graph, Tensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { openKernels } from '../../src/engine/c-api/kernels.js';
import { emulatedBuild, temporaryFolder } from './build-cuda.js';

/** `path` is a folder for whatever else a test builds. */
export const buildKernels = async (): Promise<AsyncDisposable & { readonly path: string; readonly library: string; readonly device: DeviceBackend }> => {
	const library = join(await emulatedBuild(), 'libturbocast_emulated.so');
	const device = createNativeRuntime({ threads: 1, provider: { kind: 'cpu' }, kernels: openKernels('cpu', library) });
	const folder = await temporaryFolder();
	return {
		path: folder.path, library, device,
		[Symbol.asyncDispose]: async () => {
			await device.close();
			await folder[Symbol.asyncDispose]();
		},
	};
};

export const runOnce = async (device: DeviceBackend, graph: Graph, feeds: Feeds): Promise<{ [name: string]: Tensor }> => {
	const session = await device.load(graph);
	try {
		return await session.run(feeds);
	} finally {
		await session.close();
	}
};

export const float32 = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });

export const relativeError = (actual: Float32Array, expected: Float32Array): number => {
	assert.equal(actual.length, expected.length);
	const norm = (x: Float32Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
	return norm(actual.map((value, index) => value - (expected[index] ?? Number.NaN))) / norm(expected);
};
