/**
 * The directory of a zip archive whose entries are stored, not compressed, as PyTorch writes them (APPNOTE.TXT 6.3.10: section 4.3.16 end
 * of central directory, 4.3.14 zip64, 4.3.12 central headers, 4.3.7 local headers, 4.5.3 zip64 extra field).
 */
import { type ByteSource, damaged } from './byte-source.js';

export type ZipEntry = {
	readonly name: string;
	readonly size: number;
	/** Of the local header; the data begins behind it. */
	readonly headerOffset: number;
};

const SIGNATURE = { end: 0x06054b50, end64: 0x06064b50, locator64: 0x07064b50, central: 0x02014b50, local: 0x04034b50 } as const;
const END_BYTES = 22;
const LOCATOR64_BYTES = 20;
const END64_BYTES = 56;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const MAX_COMMENT_BYTES = 65_535;
/** 14B has about 1100 tensors; a directory of this size would hold a million. */
const MAX_DIRECTORY_BYTES = 128 * 1024 * 1024;
/** Stands in a 32-bit field when the number is in the zip64 extra field. */
const SEE_ZIP64 = 0xffffffff;
const ZIP64_FIELD = 1;
const ENCRYPTED = 1;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const integer64 = (source: ByteSource, view: DataView, offset: number): number => {
	const value = view.getBigUint64(offset, true);
	return value <= BigInt(source.size) ? Number(value) : damaged(source.label, 'its directory points outside the file');
};

type Directory = { readonly offset: number; readonly bytes: number; readonly entries: number };

const findDirectory = async (source: ByteSource): Promise<Directory> => {
	const tailBytes = Math.min(source.size, END_BYTES + MAX_COMMENT_BYTES);
	const tailStart = source.size - tailBytes;
	const tail = viewOf(await source.read(tailStart, tailBytes));
	let at = tailBytes - END_BYTES;
	while (at >= 0 && tail.getUint32(at, true) !== SIGNATURE.end) {
		at -= 1;
	}
	if (at < 0) {
		return damaged(source.label, 'the directory at its end is missing');
	}
	const locatorAt = tailStart + at - LOCATOR64_BYTES;
	if (locatorAt >= 0) {
		const locator = viewOf(await source.read(locatorAt, LOCATOR64_BYTES));
		if (locator.getUint32(0, true) === SIGNATURE.locator64) {
			const end64 = viewOf(await source.read(integer64(source, locator, 8), END64_BYTES));
			if (end64.getUint32(0, true) !== SIGNATURE.end64) {
				return damaged(source.label, 'the zip64 directory is not where the file says');
			}
			return { entries: integer64(source, end64, 32), bytes: integer64(source, end64, 40), offset: integer64(source, end64, 48) };
		}
	}
	return { entries: tail.getUint16(at + 10, true), bytes: tail.getUint32(at + 12, true), offset: tail.getUint32(at + 16, true) };
};

/** The sizes of an entry that do not fit into 32 bits, in the order in which they are asked for. */
const zip64Numbers = (source: ByteSource, extra: DataView, wanted: number): number[] => {
	for (let at = 0; at + 4 <= extra.byteLength;) {
		const [id, size] = [extra.getUint16(at, true), extra.getUint16(at + 2, true)];
		if (id === ZIP64_FIELD && size >= 8 * wanted && at + 4 + size <= extra.byteLength) {
			return Array.from({ length: wanted }, (_, index) => integer64(source, extra, at + 4 + 8 * index));
		}
		at += 4 + size;
	}
	return damaged(source.label, 'an entry of its directory lacks its size');
};

/** Every entry by name. Throws `weights_corrupt` for what is damaged, compressed or encrypted. */
export const readZipDirectory = async (source: ByteSource): Promise<ReadonlyMap<string, ZipEntry>> => {
	const directory = await findDirectory(source);
	if (directory.bytes > MAX_DIRECTORY_BYTES || directory.offset + directory.bytes > source.size) {
		return damaged(source.label, 'its directory does not lie inside the file');
	}
	const bytes = await source.read(directory.offset, directory.bytes);
	const view = viewOf(bytes);
	const entries = new Map<string, ZipEntry>();
	let at = 0;
	for (let index = 0; index < directory.entries; index++) {
		if (at + CENTRAL_BYTES > bytes.length || view.getUint32(at, true) !== SIGNATURE.central) {
			return damaged(source.label, `entry ${index} of its directory is not readable`);
		}
		const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
		const [packed32, size32, offset32] = [view.getUint32(at + 20, true), view.getUint32(at + 24, true), view.getUint32(at + 42, true)];
		const [nameBytes, extraBytes, commentBytes] = [view.getUint16(at + 28, true), view.getUint16(at + 30, true), view.getUint16(at + 32, true)];
		const next = at + CENTRAL_BYTES + nameBytes + extraBytes + commentBytes;
		if (next > bytes.length) {
			return damaged(source.label, `entry ${index} of its directory is not readable`);
		}
		const name = new TextDecoder().decode(bytes.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes));
		if (method !== 0 || (flags & ENCRYPTED) !== 0) {
			return damaged(source.label, `${name} is compressed or encrypted, which PyTorch never does`);
		}
		const extra = viewOf(bytes.subarray(at + CENTRAL_BYTES + nameBytes, at + CENTRAL_BYTES + nameBytes + extraBytes));
		// Section 4.5.3: uncompressed size, compressed size, offset; each only when its own field says so.
		const wide = [size32, packed32, offset32].map((value) => value === SEE_ZIP64);
		const numbers = wide.includes(true) ? zip64Numbers(source, extra, wide.filter(Boolean).length) : [];
		const [size = 0, packed = 0, headerOffset = 0] = [size32, packed32, offset32].map((value, field) => (wide[field] === true ? (numbers.shift() ?? 0) : value));
		if (packed !== size || entries.has(name)) {
			return damaged(source.label, `the entry ${name} stands twice or has two sizes`);
		}
		entries.set(name, { name, size, headerOffset });
		at = next;
	}
	return entries;
};

/** Where the data of an entry begins. Throws `weights_corrupt` when it does not lie inside the file. */
export const zipDataOffset = async (source: ByteSource, entry: ZipEntry): Promise<number> => {
	const header = viewOf(await source.read(entry.headerOffset, LOCAL_BYTES));
	if (header.getUint32(0, true) !== SIGNATURE.local) {
		return damaged(source.label, `the entry ${entry.name} is not where the directory says`);
	}
	const offset = entry.headerOffset + LOCAL_BYTES + header.getUint16(26, true) + header.getUint16(28, true);
	return offset + entry.size <= source.size ? offset : damaged(source.label, `the entry ${entry.name} ends outside the file`);
};
