/** Times of runs, and what is told of them. */

/** The value below which `share` (0..1) of the numbers lie; nearest rank. NaN of none. */
export const percentile = (values: readonly number[], share: number): number =>
	[...values].sort((a, b) => a - b)[Math.max(0, Math.ceil(share * values.length) - 1)] ?? Number.NaN;

export type Times = {
	/** With what a first run does once: shaders are compiled, memory is found. */
	readonly firstMs: number;
	readonly medianMs: number;
	readonly p95Ms: number;
	readonly fastestMs: number;
	/** Besides the first; 0 where that alone took longer than all were to take, and stands for them. */
	readonly runs: number;
};

const MAX_RUNS = 40;

/** Runs until `budgetMs` are over, forty times at most, after `warmRuns` that are not counted, the first among them. */
export const timeRuns = async (run: () => Promise<unknown>, budgetMs: number, nowMs: () => number, warmRuns = 1): Promise<Times> => {
	const timed = async (): Promise<number> => {
		const startMs = nowMs();
		await run();
		return nowMs() - startMs;
	};
	const firstMs = await timed();
	for (let warm = 1; warm < warmRuns; warm++) {
		await run();
	}
	const endMs = nowMs() + budgetMs - (warmRuns > 1 ? 0 : firstMs);
	const times: number[] = [];
	while (times.length < MAX_RUNS && nowMs() < endMs) {
		times.push(await timed());
	}
	const told = times.length === 0 ? [firstMs] : times;
	return { firstMs, medianMs: percentile(told, 0.5), p95Ms: percentile(told, 0.95), fastestMs: Math.min(...told), runs: times.length };
};
