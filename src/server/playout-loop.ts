/**
 * Each frame at its time through one encoder a codec and size to all who watch, with its record, and word of the changes that it is the first to carry.
 * Sending never waits: a viewer that cannot take a frame loses it, and the others do not notice.
 */
import type { EncodedChunk, RawFrame } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import type { VideoEncoder } from '../media/encoder.js';
import type { TakenFrame } from '../media/pacer.js';
import { TurbocastError } from '../protocol/errors.js';
import type { FrameMeta } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import type { CarriedChange, ChangeLog } from './change-log.js';
import { RateFollower, type EncodeName, type Encodes } from './encodes.js';
import type { FrameLine } from './frame-line.js';
import type { KeyframeGate } from './keyframe-gate.js';

/** A frame at its moment on the media clock, sent to viewers or, in a session without any, just past. */
export type PlayedFrame = { readonly frame: RawFrame; readonly rtpTimestamp: number; readonly mediaMs: number; readonly takenAtMs: number };

/** What became of a frame, for one viewer: it could not take it, or was spared it while its way is full; or for all: nobody watched, or the encoder failed. */
export const FRAME_LOSSES = ['dropped', 'skipped', 'unseen', 'lost'] as const;
export type FrameLoss = (typeof FRAME_LOSSES)[number];

