/** A progress bar for a terminal; anywhere else it prints nothing. */

const WIDTH = 30;

export type Progress = { readonly update: (done: number) => void; readonly end: () => void };

/** `nowMs` is a monotonic clock; the line is rewritten at most ten times a second. */
export const createProgress = (output: NodeJS.WriteStream, total: number, fps: number, nowMs: () => number): Progress => {
	if (!output.isTTY) {
		return { update: () => undefined, end: () => undefined };
	}
	const startedAtMs = nowMs();
	let drawnAtMs = Number.NEGATIVE_INFINITY;
	const draw = (done: number): void => {
		const filled = Math.round((WIDTH * done) / total);
		const elapsedSeconds = Math.max(0.001, (nowMs() - startedAtMs) / 1000);
		const speed = done / elapsedSeconds / fps;
		output.write(`\r[${'█'.repeat(filled)}${'·'.repeat(WIDTH - filled)}] ${done}/${total} frames  ${speed.toFixed(1)}x real time `);
	};
	return {
		update: (done) => {
			if (done === total || nowMs() - drawnAtMs >= 100) {
				drawnAtMs = nowMs();
				draw(done);
			}
		},
		end: () => {
			output.write('\n');
		},
	};
};
