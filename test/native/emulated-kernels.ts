/** A backend for the CPU provider with our kernels, compiled for the processor. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { DeviceBackend, Feeds, Graph, Tensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { openKernels } from '../../src/engine/c-api/kernels.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { type Verdict, verifyFolder } from '../../src/verify/verify.js';
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

/** What a golden folder's cases give in a profile, and how often each operator stands in its graphs. */
export const verifiedWith = async (device: DeviceBackend, path: string, profile: EngineProfile): Promise<{ readonly verdicts: readonly Verdict[]; readonly counts: { readonly [op: string]: number } }> => {
	const counts: Record<string, number> = {};
	const counting: DeviceBackend = {
		...device,
		load: (graph, options) => {
			for (const { op } of graph.operations) {
				counts[op] = (counts[op] ?? 0) + 1;
			}
			return device.load(graph, options);
		},
	};
	const verdicts: Verdict[] = [];
	for await (const verdict of verifyFolder(path, profile, counting, () => undefined)) {
		verdicts.push(verdict);
	}
	return { verdicts, counts };
};
