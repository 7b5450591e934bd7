/**
 * Just enough of FLV (Adobe Flash Video File Format Specification 10.1, annex E) to take H.264 access units out of a pipe.
 * Why FLV: an Annex B stream shows the end of a picture only when the next one begins, which would cost a frame of delay; a tag
 * says its length first. Fields are big-endian.
 *
 *     file header 9 bytes, then 4 bytes; then tags:
 *     0 type u8 (9 video)   1 body bytes u24   4 time u24 + u8   8 stream u24   11 body   then the tag's size u32
 *     body: 0 frame type (4 bits, 1 key) and codec (4 bits, 7 AVC)   1 packet type u8 (1 NAL units)   2 offset u24
 *           5 NAL units, each after its length u32
 */
const FILE_HEADER_BYTES = 13;
const TAG_HEADER_BYTES = 11;
const TAG_TRAILER_BYTES = 4;
const VIDEO_TAG = 9;
const NAL_UNITS_PACKET = 1;
const NAL_TYPE_SEI = 6;
const START_CODE = Buffer.from([0, 0, 0, 1]);

/** NAL units with lengths to Annex B. SEI is left out: here it is only x264 telling its settings. */
const annexB = (units: Buffer): Buffer => {
	const parts: Buffer[] = [];
	for (let offset = 0; offset + 4 < units.length;) {
		const end = offset + 4 + units.readUInt32BE(offset);
		const unit = units.subarray(offset + 4, end);
		if (((unit[0] ?? 0) & 0x1f) !== NAL_TYPE_SEI) {
			parts.push(START_CODE, unit);
		}
		offset = end;
	}
	return Buffer.concat(parts);
};

/** Splits a stream of FLV into the access units of its H.264 track, whatever the pieces it comes in. */
export class FlvReader {
	#rest: Buffer = Buffer.alloc(0);
	#headerSeen = false;

	push(bytes: Buffer): Buffer[] {
		this.#rest = Buffer.concat([this.#rest, bytes]);
		if (!this.#headerSeen) {
			if (this.#rest.length < FILE_HEADER_BYTES) {
				return [];
			}
			this.#rest = this.#rest.subarray(FILE_HEADER_BYTES);
			this.#headerSeen = true;
		}
		const units: Buffer[] = [];
		while (this.#rest.length >= TAG_HEADER_BYTES) {
			const bodyEnd = TAG_HEADER_BYTES + this.#rest.readUIntBE(1, 3);
			if (this.#rest.length < bodyEnd + TAG_TRAILER_BYTES) {
				break;
			}
			const body = this.#rest.subarray(TAG_HEADER_BYTES, bodyEnd);
			if (this.#rest[0] === VIDEO_TAG && body[1] === NAL_UNITS_PACKET) {
				units.push(annexB(body.subarray(5)));
			}
			this.#rest = this.#rest.subarray(bodyEnd + TAG_TRAILER_BYTES);
		}
		return units;
	}
}
