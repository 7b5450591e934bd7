/** The noise levels that rCM's few-step sampler (engine/rcm.ts) visits. */
import { TurbocastError } from '../protocol/errors.js';
import { roundToBfloat16 } from './bfloat16.js';

/** Angles after the first step (x = cos a x0 + sin a n). Fewer steps cut the list off; they are not spread anew. */
const LATER_ANGLES = [1.5, 1.4, 1.0] as const;
export const MAX_RCM_STEPS = LATER_ANGLES.length + 1;

/** Angle to flow time in [0, 1]. */
const flowTime = (angle: number): number => Math.sin(angle) / (Math.cos(angle) + Math.sin(angle));

/** Flow times visited, `steps` + 1 of them, the last 0. Throws `invalid_request`. */
export const rcmTimes = (sigmaMax: number, steps: number): number[] => {
	if (!Number.isInteger(steps) || steps < 1 || steps > MAX_RCM_STEPS) {
		throw new TurbocastError('invalid_request', `steps must be a whole number from 1 to ${MAX_RCM_STEPS} for this sampler, not ${steps}.`, { param: 'steps' });
	}
	return [...[Math.atan(sigmaMax), ...LATER_ANGLES].slice(0, steps).map(flowTime), 0];
};

/** What the network is told for a flow time: 1000 t in bfloat16 (988, 932, 852 and 608 in four steps). */
export const rcmTimestep = (time: number): number => roundToBfloat16(1000 * time);
