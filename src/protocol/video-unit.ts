/**
 * A picture on the control socket: one binary frame, for who cannot be reached by WebRTC. Numbers are big-endian.
 *
 * | byte | what |
 * |---|---|
 * | 0 | kind, 1 |
 * | 1 | flags: bit 0 key frame; the others are 0 |
 * | 2 | length of the codec string, C |
 * | 3 | 0 |
 * | 4, 6 | width and height in pixels, 16 bits each; of key frames, otherwise 0 |
 * | 8 | RTP timestamp, 90 kHz, 32 bits |
 * | 12 | frame id modulo 2^32 |
 * | 16 | codec string, C bytes of ASCII, as WebCodecs takes it (`avc1.42c01f`, `vp8`); of key frames |
 * | 16 + C | the access unit: H.264 in Annex B with its parameter sets before every key frame, or a VP8 frame |
 *
 * The record of the frame follows as a `frame.meta` text message.
 */
import { TurbocastError } from './errors.js';

const KIND = 1;
const FLAG_KEYFRAME = 1;
const HEADER_BYTES = 16;
/** Longest codec string: those of WebCodecs have at most some twenty characters. */
const MAX_CODEC_STRING = 64;

/** Of a key frame: what a decoder is configured with. */
export type UnitFormat = { readonly codecString: string; readonly width: number; readonly height: number };

export type VideoUnit = {
	readonly frameId: number;
	readonly rtpTimestamp: number;
	/** With every key frame, and with nothing else. */
	readonly format: UnitFormat | undefined;
	readonly data: Uint8Array;
};

export const encodeVideoUnit = ({ frameId, rtpTimestamp, format, data }: VideoUnit): Uint8Array => {
	const codecString = format?.codecString ?? '';
	const bytes = new Uint8Array(HEADER_BYTES + codecString.length + data.byteLength);
	const view = new DataView(bytes.buffer);
	view.setUint8(0, KIND);
	view.setUint8(1, format === undefined ? 0 : FLAG_KEYFRAME);
	view.setUint8(2, codecString.length);
	view.setUint16(4, format?.width ?? 0);
	view.setUint16(6, format?.height ?? 0);
	view.setUint32(8, rtpTimestamp >>> 0);
	view.setUint32(12, frameId >>> 0);
	for (let at = 0; at < codecString.length; at += 1) {
		bytes[HEADER_BYTES + at] = codecString.charCodeAt(at);
	}
	bytes.set(data, HEADER_BYTES + codecString.length);
	return bytes;
};

/** The unit shares the bytes. `undefined` for a kind that a newer server may send. Throws `invalid_message`. */
export const parseVideoUnit = (bytes: Uint8Array): VideoUnit | undefined => {
	const refuse = (what: string): never => {
		throw new TurbocastError('invalid_message', `A binary frame ${what}.`);
	};
	if (bytes.byteLength > 0 && bytes[0] !== KIND) {
		return undefined;
	}
	if (bytes.byteLength < HEADER_BYTES) {
		return refuse(`has at least ${HEADER_BYTES} bytes, not ${bytes.byteLength}`);
	}
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const isKeyframe = (view.getUint8(1) & FLAG_KEYFRAME) !== 0;
	const length = view.getUint8(2);
	const [width, height] = [view.getUint16(4), view.getUint16(6)];
	if (bytes.byteLength <= HEADER_BYTES + length || length > MAX_CODEC_STRING) {
		return refuse('ends before its picture');
	}
	if (isKeyframe && (length === 0 || width === 0 || height === 0)) {
		return refuse('with a key frame names its codec and size');
	}
	const codecString = String.fromCharCode(...bytes.subarray(HEADER_BYTES, HEADER_BYTES + length));
	return {
		frameId: view.getUint32(12), rtpTimestamp: view.getUint32(8),
		format: isKeyframe ? { codecString, width, height } : undefined,
		data: bytes.subarray(HEADER_BYTES + length),
	};
};
