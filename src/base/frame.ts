/** The two currencies of the pipeline. Whoever receives one owns it; its bytes are never written again. */

/** One picture, I420 (8-bit 4:2:0, planes Y, U, V one after the other without padding), BT.709, limited range. */
export type RawFrame = {
	/** Counts the frames of a stream from 0 without gaps, across chunks and engine restarts. */
	readonly frameId: number;
	readonly chunkIndex: number;
	/** Index of the frame inside its chunk. */
	readonly indexInChunk: number;
	/** Pixels; both even. */
	readonly width: number;
	readonly height: number;
	/** `width * height * 3 / 2` bytes. */
	readonly data: Uint8Array;
	/** Engine host's monotonic clock when the frame arrived. */
	readonly generatedAtMs: number;
};

export const i420Bytes = (width: number, height: number): number => (width * height * 3) / 2;

export const VIDEO_CODECS = ['h264', 'vp8'] as const;
export type VideoCodec = (typeof VIDEO_CODECS)[number];

/** One compressed picture: an access unit (H.264, Annex B, parameter sets repeated with every key frame) or a VP8 frame. */
export type EncodedChunk = {
	readonly codec: VideoCodec;
	readonly data: Uint8Array;
	readonly isKeyframe: boolean;
	readonly frameId: number;
	/** 90 kHz, modulo 2^32. */
	readonly rtpTimestamp: number;
	/** Time inside the encoder. */
	readonly encodeMs: number;
	/** When the encoder was given the picture, monotonic clock; stands for its capture. Where it is missing, the time of sending does. */
	readonly capturedAtMs?: number;
};
