/**
 * Key frames on request, not more often than is good for everyone: all viewers of an encode share its encoder, so what one asks for all of
 * them pay. Requests within an interval are met by one key frame at its end; the first after a quiet time is met by the next frame.
 */
import type { EncodeName } from './encodes.js';

/** A key frame is five to ten times the size of another: at this distance they take up to half of the bitrate, for as long as somebody asks. */
export const LEAST_KEYFRAME_INTERVAL_MS = 200;

type Entry = { isWanted: boolean; producedAtMs: number };

export class KeyframeGate {
	readonly #entries = new Map<EncodeName, Entry>();

	request(encode: EncodeName): void {
		this.#entry(encode).isWanted = true;
	}

	/** Whether the frame that is encoded now should be one. */
	isDue(encode: EncodeName, nowMs: number): boolean {
		const { isWanted, producedAtMs } = this.#entry(encode);
		return isWanted && nowMs - producedAtMs >= LEAST_KEYFRAME_INTERVAL_MS;
	}

	/** A key frame came, on request or by itself, and goes to everyone who watches now: whoever asked before has it. */
	produced(encode: EncodeName, nowMs: number): void {
		const entry = this.#entry(encode);
		entry.isWanted = false;
		entry.producedAtMs = nowMs;
	}

	#entry(encode: EncodeName): Entry {
		const entry = this.#entries.get(encode) ?? { isWanted: false, producedAtMs: Number.NEGATIVE_INFINITY };
		this.#entries.set(encode, entry);
		return entry;
	}
}
