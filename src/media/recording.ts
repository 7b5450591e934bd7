/** The last minutes of a session as they were sent: access units in a ring that is bounded in time and bytes, so that a file of them is made without encoding. */
import { codedFormatOf, type CodedFormat } from '../base/coded-format.js';
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import { TurbocastError } from '../protocol/errors.js';

export type RecordingLimits = { readonly mostMs: number; readonly mostBytes: number };

export type RecordedUnit = {
	readonly data: Uint8Array;
	/** 90 kHz, modulo 2^32. */
	readonly rtpTimestamp: number;
	/** Time of the video itself. */
	readonly mediaMs: number;
	/** Of key frames. */
	readonly format: CodedFormat | undefined;
};

export type RecordedPart = { readonly codec: VideoCodec; readonly format: CodedFormat; /** From a key frame on. */ readonly units: readonly RecordedUnit[] };

/** Both in media time; what is left out is as early or as late as there is. */
export type RecordedSpan = { readonly fromMs?: number | undefined; readonly toMs?: number | undefined; /** Instead of `fromMs`, before the end. */ readonly lastMs?: number | undefined };

/** Frames are left out of an encode while its viewers are behind; two seconds without any, and its viewers are gone: the other codec's encode is followed. */
const OTHER_CODEC_AFTER_FRAMES = 32;
/** A file begins at a key frame, so a span is exact to this; a key frame every five seconds costs some tenth of the rate. */
const KEYFRAME_EVERY_MS = 5000;

type Entry = RecordedUnit & { readonly codec: VideoCodec };

const isSame = (a: CodedFormat, b: CodedFormat): boolean => a.codecString === b.codecString && a.width === b.width && a.height === b.height;

export class Recording {
	readonly #limits: RecordingLimits;
	/** Bounded by `limits`, and begins with a key frame. */
	readonly #units: Entry[] = [];
	#bytes = 0;
	/** The last frame, whichever codec it came in. */
	#last: { readonly codec: VideoCodec; readonly frameId: number } | undefined;
	#keyframeAtMs = Number.NEGATIVE_INFINITY;

	constructor(limits: RecordingLimits) {
		this.#limits = limits;
	}

	get bytes(): number {
		return this.#bytes;
	}

	/**
	 * Takes the next access unit of an encode, of one codec while it lasts; frames that were never encoded are no gap, for what follows does not build on them.
	 * Whether a key frame should come soon.
	 */
	add(chunk: EncodedChunk, mediaMs: number): boolean {
		const isBroken = this.#last !== undefined && this.#last.codec !== chunk.codec;
		if (this.#last !== undefined && isBroken && chunk.frameId <= this.#last.frameId + OTHER_CODEC_AFTER_FRAMES) {
			return false;
		}
		const format = chunk.isKeyframe ? codedFormatOf(chunk.codec, chunk.data) : undefined;
		if (format === undefined && (isBroken || this.#units.length === 0)) {
			// Builds on what is not here.
			return true;
		}
		this.#last = { codec: chunk.codec, frameId: chunk.frameId };
		this.#units.push({ codec: chunk.codec, data: chunk.data, rtpTimestamp: chunk.rtpTimestamp, mediaMs, format });
		this.#bytes += chunk.data.byteLength;
		if (format !== undefined) {
			this.#keyframeAtMs = mediaMs;
		}
		this.#forget(mediaMs);
		return mediaMs - this.#keyframeAtMs >= KEYFRAME_EVERY_MS;
	}

	/**
	 * What was asked for, from the key frame at or before its begin. A file has one codec and one size: where they changed inside the span, the part
	 * after the last change. Throws `invalid_state` when there is nothing.
	 */
	cut({ fromMs, toMs = Number.POSITIVE_INFINITY, lastMs }: RecordedSpan): RecordedPart {
		const end = this.#units.findLastIndex(({ mediaMs }) => mediaMs <= toMs);
		const beginMs = lastMs === undefined ? (fromMs ?? Number.NEGATIVE_INFINITY) : (this.#units[end]?.mediaMs ?? 0) - lastMs;
		const asked = this.#units.findLastIndex(({ format, mediaMs }, index) => index <= end && format !== undefined && mediaMs <= beginMs);
		let format: CodedFormat | undefined;
		let first = Math.max(0, asked);
		for (let index = first; index <= end; index += 1) {
			const own = this.#units[index]?.format;
			if (own !== undefined && (format === undefined || !isSame(own, format))) {
				format = own;
				first = index;
			}
		}
		const units = this.#units.slice(first, end + 1);
		const [begin] = units;
		if (begin === undefined || format === undefined || (this.#units[end]?.mediaMs ?? 0) < beginMs) {
			throw new TurbocastError('invalid_state', 'Nothing of that span is recorded: frames are while somebody watches, for as long as recording.minutes says.');
		}
		return { codec: begin.codec, format, units };
	}

	#forget(nowMs: number): void {
		for (;;) {
			const next = this.#units.findIndex(({ format }, index) => index > 0 && format !== undefined);
			const isTooOld = next > 0 && nowMs - (this.#units[next]?.mediaMs ?? 0) >= this.#limits.mostMs;
			if (this.#bytes <= this.#limits.mostBytes && !isTooOld) {
				return;
			}
			// Without another key frame to begin with, nothing of it is of use.
			for (const { data } of this.#units.splice(0, next > 0 ? next : this.#units.length)) {
				this.#bytes -= data.byteLength;
			}
			if (this.#units.length === 0) {
				return;
			}
		}
	}
}
