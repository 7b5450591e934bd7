import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TurbocastError } from '../../src/protocol/errors.js';
import { encodeVideoUnit, parseVideoUnit } from '../../src/protocol/video-unit.js';

const data = Uint8Array.of(0, 0, 1, 0x65, 9);

test('a picture with its format comes back as it was, byte by byte as documented', () => {
	const unit = { frameId: 2 ** 32 + 5, rtpTimestamp: 0xfedc_ba98, format: { codecString: 'vp8', width: 480, height: 832 }, data };
	const bytes = encodeVideoUnit(unit);
	assert.equal(Buffer.from(bytes).toString('hex'), '01010300' + '01e00340' + 'fedcba98' + '00000005' + '767038' + '0000016509');
	assert.deepEqual(parseVideoUnit(bytes), { ...unit, frameId: 5 });
});

test('a picture that builds on others has no format', () => {
	const unit = { frameId: 7, rtpTimestamp: 90, format: undefined, data };
	assert.deepEqual(parseVideoUnit(encodeVideoUnit(unit)), unit);
});

test('a kind of a newer server is passed over; what is cut off, or a key frame without a format, is refused', () => {
	const key = encodeVideoUnit({ frameId: 1, rtpTimestamp: 1, format: { codecString: 'vp8', width: 16, height: 16 }, data });
	assert.equal(parseVideoUnit(Uint8Array.of(2, 0, 0)), undefined);
	const unsized = Uint8Array.from(key);
	unsized.fill(0, 4, 8);
	for (const bytes of [new Uint8Array(0), key.subarray(0, 15), key.subarray(0, 19), unsized]) {
		assert.throws(() => parseVideoUnit(bytes), (error: unknown) => error instanceof TurbocastError && error.code === 'invalid_message');
	}
});
