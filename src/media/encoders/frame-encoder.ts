/** What an encoder of a library looks like inside the encoder process; `encoder-process.ts` drives it. */
import type { EncoderOptions } from '../encoder.js';

export const ENCODER_IMPLEMENTATIONS = ['node-av', 'ffmpeg'] as const;
export type EncoderImplementation = (typeof ENCODER_IMPLEMENTATIONS)[number];

export type Picture = { readonly data: Uint8Array; readonly isKeyframe: boolean };

export type FrameEncoder = {
	/** One I420 frame in, its access unit out. One call at a time. The first frame after opening is a key frame. */
	readonly encode: (data: Uint8Array, wanted: { readonly keyframe: boolean; readonly bitrateBps: number }) => Promise<Picture>;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

export type EncoderLibrary = { readonly open: (options: EncoderOptions) => Promise<FrameEncoder> };

/** Half a second: short enough that a key frame cannot fill a link for long, long enough that it may be several times a mean frame. */
export const RATE_BUFFER_SECONDS = 0.5;

/**
 * Options of x264. Superfast measured 0.7 ms a frame at 256x256; zerolatency has no frame of delay. Key frames come only when
 * asked for (no scene cut detection, an endless group of pictures), each with its parameter sets, one slice per picture.
 * Baseline: no B frames, so nothing is reordered.
 */
export const X264_OPTIONS = {
	'preset': 'superfast',
	'tune': 'zerolatency',
	'profile': 'baseline',
	'forced-idr': '1',
	'x264-params': 'scenecut=0:repeat-headers=1:annexb=1:sliced-threads=0:threads=1',
} as const;

/** Options of libvpx for live VP8. `max-intra-rate` keeps a key frame within 4.5 times the mean frame (percent). */
export const VP8_OPTIONS = {
	'deadline': 'realtime',
	'cpu-used': '8',
	'lag-in-frames': '0',
	'max-intra-rate': '450',
} as const;

/** Longest distance of key frames that come by themselves: none does within hours. */
export const ENDLESS_GROUP = 1_000_000;
