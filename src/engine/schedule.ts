/**
 * The few noise levels of a chunk and what happens between them: numbers in, numbers out. Flow convention
 * (docs/model-format.md): x_t = (1 - sigma) x0 + sigma n, v = n - x0, so x0 = x_t - sigma v; timestep = 1000 sigma.
 *
 * The state between steps is float32, because the networks read float32: each update is computed in float64 (as every
 * JavaScript number is) and rounded once.
 */
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ModelSpec } from '../model/spec.js';

const TIMESTEPS_PER_SIGMA = 1000;

export type ScheduleStep = {
	/** What the network is told: 1000 * sigma. */
	readonly timestep: number;
	readonly sigma: number;
	/** Level of the following step; `undefined` after the last, which returns x0. */
	readonly nextSigma: number | undefined;
};

/** The steps of one chunk, noisiest first. Throws `invalid_request` when the model has no schedule of that length. */
export const scheduleOf = (spec: ModelSpec, steps: number): ScheduleStep[] => {
	const timesteps = Object.hasOwn(spec.schedules, String(steps)) ? spec.schedules[String(steps)] : undefined;
	if (timesteps === undefined) {
		const known = Object.keys(spec.schedules).join(', ');
		throw new TurbocastError('invalid_request', `steps must be one of ${known} for the model ${spec.name}, not ${steps}.`, { param: 'steps' });
	}
	return timesteps.map((timestep, index) => {
		const next = timesteps[index + 1];
		return { timestep, sigma: timestep / TIMESTEPS_PER_SIGMA, nextSigma: next === undefined ? undefined : next / TIMESTEPS_PER_SIGMA };
	});
};

/** x0 = x - sigma v, element by element. */
export const cleanEstimate = (x: Float32Array, v: Float32Array, sigma: number): Float32Array =>
	x.map((value, index) => value - sigma * (v[index] ?? Number.NaN));

/** Consistency sampling: back up to `nextSigma` with fresh noise, x' = (1 - s') x0 + s' n'. */
const renoised = (x0: Float32Array, noise: Float32Array, nextSigma: number): Float32Array =>
	x0.map((value, index) => (1 - nextSigma) * value + nextSigma * (noise[index] ?? Number.NaN));

/** One Euler step along the flow: x' = x + (s' - s) v. */
const eulerStep = (x: Float32Array, v: Float32Array, sigma: number, nextSigma: number): Float32Array =>
	x.map((value, index) => value + (nextSigma - sigma) * (v[index] ?? Number.NaN));

/**
 * The state after a step: x at the next level, or x0 after the last one. `freshNoise` is asked only by the sampler that
 * needs it. Never writes its arguments.
 */
export const advance = (
	sampler: ModelSpec['sampler'], step: ScheduleStep, x: Float32Array, v: Float32Array, freshNoise: () => Float32Array,
): Float32Array => {
	if (step.nextSigma === undefined) {
		return cleanEstimate(x, v, step.sigma);
	}
	switch (sampler) {
		case 'renoise':
			return renoised(cleanEstimate(x, v, step.sigma), freshNoise(), step.nextSigma);
		case 'euler':
			return eulerStep(x, v, step.sigma, step.nextSigma);
		default:
			return assertNever(sampler);
	}
};

/** A step as a sum: x' = latent x + velocity v + noise n. */
export type StepFactors = { readonly latent: number; readonly velocity: number; readonly noise: number };

/** What `advance` does, as a device takes it. The factor of the noise is 0 where `advance` draws none. */
export const stepFactors = (sampler: ModelSpec['sampler'], { sigma, nextSigma }: ScheduleStep): StepFactors => {
	if (nextSigma === undefined) {
		return { latent: 1, velocity: -sigma, noise: 0 };
	}
	switch (sampler) {
		case 'renoise':
			return { latent: 1 - nextSigma, velocity: -(1 - nextSigma) * sigma, noise: nextSigma };
		case 'euler':
			return { latent: 1, velocity: nextSigma - sigma, noise: 0 };
		default:
			return assertNever(sampler);
	}
};
