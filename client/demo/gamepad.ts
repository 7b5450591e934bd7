/** A gamepad steers the pads of the page: the left stick the first, the right stick the second. */

/** Sticks do not rest exactly in their middle. */
const DEAD_ZONE = 0.18;
const SMALLEST_CHANGE = 0.06;
/** A change lands on the next chunk: more often would only use up what may be sent. */
const INTERVAL_MS = 66;

export type StickAxes = readonly [leftX: number, leftY: number, rightX: number, rightY: number];

const settle = (value: number | undefined): number => (value === undefined || Math.abs(value) < DEAD_ZONE ? 0 : Math.round(value * 50) / 50);

/** Looks at the sticks while a gamepad is there, and tells of what they say when that changes. */
export const watchGamepads = (onMove: (axes: StickAxes) => void): void => {
	let last: StickAxes = [0, 0, 0, 0];
	let timer: ReturnType<typeof setInterval> | undefined;
	const look = (): void => {
		const pad = navigator.getGamepads().find((entry) => entry !== null);
		const axes: StickAxes = [settle(pad?.axes[0]), settle(pad?.axes[1]), settle(pad?.axes[2]), settle(pad?.axes[3])];
		if (axes.some((value, index) => Math.abs(value - (last[index] ?? 0)) >= SMALLEST_CHANGE || (value === 0 && last[index] !== 0))) {
			last = axes;
			onMove(axes);
		}
		if (pad === undefined) {
			clearInterval(timer);
			timer = undefined;
		}
	};
	addEventListener('gamepadconnected', () => {
		timer ??= setInterval(look, INTERVAL_MS);
	});
};
