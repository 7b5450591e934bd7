/** What an encoder of a library looks like inside the encoder process; `encoder-process.ts` drives it. */
import type { VideoCodec } from '../../base/frame.js';
import type { EncoderOptions } from '../encoder.js';

/** Best first. */
export const SOFTWARE_ENCODERS = ['node-av', 'ffmpeg'] as const;
export type SoftwareEncoder = (typeof SOFTWARE_ENCODERS)[number];
/** H.264 alone is encoded by these; VP8 stays with libvpx. */
export const HARDWARE_ENCODERS = ['nvenc', 'vaapi', 'videotoolbox'] as const;
export type HardwareEncoder = (typeof HARDWARE_ENCODERS)[number];
export const ENCODER_IMPLEMENTATIONS = [...SOFTWARE_ENCODERS, ...HARDWARE_ENCODERS] as const;
export type EncoderImplementation = (typeof ENCODER_IMPLEMENTATIONS)[number];

export type Picture = { readonly data: Uint8Array; readonly isKeyframe: boolean };

export type FrameEncoder = {
	/** One I420 frame in, its access unit out. One call at a time. The first frame after opening is a key frame. */
	readonly encode: (data: Uint8Array, wanted: { readonly keyframe: boolean; readonly bitrateBps: number }) => Promise<Picture>;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

export type EncoderLibrary = {
	readonly open: (options: EncoderOptions) => Promise<FrameEncoder>;
	/** The pictures (I420) of access units that begin with a key frame; fewer when some cannot be decoded. */
	readonly decode: (codec: VideoCodec, size: { readonly width: number; readonly height: number }, units: readonly Uint8Array[]) => Promise<Uint8Array[]>;
};

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

/** Options of NVIDIA's encoder: no frame of delay, constant rate, and IDR pictures where key frames are asked for. */
export const NVENC_OPTIONS = { 'preset': 'p4', 'tune': 'ull', 'zerolatency': '1', 'delay': '0', 'rc': 'cbr', 'profile': 'baseline', 'forced-idr': '1' } as const;

/** Options of Apple's encoder. Its software is left out: x264 is the better one. */
export const VIDEOTOOLBOX_OPTIONS = { 'profile': 'baseline', 'realtime': '1', 'allow_sw': '0' } as const;
