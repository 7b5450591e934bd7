/** Whether, and after how long, a lost engine process is started again: numbers in, number out. */

export type RestartPolicy = {
	/** That many crashes within `withinMs` and the engine is given up. */
	readonly maxCrashes: number;
	readonly withinMs: number;
	/** Wait before the first restart; doubles with every further crash within `withinMs`. */
	readonly firstDelayMs: number;
	readonly maxDelayMs: number;
};

export const RESTART_POLICY: RestartPolicy = {
	// A process that dies five times a minute does not die by accident; a rare crash a day is forgiven for ever.
	maxCrashes: 5,
	withinMs: 60_000,
	// People are watching: the first restart comes almost at once, later ones leave the machine room to recover.
	firstDelayMs: 50,
	maxDelayMs: 2_000,
};

/** `crashesMs` are the moments of all crashes so far, the latest included. Returns `undefined` when it is time to give up. */
export const restartDelayMs = (crashesMs: readonly number[], nowMs: number, policy: RestartPolicy = RESTART_POLICY): number | undefined => {
	const recent = crashesMs.filter((atMs) => nowMs - atMs < policy.withinMs).length;
	return recent >= policy.maxCrashes ? undefined : Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** Math.max(0, recent - 1));
};
