/** The few-step sampler against the published numbers and formulas. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rcmExperts, rcmFactors, rcmLoop, rcmTimes, rcmTimestep, rcmUpdate } from '../../src/engine/rcm.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const digits = (times: readonly number[]): string[] => times.map((time) => time.toFixed(8));

test('times are those of the original to 8 digits, and fewer steps cut the list off', () => {
	assert.deepEqual(digits(rcmTimes(80, 4)), ['0.98765432', '0.93378106', '0.85289539', '0.60897905', '0.00000000']);
	assert.deepEqual(digits(rcmTimes(80, 3)), ['0.98765432', '0.93378106', '0.85289539', '0.00000000']);
	assert.deepEqual(digits(rcmTimes(80, 2)), ['0.98765432', '0.93378106', '0.00000000']);
	assert.deepEqual(digits(rcmTimes(80, 1)), ['0.98765432', '0.00000000']);
	assert.deepEqual([200, 1600].map((sigma) => rcmTimes(sigma, 1)[0]?.toFixed(8)), ['0.99502488', '0.99937539']);
});

test('the network is told times rounded to bfloat16', () => {
	assert.deepEqual(rcmTimes(80, 4).slice(0, -1).map(rcmTimestep), [988, 932, 852, 608]);
	assert.deepEqual([200, 1600].map((sigma) => rcmTimestep(rcmTimes(sigma, 1)[0] ?? 0)), [996, 1000]);
});

for (const steps of [0, 5, 1.5, Number.NaN]) {
	test(`${steps} steps are refused`, () => {
		assert.throws(() => rcmTimes(80, steps), (error) => error instanceof TurbocastError && error.code === 'invalid_request' && error.param === 'steps');
	});
}

test('the expert for low noise takes over at the first time below the boundary; in two steps it never runs', () => {
	assert.deepEqual(rcmExperts(rcmTimes(200, 4), 0.9), ['high', 'high', 'low', 'low']);
	assert.deepEqual(rcmExperts(rcmTimes(200, 3), 0.9), ['high', 'high', 'low']);
	assert.deepEqual(rcmExperts(rcmTimes(200, 2), 0.9), ['high', 'high']);
});

test('one step of either solver is its formula, in float64', () => {
	const [x, v, noise] = [Float64Array.of(1 / 3, -2), Float32Array.of(0.5, 4), Float32Array.of(-1, 0.25)];
	assert.deepEqual([...rcmUpdate('sde', x, v, 0.9, 0.6, () => noise)], [(1 - 0.6) * (1 / 3 - 0.9 * 0.5) + 0.6 * -1, (1 - 0.6) * (-2 - 0.9 * 4) + 0.6 * 0.25]);
	assert.deepEqual([...rcmUpdate('ode', x, v, 0.9, 0.6, () => assert.fail('the flow needs no noise'))], [1 / 3 - (0.9 - 0.6) * 0.5, -2 - (0.9 - 0.6) * 4]);
	assert.deepEqual([...x], [1 / 3, -2]);
});

test('as a sum of latent, velocity and noise each step is the same, and the last draws no noise', () => {
	const [x, v, noise] = [Float64Array.of(1 / 3, -2), Float32Array.of(0.5, 4), Float32Array.of(-1, 0.25)];
	for (const solver of ['sde', 'ode'] as const) {
		for (const next of [0.6, 0]) {
			const factors = rcmFactors(solver, 0.9, next);
			const summed = x.map((value, index) => factors.latent * value + factors.velocity * (v[index] ?? 0) + factors.noise * (noise[index] ?? 0));
			const expected = rcmUpdate(solver, x, v, 0.9, next, () => noise);
			assert.ok(summed.every((value, index) => Math.abs(value - (expected[index] ?? Number.NaN)) < 1e-12), `${solver} to ${next}`);
			assert.equal(factors.noise === 0, solver === 'ode' || next === 0);
		}
	}
});

test('the loop starts from noise times the first time and feeds float32 to the network', async () => {
	const seen: [number[], number, number][] = [];
	const states: number[][] = [];
	for await (const x of rcmLoop({
		times: [0.75, 0.5, 0], solver: 'sde', noise: Float32Array.of(2), freshNoise: (step) => Float32Array.of(step + 1),
		forward: (latent, timestep, step) => {
			seen.push([[...latent], timestep, step]);
			return Promise.resolve(Float32Array.of(1));
		},
	})) {
		states.push([...x]);
	}
	// 1.5 - 0.75 = 0.75, half of it and half of the noise 1; then 0.875 - 0.5, the noise 2 weighing nothing.
	assert.deepEqual(states, [[0.875], [0.375]]);
	assert.deepEqual(seen, [[[1.5], 752, 0], [[0.875], 500, 1]]);
});
