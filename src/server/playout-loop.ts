/**
 * Each frame at its time through one encoder a codec to all who watch, with its record, and word of the changes that it is the first to carry.
 * Sending never waits: a viewer that cannot take a frame loses it, and the others do not notice.
 */
import type { EncodedChunk, RawFrame, VideoCodec } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import type { VideoEncoder } from '../media/encoder.js';
import type { TakenFrame } from '../media/pacer.js';
import { TurbocastError } from '../protocol/errors.js';
import type { FrameMeta } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import type { CarriedChange, ChangeLog } from './change-log.js';
import type { FrameLine } from './frame-line.js';
import type { KeyframeGate } from './keyframe-gate.js';

/** A frame at its moment on the media clock, sent to viewers or, in a session without any, just past. */
export type PlayedFrame = { readonly frame: RawFrame; readonly rtpTimestamp: number; readonly mediaMs: number; readonly takenAtMs: number };

/** What became of a frame, for one viewer: it could not take it; or for all: nobody watched, or the encoder failed. */
export const FRAME_LOSSES = ['dropped', 'unseen', 'lost'] as const;
export type FrameLoss = (typeof FRAME_LOSSES)[number];

export type PlayoutParts = {
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly clock: Clock;
	readonly encoderFor: (codec: VideoCodec) => Promise<VideoEncoder>;
	readonly keyframes: KeyframeGate;
	/** Those that can be sent to now. */
	readonly watching: () => readonly Viewer[];
	/** Nobody has asked for the video at all: frames pass unseen at their time, and changes count as applied then. */
	readonly isHeadless: () => boolean;
	/** A frame's moment has come, whether or not anybody sees it. */
	readonly onPlayed: (played: PlayedFrame) => void;
	/** Encoded once, and sent to so many. */
	readonly onSent: (chunk: EncodedChunk, viewers: number) => void;
	readonly onLost: (loss: FrameLoss) => void;
	/** First frame that carries these changes, just played. */
	readonly onApplied: (changes: readonly CarriedChange[], played: PlayedFrame) => void;
	/** The encoder was lost and is being restarted; told once a loss. */
	readonly onLoss: (error: TurbocastError) => void;
};

/** Frames in a row that no encoder could make: three seconds at 16 frames a second, many times what a restart takes. */
const MOST_ENCODER_FAILURES = 48;
/**
 * After a drop a viewer waits for a key frame. One is asked for at once, the next after this, then after twice as long: a viewer that
 * stays stuck must not make the picture of all others worse.
 */
const FIRST_KEYFRAME_AFTER_DROP_MS = 500;
const LONGEST_KEYFRAME_AFTER_DROP_MS = 4000;
const MOST_META_EVENTS = 64;

type Stuck = { askAtMs: number; delayMs: number };

/** Plays until the signal aborts, which makes it return. Throws `encoder_failed` when no encoder comes back. */
export const runPlayout = async (parts: PlayoutParts, signal: AbortSignal): Promise<void> => {
	const { line, changes, clock, keyframes } = parts;
	const failures = new Map<VideoCodec, number>();
	/** Viewers that dropped the frame before. */
	const stuck = new WeakMap<Viewer, Stuck>();

	const encode = async (frame: RawFrame, taken: TakenFrame, codec: VideoCodec): Promise<EncodedChunk | undefined> => {
		try {
			const encoder = await parts.encoderFor(codec);
			if (keyframes.isDue(codec, clock.nowMs())) {
				encoder.requestKeyframe();
			}
			const chunk = await encoder.encode(frame, taken.rtpTimestamp);
			failures.delete(codec);
			if (chunk.isKeyframe) {
				keyframes.produced(codec, clock.nowMs());
			}
			return chunk;
		} catch (error) {
			signal.throwIfAborted();
			const failure = TurbocastError.from(error, 'encoder_failed');
			const count = (failures.get(codec) ?? 0) + 1;
			failures.set(codec, count);
			if (failure.code !== 'encoder_failed' || count > MOST_ENCODER_FAILURES) {
				throw failure;
			}
			if (count === 1) {
				parts.onLoss(failure);
			}
			return undefined;
		}
	};

	const dropped = (viewer: Viewer): void => {
		parts.onLost('dropped');
		const nowMs = clock.nowMs();
		const before = stuck.get(viewer);
		if (before !== undefined && nowMs < before.askAtMs) {
			return;
		}
		const delayMs = before === undefined ? FIRST_KEYFRAME_AFTER_DROP_MS : Math.min(LONGEST_KEYFRAME_AFTER_DROP_MS, before.delayMs * 2);
		stuck.set(viewer, { askAtMs: nowMs + delayMs, delayMs });
		keyframes.request(viewer.codec);
	};

	/** Sends to everyone of this codec, who came while the frame was encoded too. False when nobody could take it. */
	const send = (chunk: EncodedChunk, meta: FrameMeta): boolean => {
		let viewers = 0;
		for (const viewer of parts.watching()) {
			if (viewer.codec !== chunk.codec) {
				continue;
			}
			if (viewer.send(chunk) === 'dropped') {
				dropped(viewer);
				continue;
			}
			stuck.delete(viewer);
			viewer.sendMeta(meta);
			viewers += 1;
		}
		if (viewers > 0) {
			parts.onSent(chunk, viewers);
		}
		return viewers > 0;
	};

	const play = async (frame: RawFrame): Promise<void> => {
		const takenAtMs = clock.nowMs();
		const taken = line.pacer.frameTaken(takenAtMs);
		parts.onPlayed({ frame, rtpTimestamp: taken.rtpTimestamp, mediaMs: taken.mediaMs, takenAtMs });
		const codecs = new Set(parts.watching().map((viewer) => viewer.codec));
		const carried = changes.carriedBy(frame.chunkIndex);
		const outcomes = await Promise.all([...codecs].map(async (codec) => {
			const chunk = await encode(frame, taken, codec);
			if (chunk === undefined) {
				parts.onLost('lost');
				return false;
			}
			// Before the other codec is done: one that is slow costs only its own viewers.
			return send(chunk, {
				type: 'frame.meta',
				frame_id: frame.frameId, rtp_timestamp: chunk.rtpTimestamp, chunk_index: frame.chunkIndex, media_ms: taken.mediaMs,
				keyframe: chunk.isKeyframe,
				t_generated_ms: frame.generatedAtMs, t_taken_ms: takenAtMs, t_encoded_ms: clock.nowMs(), t_sent_ms: clock.nowMs(),
				applied_event_ids: carried.flatMap((change) => (change.eventId === undefined ? [] : [change.eventId])).slice(0, MOST_META_EVENTS),
			});
		}));
		if (codecs.size === 0) {
			parts.onLost('unseen');
		}
		if ((outcomes.includes(true) || (codecs.size === 0 && parts.isHeadless())) && carried.length > 0) {
			changes.applied(carried);
			parts.onApplied(carried, { frame, rtpTimestamp: taken.rtpTimestamp, mediaMs: taken.mediaMs, takenAtMs });
		}
	};

	try {
		for (;;) {
			await play(await line.takeDue(signal));
		}
	} catch (error) {
		if (!signal.aborted) {
			throw error;
		}
	}
};
