/**
 * Encrypts RTP packets (RFC 3711; RFC 7714 for AES-GCM) with the keys that the library's DTLS handshake gave. The library's own way
 * serialises and copies every packet several times and makes its keys anew for each, which is most of what sending costs.
 */
import { createCipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto';

export const SRTP_PROFILES = { aesCmHmacSha1: 0x0001, aesGcm: 0x0007 } as const;

export type SrtpKeys = {
	/** RFC 5764 section 4.1.2, RFC 7714 section 14.2. */
	readonly profile: number;
	/** 16 bytes. */
	readonly key: Buffer;
	/** 14 bytes, of which AES-GCM uses 12. */
	readonly salt: Buffer;
	/** 20 bytes; AES-GCM has none. */
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
	/** Writes the encrypted payload and the tag behind the header. */
	readonly write: (plain: PlainPacket) => void;
};

const gcmWriter = (key: KeyObject, salt: Buffer): SrtpWriter => {
	const vector = Buffer.alloc(12);
	return {
		tagBytes: 16,
		write: ({ ssrc, sequence, rollover, packet, headerBytes, payload }) => {
			// RFC 7714 section 8.1: two zero bytes, SSRC, rollover counter, sequence number; combined with the salt.
			vector.fill(0, 0, 2);
			vector.writeUInt32BE(ssrc, 2);
			vector.writeUInt32BE(rollover, 6);
			vector.writeUInt16BE(sequence, 10);
			for (let index = 0; index < 12; index += 1) {
				vector[index] = (vector[index] ?? 0) ^ (salt[index] ?? 0);
			}
			const cipher = createCipheriv('aes-128-gcm', key, vector);
			cipher.setAAD(packet.subarray(0, headerBytes));
			packet.set(cipher.update(payload), headerBytes);
			cipher.final();
			packet.set(cipher.getAuthTag(), headerBytes + payload.length);
		},
	};
};

const SHA1_TAG_BYTES = 10;

const counterModeWriter = (key: KeyObject, salt: Buffer, authentication: KeyObject): SrtpWriter => {
	const vector = Buffer.alloc(16);
	const rolloverBytes = Buffer.alloc(4);
	return {
		tagBytes: SHA1_TAG_BYTES,
		write: ({ ssrc, sequence, rollover, packet, headerBytes, payload }) => {
			// RFC 3711 section 4.1.1: SSRC at byte 4, the 48-bit index at byte 8, combined with the salt; two bytes for the block counter.
			vector.fill(0);
			vector.writeUInt32BE(ssrc, 4);
			vector.writeUInt32BE(rollover, 8);
			vector.writeUInt16BE(sequence, 12);
			for (let index = 0; index < 14; index += 1) {
				vector[index] = (vector[index] ?? 0) ^ (salt[index] ?? 0);
			}
			const end = headerBytes + payload.length;
			packet.set(createCipheriv('aes-128-ctr', key, vector).update(payload), headerBytes);
			rolloverBytes.writeUInt32BE(rollover);
			const tag = createHmac('sha1', authentication).update(packet.subarray(0, end)).update(rolloverBytes).digest();
			packet.set(tag.subarray(0, SHA1_TAG_BYTES), end);
		},
	};
};

export const createSrtpWriter = ({ profile, key, salt, authentication }: SrtpKeys): SrtpWriter =>
	profile === SRTP_PROFILES.aesGcm
		? gcmWriter(createSecretKey(key), salt)
		: counterModeWriter(createSecretKey(key), salt, createSecretKey(authentication));
