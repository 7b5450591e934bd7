/** What `frames()` yields. */
import type { FrameMeta } from '../../src/protocol/messages.js';
import type { NodeCodec } from './access-units.js';

/** A picture as it came over the network. */
export type EncodedFrame = {
	readonly kind: 'encoded';
	readonly codec: NodeCodec;
	/** H.264: an access unit in Annex B form, parameter sets before every key frame. VP8: a frame. */
	readonly data: Uint8Array;
	readonly isKeyframe: boolean;
	/** 90 kHz, modulo 2^32. */
	readonly rtpTimestamp: number;
	/** Frame id, chunk, media time, the server's clock and the changes that it is the first to carry; `undefined` when its record was lost. */
	readonly meta: FrameMeta | undefined;
};

/** The same, decoded. */
export type DecodedFrame = Omit<EncodedFrame, 'kind'> & {
	readonly kind: 'decoded';
	readonly width: number;
	readonly height: number;
	/** I420 (8-bit 4:2:0, planes Y, U, V without padding), `width * height * 3 / 2` bytes; BT.709, limited range. */
	readonly pixels: Uint8Array;
};
