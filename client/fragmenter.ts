/**
 * H.264 access units as fragmented MP4 (ISO/IEC 14496-12, 14496-15), one fragment a picture, so that none waits for the next. Libraries
 * cut fragments at key frames; a live stream here has none for minutes.
 */

/** Ticks a second of the media times in the file. */
export const TIMESCALE = 90_000;

const NAL_SPS = 7;
const NAL_PPS = 8;

type Part = Uint8Array | string | readonly number[];

const bytesOf = (parts: readonly Part[]): Uint8Array => {
	const arrays = parts.map((part) => (typeof part === 'string' ? Uint8Array.from(part, (letter) => letter.charCodeAt(0)) : part instanceof Uint8Array ? part : Uint8Array.from(part)));
	const bytes = new Uint8Array(arrays.reduce((sum, array) => sum + array.length, 0));
	let at = 0;
	for (const array of arrays) {
		bytes.set(array, at);
		at += array.length;
	}
	return bytes;
};

const u16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff];
const u32 = (value: number): number[] => [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
const u64 = (value: number): number[] => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
const zeros = (count: number): number[] => new Array<number>(count).fill(0);

const box = (type: string, ...parts: readonly Part[]): Uint8Array => {
	const body = bytesOf(parts);
	return bytesOf([u32(body.length + 8), type, body]);
};
const fullBox = (type: string, flags: number, ...parts: readonly Part[]): Uint8Array => box(type, u32(flags), ...parts);

/** Units of an Annex B stream (ITU-T H.264 annex B), without start codes. */
const nalUnits = (data: Uint8Array): Uint8Array[] => {
	const starts: number[] = [];
	for (let at = 0; at + 3 <= data.length; at += 1) {
		if (data[at] === 0 && data[at + 1] === 0 && data[at + 2] === 1) {
			starts.push(at + 3);
		}
	}
	return starts.map((start, index) => {
		let end = index + 1 < starts.length ? (starts[index + 1] ?? 0) - 3 : data.length;
		while (end > start && data[end - 1] === 0) {
			end -= 1;
		}
		return data.subarray(start, end);
	});
};

const typeOf = (unit: Uint8Array): number => (unit[0] ?? 0) & 0x1f;
/** Identity (ISO/IEC 14496-12 section 6.2.2). */
const MATRIX = [...u32(0x1_0000), ...zeros(12), ...u32(0x1_0000), ...zeros(12), ...u32(0x4000_0000)];

/** `ftyp` and `moov`, from a key frame with its parameter sets; `undefined` when it has none. */
export const initSegment = (keyframe: Uint8Array, width: number, height: number): Uint8Array | undefined => {
	const units = nalUnits(keyframe);
	const sps = units.find((unit) => typeOf(unit) === NAL_SPS);
	const pps = units.find((unit) => typeOf(unit) === NAL_PPS);
	if (sps === undefined || pps === undefined) {
		return undefined;
	}
	const avcC = box('avcC', [1, sps[1] ?? 0, sps[2] ?? 0, sps[3] ?? 0, 0xff, 0xe1], u16(sps.length), sps, [1], u16(pps.length), pps);
	const avc1 = box('avc1', zeros(6), u16(1), zeros(16), u16(width), u16(height), u32(0x48_0000), u32(0x48_0000), zeros(4), u16(1), zeros(32), u16(0x18), u16(0xffff), avcC);
	const stbl = box('stbl',
		fullBox('stsd', 0, u32(1), avc1), fullBox('stts', 0, u32(0)), fullBox('stsc', 0, u32(0)), fullBox('stsz', 0, u32(0), u32(0)), fullBox('stco', 0, u32(0)));
	const minf = box('minf', fullBox('vmhd', 1, zeros(8)), box('dinf', fullBox('dref', 0, u32(1), fullBox('url ', 1))), stbl);
	const mdia = box('mdia',
		fullBox('mdhd', 0, zeros(8), u32(TIMESCALE), u32(0), u16(0x55c4), u16(0)),
		fullBox('hdlr', 0, u32(0), 'vide', zeros(12), [0]), minf);
	const tkhd = fullBox('tkhd', 3, zeros(8), u32(1), zeros(4), u32(0), zeros(16), MATRIX, u32(width * 0x1_0000), u32(height * 0x1_0000));
	return bytesOf([
		box('ftyp', 'iso5', u32(0), 'iso5', 'iso6', 'avc1'),
		box('moov',
			fullBox('mvhd', 0, zeros(8), u32(TIMESCALE), u32(0), u32(0x1_0000), u16(0x100), zeros(10), MATRIX, zeros(24), u32(2)),
			box('trak', tkhd, mdia),
			box('mvex', fullBox('trex', 0, u32(1), u32(1), u32(0), u32(0), u32(0)))),
	]);
};

export type Fragment = { readonly sequence: number; /** Ticks of `TIMESCALE`. */ readonly time: number; readonly duration: number; readonly isKeyframe: boolean };

/** `moof` and `mdat` of one picture. */
export const fragment = (accessUnit: Uint8Array, { sequence, time, duration, isKeyframe }: Fragment): Uint8Array => {
	// With lengths instead of start codes (ISO/IEC 14496-15 section 5.3.3); parameter sets are in the first segment.
	const sample = bytesOf(nalUnits(accessUnit).filter((unit) => typeOf(unit) !== NAL_SPS && typeOf(unit) !== NAL_PPS).flatMap((unit) => [u32(unit.length), unit]));
	// Depends on no other, or on others and is no sync sample (section 8.8.3.1).
	const flags = isKeyframe ? 0x0200_0000 : 0x0101_0000;
	const moof = (offset: number): Uint8Array => box('moof',
		fullBox('mfhd', 0, u32(sequence)),
		box('traf',
			// Offsets count from the start of this box.
			fullBox('tfhd', 0x02_0000, u32(1)),
			fullBox('tfdt', 0x0100_0000, u64(time)),
			// One sample with its offset, duration, size and flags.
			fullBox('trun', 0x701, u32(1), u32(offset), u32(duration), u32(sample.length), u32(flags))));
	return bytesOf([moof(moof(0).length + 8), box('mdat', sample)]);
};
