/** Each frame at its time through the encoder to the viewer, with its record, and word of the changes that it is the first to carry. */
import type { EncodedChunk, RawFrame, VideoCodec } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import type { VideoEncoder } from '../media/encoder.js';
import type { TakenFrame } from '../media/pacer.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Viewer } from '../transport/transport.js';
import type { CarriedChange, ChangeLog } from './change-log.js';
import type { FrameLine } from './frame-line.js';

export type SentFrame = { readonly frame: RawFrame; readonly chunk: EncodedChunk; readonly mediaMs: number };
/** A frame at its moment on the media clock, sent to a viewer or, in a session without any, just past. */
export type PlayedFrame = { readonly frame: RawFrame; readonly rtpTimestamp: number; readonly mediaMs: number; readonly takenAtMs: number };

export type PlayoutParts = {
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly clock: Clock;
	readonly encoderFor: (codec: VideoCodec) => Promise<VideoEncoder>;
	readonly watching: () => Viewer | undefined;
	/** Nobody has asked for the video at all: frames pass unseen at their time, and changes count as applied then. */
	readonly isHeadless: () => boolean;
	readonly onSent: (sent: SentFrame) => void;
	readonly onDropped: () => void;
	/** First frame that carries these changes, just played. */
	readonly onApplied: (changes: readonly CarriedChange[], played: PlayedFrame) => void;
	/** The encoder was lost and is being restarted; told once a loss. */
	readonly onLoss: (error: TurbocastError) => void;
};

/** Frames in a row that the encoder may fail: three seconds at 16 frames a second, many times what its restart takes. */
const MOST_ENCODER_FAILURES = 48;
/** After a drop the viewer waits for a key frame; asking for one more often than this would only add to what is too much. */
const KEYFRAME_AFTER_DROP_MS = 500;

/** Plays until the signal aborts, which makes it return. Throws `encoder_failed` when the encoder does not come back. */
export const runPlayout = async (parts: PlayoutParts, signal: AbortSignal): Promise<void> => {
	const { line, changes, clock } = parts;
	let failures = 0;
	let keyframeAskedAtMs = Number.NEGATIVE_INFINITY;

	const encode = async (frame: RawFrame, taken: TakenFrame, viewer: Viewer): Promise<{ chunk: EncodedChunk; encoder: VideoEncoder } | undefined> => {
		try {
			const encoder = await parts.encoderFor(viewer.codec);
			const chunk = await encoder.encode(frame, taken.rtpTimestamp);
			failures = 0;
			return { chunk, encoder };
		} catch (error) {
			signal.throwIfAborted();
			const failure = TurbocastError.from(error, 'encoder_failed');
			failures += 1;
			if (failure.code !== 'encoder_failed' || failures > MOST_ENCODER_FAILURES) {
				throw failure;
			}
			if (failures === 1) {
				parts.onLoss(failure);
			}
			return undefined;
		}
	};

	const apply = (played: PlayedFrame): void => {
		const applied = changes.carriedBy(played.frame.chunkIndex);
		changes.applied(applied);
		if (applied.length > 0) {
			parts.onApplied(applied, played);
		}
	};

	const play = async (frame: RawFrame): Promise<void> => {
		const viewer = parts.watching();
		const takenAtMs = clock.nowMs();
		const taken = line.pacer.frameTaken(takenAtMs);
		const encoded = viewer === undefined ? undefined : await encode(frame, taken, viewer);
		if (viewer === undefined || encoded === undefined) {
			parts.onDropped();
			if (viewer === undefined && parts.isHeadless()) {
				apply({ frame, rtpTimestamp: taken.rtpTimestamp, mediaMs: taken.mediaMs, takenAtMs });
			}
			return;
		}
		const { chunk, encoder } = encoded;
		const encodedAtMs = clock.nowMs();
		if (viewer.send(chunk) === 'dropped') {
			parts.onDropped();
			if (encodedAtMs - keyframeAskedAtMs >= KEYFRAME_AFTER_DROP_MS) {
				keyframeAskedAtMs = encodedAtMs;
				encoder.requestKeyframe();
			}
			return;
		}
		const applied = changes.carriedBy(frame.chunkIndex);
		viewer.sendMeta({
			type: 'frame.meta',
			frame_id: frame.frameId, rtp_timestamp: chunk.rtpTimestamp, chunk_index: frame.chunkIndex, media_ms: taken.mediaMs,
			keyframe: chunk.isKeyframe,
			t_generated_ms: frame.generatedAtMs, t_taken_ms: takenAtMs, t_encoded_ms: encodedAtMs, t_sent_ms: clock.nowMs(),
			applied_event_ids: applied.flatMap((change) => (change.eventId === undefined ? [] : [change.eventId])).slice(0, 64),
		});
		parts.onSent({ frame, chunk, mediaMs: taken.mediaMs });
		apply({ frame, rtpTimestamp: chunk.rtpTimestamp, mediaMs: taken.mediaMs, takenAtMs });
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
