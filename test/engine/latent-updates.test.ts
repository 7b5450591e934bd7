/** The sampler's part of a step as graphs, held to the sampler. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Tensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { loadLatentUpdates } from '../../src/engine/latent-updates.js';
import { latentFrame } from '../../src/engine/sampler.js';
import { advance, stepFactors } from '../../src/engine/schedule.js';
import { latentEndGraph } from '../../src/model/latent-graphs.js';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { assertClose } from '../model/closeness.js';
import { randomNormals } from '../model/random-model.js';

const DIMS = [3, 4, 5, 7] as const;
const COUNT = DIMS.reduce((product, size) => product * size, 1);
const [LATENT, VELOCITY, NOISE] = [1, 2, 3].map((seed) => randomNormals(COUNT, seed)) as [Float32Array, Float32Array, Float32Array];
/** Rounding of float32 against one of float64. */
const TOLERANCE = 1e-6;

for (const sampler of ['renoise', 'euler'] as const) {
	test(`${sampler}: a step on a device is what the sampler makes of it, and the last one gives each latent frame`, async () => {
		const handles = () => ortLibrary().open();
		const device = createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } });
		const before = handles();
		const updates = await loadLatentUpdates(device, DIMS, sampler === 'renoise');
		const velocity = await device.upload(VELOCITY, DIMS);
		for (const nextSigma of [0.75, 0.2, undefined]) {
			const step = { timestep: 900, sigma: 0.9, nextSigma };
			const factors = stepFactors(sampler, step);
			const wanted = advance(sampler, step, LATENT, VELOCITY, () => NOISE);
			const isLast = nextSigma === undefined;
			const { latent, frames } = await updates.update({ latent: LATENT, factors, isLast }, velocity, factors.noise === 0 ? undefined : NOISE);
			assertClose(await device.download(latent), wanted, TOLERANCE, `to ${nextSigma ?? 'the end'}`);
			assert.equal(frames.length, isLast ? DIMS[1] : 0);
			for (const [index, frame] of frames.entries()) {
				assert.deepEqual(frame.dims, [DIMS[0], DIMS[2], DIMS[3]]);
				assertClose(await device.download(frame), latentFrame(wanted, DIMS[0], DIMS[1], index), TOLERANCE, `frame ${index}`);
				frame.close();
			}
			latent.close();
		}
		velocity.close();
		await updates.close();
		await device.close();
		// All but the graph that uploads, which the device had not loaded before.
		assert.deepEqual(handles(), before);
	});
}

test('one number of the chunk that is none spoils every frame, so that the first that is decoded shows it', async () => {
	const session = await createOnnxRuntime({ threads: 1 }).load(latentEndGraph(DIMS));
	const tensor = (data: Float32Array, dims: readonly number[] = DIMS): Tensor => ({ type: 'float32', dims, data });
	for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
		const results = await session.run({ latent: tensor(LATENT.map((value, index) => (index === COUNT - 1 ? bad : value))), velocity: tensor(VELOCITY), factors: tensor(Float32Array.of(1, -0.5), [2]) });
		for (let frame = 0; frame < DIMS[1]; frame++) {
			assert.ok((results[`frame.${frame}`]?.data as Float32Array).every((value) => !Number.isFinite(value)), `${bad}, frame ${frame}`);
		}
		assert.equal((results['next']?.data as Float32Array).filter((value) => !Number.isFinite(value)).length, 1, 'the latent itself is as it is');
	}
	await session.close();
});
