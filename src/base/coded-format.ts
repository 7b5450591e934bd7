/** What a key frame says of itself: the codec string of RFC 6381 and the size, from the bitstream. */
import type { VideoCodec } from './frame.js';

/** Pixels. */
export type CodedFormat = { readonly codecString: string; readonly width: number; readonly height: number };

/** `nal_unit_type` (ITU-T H.264 table 7-1). */
const NAL_SPS = 7;
/** Profiles whose parameter sets say more about colour (ITU-T H.264 section 7.3.2.1.1). */
const HIGH_PROFILES: ReadonlySet<number> = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128]);

/** The units of an Annex B byte stream, without start codes (ITU-T H.264 annex B). */
export const nalUnits = (data: Uint8Array): Uint8Array[] => {
	const starts: number[] = [];
	for (let at = 0; at + 3 <= data.length; at += 1) {
		if (data[at] === 0 && data[at + 1] === 0 && data[at + 2] === 1) {
			starts.push(at + 3);
			at += 2;
		}
	}
	return starts.map((start, index) => {
		let end = index + 1 < starts.length ? (starts[index + 1] ?? 0) - 3 : data.length;
		// A zero before the next start code belongs to that.
		while (end > start && data[end - 1] === 0) {
			end -= 1;
		}
		return data.subarray(start, end);
	});
};

/** Reads the bits of a unit, past the bytes that keep start codes out of it. */
class BitReader {
	readonly #bytes: Uint8Array;
	#at = 0;

	constructor(unit: Uint8Array) {
		this.#bytes = Uint8Array.from(unit.filter((byte, index) => !(byte === 3 && unit[index - 1] === 0 && unit[index - 2] === 0)));
	}

	bits(count: number): number {
		let value = 0;
		for (let index = 0; index < count; index += 1, this.#at += 1) {
			value = value * 2 + (((this.#bytes[this.#at >> 3] ?? 0) >> (7 - (this.#at & 7))) & 1);
		}
		return value;
	}

	/** Exp-Golomb, unsigned (ITU-T H.264 section 9.1). */
	ue(): number {
		let zeros = 0;
		while (this.bits(1) === 0 && zeros < 32) {
			zeros += 1;
		}
		return 2 ** zeros - 1 + this.bits(zeros);
	}

	se(): number {
		const code = this.ue();
		return code % 2 === 0 ? -code / 2 : (code + 1) / 2;
	}
}

const skipScalingLists = (reader: BitReader, count: number): void => {
	for (let list = 0; list < count; list += 1) {
		if (reader.bits(1) === 0) {
			continue;
		}
		for (let index = 0, last = 8, next = 8; index < (list < 6 ? 16 : 64); index += 1) {
			next = next === 0 ? 0 : (last + reader.se() + 256) % 256;
			last = next === 0 ? last : next;
		}
	}
};

/** ITU-T H.264 section 7.3.2.1.1; all streams here are 4:2:0 without fields, others are read as well. */
const h264Format = (sps: Uint8Array): CodedFormat => {
	const reader = new BitReader(sps.subarray(1));
	const [profile, constraints, level] = [reader.bits(8), reader.bits(8), reader.bits(8)];
	reader.ue();
	let chroma = 1;
	if (HIGH_PROFILES.has(profile)) {
		chroma = reader.ue();
		if (chroma === 3) {
			reader.bits(1);
		}
		reader.ue();
		reader.ue();
		reader.bits(1);
		if (reader.bits(1) === 1) {
			skipScalingLists(reader, chroma === 3 ? 12 : 8);
		}
	}
	reader.ue();
	const order = reader.ue();
	if (order === 0) {
		reader.ue();
	} else if (order === 1) {
		reader.bits(1);
		reader.se();
		reader.se();
		for (let count = Math.min(255, reader.ue()); count > 0; count -= 1) {
			reader.se();
		}
	}
	reader.ue();
	reader.bits(1);
	const columns = reader.ue() + 1;
	const mapRows = reader.ue() + 1;
	const frameOnly = reader.bits(1);
	if (frameOnly === 0) {
		reader.bits(1);
	}
	reader.bits(1);
	const crop = reader.bits(1) === 1 ? [reader.ue(), reader.ue(), reader.ue(), reader.ue()] : [0, 0, 0, 0];
	const [left = 0, right = 0, top = 0, bottom = 0] = crop;
	const unitX = chroma === 1 || chroma === 2 ? 2 : 1;
	const unitY = (chroma === 1 ? 2 : 1) * (2 - frameOnly);
	const hex = [profile, constraints, level].map((byte) => byte.toString(16).padStart(2, '0')).join('');
	return {
		codecString: `avc1.${hex}`,
		width: columns * 16 - unitX * (left + right), height: mapRows * 16 * (2 - frameOnly) - unitY * (top + bottom),
	};
};

/** Of a key frame; `undefined` for a frame that does not say. */
export const codedFormatOf = (codec: VideoCodec, data: Uint8Array): CodedFormat | undefined => {
	if (codec === 'vp8') {
		// Frame tag, start code, size (RFC 6386 section 9.1).
		const isKeyframe = data.length >= 10 && ((data[0] ?? 1) & 1) === 0 && data[3] === 0x9d && data[4] === 0x01 && data[5] === 0x2a;
		return isKeyframe ? { codecString: 'vp8', width: ((data[6] ?? 0) | ((data[7] ?? 0) << 8)) & 0x3fff, height: ((data[8] ?? 0) | ((data[9] ?? 0) << 8)) & 0x3fff } : undefined;
	}
	const sps = nalUnits(data).find((unit) => ((unit[0] ?? 0) & 0x1f) === NAL_SPS);
	return sps === undefined ? undefined : h264Format(sps);
};
