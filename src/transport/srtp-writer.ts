/**
 * Encrypts RTP packets (RFC 3711) with the keys that the library's DTLS handshake gave. The library's own way serialises and copies every packet several
 * times and makes its keys anew for each, which is most of what sending costs.
 *
 * One cipher object serves all packets, and one call of it those of a picture: counter mode is the block cipher on numbers, combined with the payload (NIST
 * SP 800-38A section 6.5), and HMAC is two hashes (RFC 2104 section 2). A cipher and an HMAC object for each packet take nearly twice the time. AES-GCM
 * (RFC 7714) needs an object for each packet in Node, takes a quarter more time, leaves more to be collected, and is therefore not offered.
 */
import { createCipheriv, createSecretKey, hash } from 'node:crypto';

/** SRTP_AES128_CM_HMAC_SHA1_80 (RFC 5764 section 4.1.2), which everybody who speaks WebRTC has (RFC 8827 section 6.5). */
export const SRTP_PROFILE = 0x0001;

export type SrtpKeys = {
	/** 16 bytes. */
	readonly key: Buffer;
	/** 14 bytes. */
	readonly salt: Buffer;
	/** 20 bytes. */
	readonly authentication: Buffer;
};

/** A packet before encryption. `packet` has room for all: header, payload, tag. */
export type PlainPacket = {
	readonly ssrc: number;
	/** 16 bits. */
	readonly sequence: number;
	/** How often the sequence numbers of this stream have wrapped. */
	readonly rollover: number;
	/** Its first `headerBytes` are written. */
	readonly packet: Buffer;
	readonly headerBytes: number;
	readonly payload: Buffer;
};

export type SrtpWriter = {
	/** What encryption adds to a packet. */
	readonly tagBytes: number;
	/** Writes the encrypted payload and the tag behind the header of each packet. */
	readonly write: (packets: readonly PlainPacket[]) => void;
};

const SHA1_TAG_BYTES = 10;
const SHA1_BYTES = 20;
/** What the hash works on, and so the length of a padded key (RFC 2104 section 2). */
const SHA1_BLOCK_BYTES = 64;
const CIPHER_BLOCK_BYTES = 16;
const WORD_BYTES = 4;
const BLOCK_WORDS = CIPHER_BLOCK_BYTES / WORD_BYTES;
const ROLLOVER_BYTES = 4;
/** No way takes longer ones whole (Ethernet, less the headers of IPv4 and UDP). */
const MOST_PACKET_BYTES = 1472;
const MOST_BLOCKS = MOST_PACKET_BYTES / CIPHER_BLOCK_BYTES;
/** Encrypted in one call: a picture of 2 Mbit/s. What a call allocates stays small. */
const MOST_TOGETHER = 16;

const padded = (key: Buffer, padding: number): Buffer => Buffer.from(Array.from({ length: SHA1_BLOCK_BYTES }, (_, index) => (key[index] ?? 0) ^ padding));

/** Bytes that words lie over. Words are only moved and combined, so that the order of their bytes does not matter. */
const wordBytes = (bytes: number): { readonly bytes: Buffer; readonly words: Int32Array } => {
	const buffer = new ArrayBuffer(bytes);
	return { bytes: Buffer.from(buffer), words: new Int32Array(buffer) };
};

/** Shared by all writers: nothing in them outlasts a call. */
const counters = wordBytes(MOST_TOGETHER * MOST_PACKET_BYTES);
const vector = wordBytes(CIPHER_BLOCK_BYTES);
/** The last word of the blocks of a packet, but for its first two bytes. */
const blockNumbers = wordBytes(MOST_BLOCKS * WORD_BYTES);
for (let block = 0; block < MOST_BLOCKS; block += 1) {
	blockNumbers.bytes.writeUInt16BE(block, block * WORD_BYTES + 2);
}

