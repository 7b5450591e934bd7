/**
 * IVF, the plainest container with lengths and times. Fields are little-endian.
 *
 *     file header, 32 bytes                          frame header, 12 bytes
 *     0 "DKIF"   4 version u16   6 header bytes u16   0 frame bytes u32
 *     8 fourcc  12 width u16    14 height u16         4 time u64, in units of the time base
 *    16 time base denominator u32   20 numerator u32
 *    24 frame count u32 (0: unknown)   28 unused
 */
const FILE_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 12;

export const ivfFileHeader = (fourcc: string, width: number, height: number, timeUnitsPerSecond: number): Buffer => {
	const header = Buffer.alloc(FILE_HEADER_BYTES);
	header.write('DKIF', 0, 'latin1');
	header.writeUInt16LE(FILE_HEADER_BYTES, 6);
	header.write(fourcc, 8, 4, 'latin1');
	header.writeUInt16LE(width, 12);
	header.writeUInt16LE(height, 14);
	header.writeUInt32LE(timeUnitsPerSecond, 16);
	header.writeUInt32LE(1, 20);
	return header;
};

export const ivfFrameHeader = (bytes: number, time: number): Buffer => {
	const header = Buffer.alloc(FRAME_HEADER_BYTES);
	header.writeUInt32LE(bytes, 0);
	header.writeBigUInt64LE(BigInt(time), 4);
	return header;
};

/** Splits a stream of IVF into its frames, whatever the pieces it comes in. */
export class IvfReader {
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
		const frames: Buffer[] = [];
		while (this.#rest.length >= FRAME_HEADER_BYTES) {
			const end = FRAME_HEADER_BYTES + this.#rest.readUInt32LE(0);
			if (this.#rest.length < end) {
				break;
			}
			frames.push(this.#rest.subarray(FRAME_HEADER_BYTES, end));
			this.#rest = this.#rest.subarray(end);
		}
		return frames;
	}
}
