/**
 * The live video encoder as the main process sees it. The encoder itself runs in a process of its own (`encoder-process.ts`);
 * `EncoderHost` implements this over it, with the encoder that measured best first and ffmpeg as the fallback.
 */
import type { EncodedChunk, RawFrame, VideoCodec } from '../base/frame.js';
import type { EncoderImplementation } from './encoders/frame-encoder.js';

export type EncoderOptions = {
	readonly codec: VideoCodec;
	/** Pixels, even. */
	readonly width: number;
	readonly height: number;
	/** Frames a second, for rate control. */
	readonly fps: number;
	readonly bitrateBps: number;
	/** Frames of that size are encoded at half of it. */
	readonly halves?: boolean;
};

/** One encoder: one per session, codec and size, whatever the number of viewers. */
export type VideoEncoder = {
	readonly codec: VideoCodec;
	/** A new bitrate costs a key frame. */
	readonly isRateCostly: boolean;
	/**
	 * Encodes one frame; chunks come out in the order of the frames. Never drops: rejects with `encoder_failed` when
	 * the encoder process died (it is restarted; the next frame then is a key frame).
	 */
	readonly encode: (frame: RawFrame, rtpTimestamp: number) => Promise<EncodedChunk>;
	/** The next frame that is encoded becomes a key frame. */
	readonly requestKeyframe: () => void;
	/** Takes effect with the next frame, without a key frame where the encoder can. */
	readonly setBitrate: (bitrateBps: number) => void;
	/** Idempotent. Frames in flight reject. */
	readonly close: () => Promise<void>;
};

export type Encoders = {
	/** What stands behind: for the log and `/metrics`. */
	readonly implementation: EncoderImplementation;
	readonly codecs: readonly VideoCodec[];
	readonly open: (options: EncoderOptions) => Promise<VideoEncoder>;
	/** Ends the process; idempotent. */
	readonly close: () => Promise<void>;
};
