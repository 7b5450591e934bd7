/** When each picture of the control socket came and was decoded, by the media time under which a `<video>` shows it. */

/** Two seconds at 30 frames a second: more pictures are not between the network and the screen. */
const KEPT = 60;
/** Half a frame at 60 frames a second: media times come back rounded. */
const TOLERANCE_US = 8000;

export type FrameTime = {
	/** 90 kHz, modulo 2^32. */
	readonly rtpTimestamp: number;
	/** On the clock of `performance.now()`. */
	readonly receivedAtMs: number;
	readonly decodedAtMs: number | undefined;
};

export class FrameTimes {
	readonly #frames = new Map<number, FrameTime>();
	readonly #isShownByTime: boolean;
	#last: { readonly rtpTimestamp: number; readonly timestampUs: number } | undefined;

	/** @param isShownByTime whether the `<video>` tells pictures by the times given here. A captured canvas has a clock of its own. */
	constructor(isShownByTime = true) {
		this.#isShownByTime = isShownByTime;
	}

	/** Gives the media time of a picture that has just come, µs: it never goes back and has no holes longer than `mostUs`, whatever the stream did. */
	received(rtpTimestamp: number, mostUs = Number.POSITIVE_INFINITY): number {
		const last = this.#last;
		const elapsedUs = last === undefined ? 0 : Math.min(mostUs, Math.max(1, Math.round((((rtpTimestamp - last.rtpTimestamp) | 0) * 100) / 9)));
		const timestampUs = (last?.timestampUs ?? 0) + elapsedUs;
		this.#last = { rtpTimestamp, timestampUs };
		this.#frames.set(timestampUs, { rtpTimestamp, receivedAtMs: performance.now(), decodedAtMs: undefined });
		for (const oldest of this.#frames.keys()) {
			if (this.#frames.size <= KEPT) {
				break;
			}
			this.#frames.delete(oldest);
		}
		return timestampUs;
	}

	decoded(timestampUs: number): void {
		const frame = this.#frames.get(timestampUs);
		if (frame !== undefined) {
			this.#frames.set(timestampUs, { ...frame, decodedAtMs: performance.now() });
		}
	}

	/**
	 * The picture that a `<video>` shows at this media time, s. Where that is of another clock, and may be near the time of an old picture by chance,
	 * it is the newest that was decoded: early by at most a frame.
	 */
	shown(mediaTimeS: number): FrameTime | undefined {
		return (this.#isShownByTime ? this.#at(mediaTimeS * 1e6) : undefined) ?? [...this.#frames.values()].findLast(({ decodedAtMs }) => decodedAtMs !== undefined);
	}

	/** Media time of the newest, µs. */
	get newestUs(): number | undefined {
		return this.#last?.timestampUs;
	}

	#at(wantedUs: number): FrameTime | undefined {
		let best: { readonly frame: FrameTime; readonly distanceUs: number } | undefined;
		for (const [timestampUs, frame] of this.#frames) {
			const distanceUs = Math.abs(timestampUs - wantedUs);
			if (distanceUs <= TOLERANCE_US && distanceUs < (best?.distanceUs ?? Number.POSITIVE_INFINITY)) {
				best = { frame, distanceUs };
			}
		}
		return best?.frame;
	}
}