export type PlayoutParts = {
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly clock: Clock;
	readonly encoderFor: (encode: EncodeName) => Promise<VideoEncoder>;
	readonly encodes: Encodes;
	readonly keyframes: KeyframeGate;
	/** Those that can be sent to now. */
	readonly watching: () => readonly Viewer[];
	/** Nobody has asked for the video at all: frames pass unseen at their time, and changes count as applied then. */
	readonly isHeadless: () => boolean;
	/** A frame's moment has come, whether or not anybody sees it. */
	readonly onPlayed: (played: PlayedFrame) => void;
	/** Encoded once, and sent to so many. `bitrateBps` is the one in force. */
	readonly onSent: (chunk: EncodedChunk, viewers: number, bitrateBps: number) => void;
	/** Every access unit of an encode, in order, whether or not anybody could take it. */
	readonly onEncoded: (chunk: EncodedChunk, encode: EncodeName) => void;
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
/**
 * A frame is not even encoded while what was sent before needs longer than this to arrive, for half of those who would get it: sent, it would only come
 * later than one that is made later, and not encoded it takes nothing from the frames after it, which do not refer to it.
 */
export const MOST_BACKLOG_MS = 150;
/** Viewers that are sent a frame in one turn of the event loop: about 2 ms, after which others have theirs. */
const VIEWERS_A_TURN = 8;

/** Of its own member alone: those of others may be the same by chance, and are none of its business. */
const eventIdsFor = (viewer: Viewer, carried: readonly CarriedChange[]): string[] =>
	carried.flatMap(({ eventId, author }) => (eventId === undefined || (author !== undefined && author.video.watching !== viewer) ? [] : [eventId])).slice(0, MOST_META_EVENTS);

type Stuck = { askAtMs: number; delayMs: number };

/** Plays until the signal aborts, which makes it return. Throws `encoder_failed` when no encoder comes back. */
export const runPlayout = async (parts: PlayoutParts, signal: AbortSignal): Promise<void> => {
	const { line, changes, clock, keyframes, encodes } = parts;
	const failures = new Map<EncodeName, number>();
	const rates = new Map<EncodeName, RateFollower>();
	/** Viewers that get another encode than before, and have not had its key frame. */
	const moved = new WeakSet<Viewer>();
	/** Viewers that dropped the frame before. */
	const stuck = new WeakMap<Viewer, Stuck>();

	const followRate = (encoder: VideoEncoder, name: EncodeName, viewers: readonly Viewer[]): void => {
		const wantedBps = encodes.rateFor(name, viewers);
		const rate = rates.get(name);
		if (rate === undefined) {
			rates.set(name, new RateFollower(wantedBps, encoder.isRateCostly));
			encoder.setBitrate(wantedBps);
		} else if (rate.follow(wantedBps, clock.nowMs())) {
			encoder.setBitrate(rate.bps);
		}
	};

	const encode = async (frame: RawFrame, taken: TakenFrame, name: EncodeName, viewers: readonly Viewer[]): Promise<EncodedChunk | undefined> => {
		try {
			const encoder = await parts.encoderFor(name);
			followRate(encoder, name, viewers);
			if (keyframes.isDue(name, clock.nowMs())) {
				encoder.requestKeyframe();
			}
			const chunk = await encoder.encode(frame, taken.rtpTimestamp);
			failures.delete(name);
			if (chunk.isKeyframe) {
				keyframes.produced(name, clock.nowMs());
			}
			return chunk;
		} catch (error) {
			signal.throwIfAborted();
			const failure = TurbocastError.from(error, 'encoder_failed');
			const count = (failures.get(name) ?? 0) + 1;
			failures.set(name, count);
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
		keyframes.request(encodes.of(viewer));
	};

	/** Sends to everyone who gets this encode, who came while the frame was encoded too. False when nobody could take it. */
	const send = async (chunk: EncodedChunk, name: EncodeName, meta: FrameMeta, carried: readonly CarriedChange[]): Promise<boolean> => {
		let sent = 0;
		let tried = 0;
		for (const viewer of parts.watching()) {
			if (encodes.of(viewer) !== name || viewer.codec !== chunk.codec || (moved.has(viewer) && !chunk.isKeyframe)) {
				continue;
			}
			tried += 1;
			if (tried % VIEWERS_A_TURN === 0) {
				await clock.sleep(0);
			}
			moved.delete(viewer);
			if (viewer.send(chunk) === 'dropped') {
				dropped(viewer);
				continue;
			}
			stuck.delete(viewer);
			viewer.sendMeta(carried.length === 0 ? meta : { ...meta, applied_event_ids: eventIdsFor(viewer, carried) });
			sent += 1;
		}
		if (sent > 0) {
			parts.onSent(chunk, sent, rates.get(name)?.bps ?? 0);
		}
		return sent > 0;
	};

	/** Who gets which encode of the next frame. */
	const group = (): Map<EncodeName, Viewer[]> => {
		const groups = new Map<EncodeName, Viewer[]>();
		for (const viewer of parts.watching()) {
			if (encodes.update(viewer, clock.nowMs())) {
				moved.add(viewer);
				keyframes.request(encodes.of(viewer));
			}
			const name = encodes.of(viewer);
			groups.set(name, [...(groups.get(name) ?? []), viewer]);
		}
		return groups;
	};

	const play = async (frame: RawFrame): Promise<void> => {
		const takenAtMs = clock.nowMs();
		const taken = line.pacer.frameTaken(takenAtMs);
		parts.onPlayed({ frame, rtpTimestamp: taken.rtpTimestamp, mediaMs: taken.mediaMs, takenAtMs });
		const groups = group();
		const carried = changes.carriedBy(frame.chunkIndex);
		const outcomes = await Promise.all([...groups].map(async ([name, viewers]) => {
			if (2 * viewers.filter(({ backlogMs }) => backlogMs > MOST_BACKLOG_MS).length >= viewers.length) {
				viewers.forEach(() => parts.onLost('skipped'));
				return false;
			}
			const chunk = await encode(frame, taken, name, viewers);
			if (chunk === undefined) {
				parts.onLost('lost');
				return false;
			}
			parts.onEncoded(chunk, name);
			// Before the other encodes are done: one that is slow costs only its own viewers.
			return await send(chunk, name, {
				type: 'frame.meta',
				frame_id: frame.frameId, rtp_timestamp: chunk.rtpTimestamp, chunk_index: frame.chunkIndex, media_ms: taken.mediaMs,
				keyframe: chunk.isKeyframe,
				t_generated_ms: frame.generatedAtMs, t_taken_ms: takenAtMs, t_encoded_ms: clock.nowMs(), t_sent_ms: clock.nowMs(),
				applied_event_ids: [],
			}, carried);
		}));
		if (groups.size === 0) {
			parts.onLost('unseen');
		}
		if ((outcomes.includes(true) || (groups.size === 0 && parts.isHeadless())) && carried.length > 0) {
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
