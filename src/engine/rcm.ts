/**
 * The few-step sampler of TurboDiffusion (rCM): a whole clip in one to four forwards, without guidance. Flow convention: x_t =
 * (1 - t) x0 + t n, v = n - x0. The state is float64 and starts as noise * t_0; the network gets it in float32, and its timestep
 * rounded to bfloat16, while the arithmetic here keeps the times unrounded.
 */
import { rcmTimestep } from '../model/rcm-times.js';
import { assertNever } from '../protocol/assert-never.js';
import type { StepFactors } from './schedule.js';

export { MAX_RCM_STEPS, rcmTimes, rcmTimestep } from '../model/rcm-times.js';

/** Largest noise-to-signal ratios that the checkpoints were made for. */
export const SIGMA_MAX = { textToVideo: 80, imageToVideo: 200 } as const;

/** `sde` draws fresh noise after every step, `ode` follows the flow. */
export const RCM_SOLVERS = ['sde', 'ode'] as const;
export type RcmSolver = (typeof RCM_SOLVERS)[number];

/** Which of two networks (Wan 2.2: one for high noise, one for low) takes each step; once low, always low. */
export const rcmExperts = (times: readonly number[], boundary: number): ('high' | 'low')[] => {
	const switchAt = times.findIndex((time) => time < boundary);
	return times.slice(0, -1).map((_, step) => (switchAt !== -1 && step >= switchAt ? 'low' : 'high'));
};

/** The state after a step from `time` to `next`. `freshNoise` is asked only by the solver that needs it. */
export const rcmUpdate = (
	solver: RcmSolver, x: Float64Array, velocity: Float32Array, time: number, next: number, freshNoise: () => Float32Array,
): Float64Array => {
	switch (solver) {
		case 'sde': {
			const noise = freshNoise();
			return x.map((value, index) => (1 - next) * (value - time * (velocity[index] ?? Number.NaN)) + next * (noise[index] ?? Number.NaN));
		}
		case 'ode':
			return x.map((value, index) => value - (time - next) * (velocity[index] ?? Number.NaN));
		default:
			return assertNever(solver);
	}
};

/** The same as a sum, as a device takes it. The factor of the noise is 0 where none is drawn, as after the last step. */
export const rcmFactors = (solver: RcmSolver, time: number, next: number): StepFactors => {
	switch (solver) {
		case 'sde':
			return { latent: 1 - next, velocity: -(1 - next) * time, noise: next };
		case 'ode':
			return { latent: 1, velocity: next - time, noise: 0 };
		default:
			return assertNever(solver);
	}
};

export type RcmLoop = {
	/** As `rcmTimes` gives them. */
	readonly times: readonly number[];
	readonly solver: RcmSolver;
	/** Standard normal, the size of the latent. */
	readonly noise: Float32Array;
	/** Standard normal, for the step from 0; the last step asks too, though its weight is 0. */
	readonly freshNoise: (step: number) => Float32Array;
	/** One forward of the network for step `step`: the velocity. */
	readonly forward: (latent: Float32Array, timestep: number, step: number) => Promise<Float32Array>;
};

/** The state after each step; the last is the clean latent. */
export const rcmLoop = async function* ({ times, solver, noise, freshNoise, forward }: RcmLoop): AsyncGenerator<Float64Array> {
	let x: Float64Array = Float64Array.from(noise, (value) => value * (times[0] ?? Number.NaN));
	for (const [step, time] of times.slice(0, -1).entries()) {
		const velocity = await forward(Float32Array.from(x), rcmTimestep(time), step);
		x = rcmUpdate(solver, x, velocity, time, times[step + 1] ?? Number.NaN, () => freshNoise(step));
		yield x;
	}
};
