/** Access units to RTP payloads, once for all who get them: only headers and keys differ between viewers. */
import { H264Packetizer, Vp8Packetizer } from 'werift';
import type { EncodedChunk } from '../base/frame.js';

/** What one packet carries (RFC 6184 or RFC 7741). Its bytes are shared by all viewers and their histories, and never written. */
export type Payload = {
	readonly data: Buffer;
	/** The last of its picture. */
	readonly marker: boolean;
};

/** With the headers, the tag of SRTP and the two bytes more of a repeat, a packet then fits into 1280 bytes, which every way of IPv6 takes (RFC 8200 section 5). */
export const MAX_PAYLOAD_BYTES = 1160;

const h264 = new H264Packetizer({ inputFormat: 'annexb', maxPayloadSize: MAX_PAYLOAD_BYTES });
const known = new WeakMap<EncodedChunk, readonly Payload[]>();

const cut = ({ codec, data, frameId, rtpTimestamp }: EncodedChunk): Payload[] => {
	const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
	// The number of a VP8 picture is its frame's, so that it goes on over encoders and viewers alike; 15 bits (RFC 7741 section 4.2).
	const packetizer = codec === 'h264' ? h264 : new Vp8Packetizer({ pictureId: frameId & 0x7fff, maxPayloadSize: MAX_PAYLOAD_BYTES });
	return packetizer.packetize(bytes, rtpTimestamp).map(({ payload, header }) => ({ data: payload, marker: header.marker }));
};

/** The same payloads for every call with the same chunk. */
export const packetise = (chunk: EncodedChunk): readonly Payload[] => {
	const before = known.get(chunk);
	if (before !== undefined) {
		return before;
	}
	const payloads = cut(chunk);
	known.set(chunk, payloads);
	return payloads;
};
