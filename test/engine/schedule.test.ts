import assert from 'node:assert/strict';
import { test } from 'node:test';
import { advance, cleanEstimate, scheduleOf, stepFactors } from '../../src/engine/schedule.js';
import type { ModelSpec } from '../../src/model/spec.js';
import { TurbocastError } from '../../src/protocol/errors.js';

// Only the fields that a schedule is made of.
const SPEC = { name: 'test', schedules: { '1': [1000], '4': [1000, 900, 750, 500] } } as unknown as ModelSpec;

test('sigma is a thousandth of the timestep, and the last step has no next one', () => {
	assert.deepEqual(scheduleOf(SPEC, 4), [
		{ timestep: 1000, sigma: 1, nextSigma: 0.9 },
		{ timestep: 900, sigma: 0.9, nextSigma: 0.75 },
		{ timestep: 750, sigma: 0.75, nextSigma: 0.5 },
		{ timestep: 500, sigma: 0.5, nextSigma: undefined },
	]);
});

test('a number of steps that the model was not trained for is refused, naming those it was', () => {
	for (const steps of [0, 2, 3, 1.5, Number.NaN]) {
		assert.throws(() => scheduleOf(SPEC, steps), (error) => error instanceof TurbocastError && error.code === 'invalid_request'
			&& error.param === 'steps' && error.message.includes('1, 4'));
	}
});

const X0 = Float32Array.from([0.5, -1.25, 2]);
const NOISE = Float32Array.from([-0.75, 1.5, 0.25]);
const at = (sigma: number): Float32Array => X0.map((clean, index) => (1 - sigma) * clean + sigma * (NOISE[index] ?? 0));
const VELOCITY = NOISE.map((noise, index) => noise - (X0[index] ?? 0));

const assertClose = (actual: Float32Array, expected: ArrayLike<number>): void => {
	assert.equal(actual.length, expected.length);
	for (const [index, value] of actual.entries()) {
		assert.ok(Math.abs(value - (expected[index] ?? Number.NaN)) <= 1e-6, `element ${index}: ${value} is not ${expected[index]}`);
	}
};

test('a velocity that is right gives the clean latent from every level', () => {
	for (const sigma of [1, 0.9, 0.5, 0.05]) {
		assertClose(cleanEstimate(at(sigma), VELOCITY, sigma), X0);
	}
});

test('renoise goes back up from x0 with fresh noise', () => {
	const fresh = Float32Array.from([1, -1, 0.5]);
	const step = { timestep: 900, sigma: 0.9, nextSigma: 0.75 };
	assertClose(advance('renoise', step, at(0.9), VELOCITY, () => fresh), [0.25 * 0.5 + 0.75, 0.25 * -1.25 - 0.75, 0.25 * 2 + 0.375]);
});

test('euler walks along the flow and needs no noise', () => {
	const step = { timestep: 900, sigma: 0.9, nextSigma: 0.75 };
	assertClose(advance('euler', step, at(0.9), VELOCITY, () => assert.fail('euler asked for noise')), at(0.75));
});

for (const sampler of ['renoise', 'euler'] as const) {
	test(`${sampler}: the last step returns x0 and draws no noise; nothing given is written`, () => {
		const x = at(0.5);
		const before = x.slice();
		assertClose(advance(sampler, { timestep: 500, sigma: 0.5, nextSigma: undefined }, x, VELOCITY, () => assert.fail('noise drawn')), X0);
		assert.deepEqual(x, before);
	});
}

for (const sampler of ['renoise', 'euler'] as const) {
	test(`${sampler}: as a sum of latent, velocity and noise a step is what it is in parts, and takes noise only where that does`, () => {
		const fresh = Float32Array.from([1, -1, 0.5]);
		for (const nextSigma of [0.75, 0.05, undefined]) {
			const step = { timestep: 900, sigma: 0.9, nextSigma };
			let hasDrawn = false;
			const expected = advance(sampler, step, at(0.9), VELOCITY, () => {
				hasDrawn = true;
				return fresh;
			});
			const factors = stepFactors(sampler, step);
			assert.equal(factors.noise !== 0, hasDrawn);
			assertClose(at(0.9).map((x, index) => factors.latent * x + factors.velocity * (VELOCITY[index] ?? 0) + factors.noise * (fresh[index] ?? 0)), expected);
		}
	});
}