export const createSrtpWriter = ({ key, salt, authentication }: SrtpKeys): SrtpWriter => {
	const cipher = createCipheriv('aes-128-ecb', createSecretKey(key), null).setAutoPadding(false);
	const inner = wordBytes(SHA1_BLOCK_BYTES + MOST_PACKET_BYTES + CIPHER_BLOCK_BYTES);
	inner.bytes.set(padded(authentication, 0x36));
	const outer = Buffer.concat([padded(authentication, 0x5c), Buffer.alloc(SHA1_BYTES)]);

	/** Blocks to encrypt for one packet, from this word of the counters on. Returns where the next begin. */
	const count = ({ ssrc, rollover, sequence, headerBytes, payload }: PlainPacket, from: number): number => {
		const end = headerBytes + payload.length;
		if (end > MOST_PACKET_BYTES || headerBytes % WORD_BYTES !== 0) {
			throw new RangeError(`A packet of ${end} bytes, ${headerBytes} of them header, is longer than ${MOST_PACKET_BYTES} or ends its header inside a word.`);
		}
		// RFC 3711 section 4.1.1: SSRC at byte 4, the 48-bit index at byte 8, combined with the salt; two bytes for the block counter.
		vector.bytes.fill(0);
		vector.bytes.writeUInt32BE(ssrc, 4);
		vector.bytes.writeUInt32BE(rollover, 8);
		vector.bytes.writeUInt16BE(sequence, 12);
		for (let index = 0; index < 14; index += 1) {
			vector.bytes[index] = (vector.bytes[index] ?? 0) ^ (salt[index] ?? 0);
		}
		const [word0 = 0, word1 = 0, word2 = 0, word3 = 0] = vector.words;
		const blocks = Math.ceil(payload.length / CIPHER_BLOCK_BYTES);
		const { words } = counters;
		for (let block = 0, word = from; block < blocks; block += 1, word += BLOCK_WORDS) {
			words[word] = word0;
			words[word + 1] = word1;
			words[word + 2] = word2;
			words[word + 3] = word3 | (blockNumbers.words[block] ?? 0);
		}
		return from + blocks * BLOCK_WORDS;
	};

	const finish = ({ rollover, packet, headerBytes, payload }: PlainPacket, stream: Int32Array, from: number): void => {
		const { bytes, words } = inner;
		const end = SHA1_BLOCK_BYTES + headerBytes + payload.length;
		bytes.set(packet.subarray(0, headerBytes), SHA1_BLOCK_BYTES);
		bytes.set(payload, SHA1_BLOCK_BYTES + headerBytes);
		const last = Math.ceil(end / WORD_BYTES);
		for (let word = (SHA1_BLOCK_BYTES + headerBytes) / WORD_BYTES, at = from; word < last; word += 1, at += 1) {
			words[word] = (words[word] ?? 0) ^ (stream[at] ?? 0);
		}
		packet.set(bytes.subarray(SHA1_BLOCK_BYTES, end));
		bytes.writeUInt32BE(rollover, end);
		outer.write(hash('sha1', bytes.subarray(0, end + ROLLOVER_BYTES), 'binary'), SHA1_BLOCK_BYTES, 'latin1');
		packet.write(hash('sha1', outer, 'binary'), end - SHA1_BLOCK_BYTES, SHA1_TAG_BYTES, 'latin1');
	};

	return {
		tagBytes: SHA1_TAG_BYTES,
		write: (packets) => {
			for (let first = 0; first < packets.length; first += MOST_TOGETHER) {
				const together = packets.slice(first, first + MOST_TOGETHER);
				const starts: number[] = [];
				let word = 0;
				for (const packet of together) {
					starts.push(word);
					word = count(packet, word);
				}
				const encrypted = cipher.update(counters.bytes.subarray(0, word * WORD_BYTES));
				const stream = new Int32Array(encrypted.buffer, encrypted.byteOffset, word);
				for (const [index, packet] of together.entries()) {
					finish(packet, stream, starts[index] ?? 0);
				}
			}
		},
	};
};
