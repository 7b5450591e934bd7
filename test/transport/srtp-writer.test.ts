/** What is written here is read by the library, and is what the library would have written. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { ProtectionProfileAes128CmHmacSha1_80, RtpHeader, RtpPacket, SrtpSession } from 'werift';
import { absSendTime, ntpTimestamp } from '../../src/base/ntp.js';
import { CAPTURE_TIME_URI, PLAYOUT_DELAY_URI, RtpWriter } from '../../src/transport/rtp-writer.js';
import { createSrtpWriter } from '../../src/transport/srtp-writer.js';

const stream = {
	ssrc: 0xdeadbeef, payloadType: 102, mid: '0',
	extensions: [
		{ id: 3, uri: 'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01' }, { id: 1, uri: 'urn:ietf:params:rtp-hdrext:sdes:mid' },
		{ id: 2, uri: 'http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time' }, { id: 5, uri: PLAYOUT_DELAY_URI }, { id: 6, uri: CAPTURE_TIME_URI },
	],
};

const fields = { marker: true, sequence: 65_535, timestamp: 0xfedcba98, transportSequence: 0x1234, sentAtNtpMs: 3_900_000_000_500, capturedAt: 0x0123456789abcdefn };

describe('a header', () => {
	test('holds every field and extension, read by the library', () => {
		const writer = new RtpWriter(stream);
		const packet = Buffer.alloc(writer.headerBytes(fields));
		writer.write(packet, fields);
		const { header } = RtpPacket.deSerialize(packet);
		assert.equal(header.marker, true);
		assert.equal(header.payloadType, 102);
		assert.equal(header.sequenceNumber, 65_535);
		assert.equal(header.timestamp, 0xfedcba98);
		assert.equal(header.ssrc, 0xdeadbeef);
		assert.equal(header.payloadOffset, packet.length);
		assert.deepEqual(header.extensions.map(({ id, payload }) => [id, payload.toString('hex')]), [
			[1, '30'], [2, absSendTime(fields.sentAtNtpMs).toString(16).padStart(6, '0')], [3, '1234'], [5, '000014'], [6, '0123456789abcdef'],
		]);
	});

	test('is shorter without the time of capture, and without extensions has none', () => {
		const writer = new RtpWriter(stream);
		assert.ok(writer.headerBytes({ ...fields, capturedAt: undefined }) < writer.headerBytes(fields));
		const bare = new RtpWriter({ ...stream, extensions: [] });
		assert.equal(bare.headerBytes(fields), 12);
		assert.equal(bare.isNumbered, false);
		assert.equal(writer.isNumbered, true);
	});

	test('times: fractions of a second are fractions of 2^32 and 2^18', () => {
		assert.equal(ntpTimestamp(1500), (1n << 32n) | 0x80000000n);
		assert.equal(absSendTime(64_000 + 1500), (1 << 18) + (1 << 17));
	});
});

describe('a packet', () => {
	test('is what the library would have written, whatever its length, also after the numbers have wrapped', () => {
		const profile = ProtectionProfileAes128CmHmacSha1_80;
		const keys = { localMasterKey: randomBytes(16), localMasterSalt: randomBytes(14), remoteMasterKey: randomBytes(16), remoteMasterSalt: randomBytes(14) };
		const sending = new SrtpSession({ profile, keys });
		const { localContext } = sending;
		const srtp = createSrtpWriter({ key: localContext.srtpSessionKey, salt: localContext.srtpSessionSalt, authentication: localContext.srtpSessionAuthTag });
		const writer = new RtpWriter(stream);
		const headerBytes = writer.headerBytes(fields);
		const written = (sequence: number, rollover: number, payload: Buffer): Buffer => {
			const packet = Buffer.alloc(headerBytes + payload.length + srtp.tagBytes);
			writer.write(packet, { ...fields, sequence });
			srtp.write([{ ssrc: stream.ssrc, sequence, rollover, packet, headerBytes, payload }]);
			return packet;
		};
		const expected = (payload: Buffer, packet: Buffer): string => sending.encrypt(payload, RtpHeader.deSerialize(packet.subarray(0, headerBytes))).toString('hex');
		for (const [sequence, rollover, bytes] of [[65_530, 0, 1], [65_531, 0, 15], [65_532, 0, 16], [65_533, 0, 17], [65_534, 0, 1160], [65_535, 0, 1162], [0, 1, 1159], [1, 1, 4]] as const) {
			// Part of a bigger buffer, at a place that no word begins at, as payloads are.
			const payload = randomBytes(bytes + 3).subarray(3);
			const packet = written(sequence, rollover, payload);
			assert.equal(packet.toString('hex'), expected(payload, packet), `sequence ${sequence}`);
		}
		assert.throws(() => written(2, 1, Buffer.alloc(1472)), RangeError);
	});

	test('is the same when many are written at once, of all lengths, two streams and the wrap of their numbers among them', () => {
		const profile = ProtectionProfileAes128CmHmacSha1_80;
		const keys = { localMasterKey: randomBytes(16), localMasterSalt: randomBytes(14), remoteMasterKey: randomBytes(16), remoteMasterSalt: randomBytes(14) };
		const sending = new SrtpSession({ profile, keys });
		const { localContext } = sending;
		const srtp = createSrtpWriter({ key: localContext.srtpSessionKey, salt: localContext.srtpSessionSalt, authentication: localContext.srtpSessionAuthTag });
		const writers = [new RtpWriter(stream), new RtpWriter({ ...stream, ssrc: 0x1234, payloadType: 103 })] as const;
		const plain = Array.from({ length: 90 }, (_, index) => {
			const isRepeat = index % 7 === 3;
			const writer = writers[isRepeat ? 1 : 0];
			const place = 65_500 + index;
			const header = { ...fields, sequence: place & 0xffff, capturedAt: index % 14 === 0 ? fields.capturedAt : undefined };
			const headerBytes = writer.headerBytes(header);
			const payload = randomBytes(index % 14 === 13 ? 1 + index : 1162 - (index % 40));
			const packet = Buffer.alloc(headerBytes + payload.length + srtp.tagBytes);
			writer.write(packet, header);
			return { ssrc: isRepeat ? 0x1234 : stream.ssrc, sequence: header.sequence, rollover: place > 0xffff ? 1 : 0, packet, headerBytes, payload };
		});
		srtp.write(plain);
		for (const { packet, headerBytes, payload, sequence } of plain) {
			assert.equal(packet.toString('hex'), sending.encrypt(payload, RtpHeader.deSerialize(packet.subarray(0, headerBytes))).toString('hex'), `sequence ${sequence}`);
		}
		srtp.write([]);
	});
});
