import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codedFormatOf } from '../../src/base/coded-format.js';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { startEncoders } from '../../src/media/encoder-host.js';
import { movingPicture } from '../media/moving-picture.js';

test('key frames of both encoders and codecs say their size and codec string; other frames do not', async () => {
	for (const implementation of ['auto', 'ffmpeg'] as const) {
		const encoders = await startEncoders({ implementation, log: silentLog, clock: systemClock });
		try {
			// 56 and 40 are no multiples of a macroblock: the crop of the parameter set counts.
			for (const [codec, codecString] of [['h264', /^avc1\.42[0-9a-f]{4}$/u], ['vp8', /^vp8$/u]] as const) {
				const [width, height] = [56, 40];
				const encoder = await encoders.open({ codec, width, height, fps: 16, bitrateBps: 200_000 });
				const [key, delta] = await Promise.all([0, 1].map((frameId) => encoder.encode(movingPicture(frameId, width, height), frameId * 5625)));
				await encoder.close();
				const format = codedFormatOf(codec, key?.data ?? new Uint8Array(0));
				assert.deepEqual([format?.width, format?.height], [width, height], `${implementation} ${codec}`);
				assert.match(format?.codecString ?? '', codecString);
				assert.equal(codedFormatOf(codec, delta?.data ?? new Uint8Array(0)), undefined);
			}
		} finally {
			await encoders.close();
		}
	}
});

test('a parameter set of the high profile, which says more of colour, is read as well', () => {
	// Profile 100, level 4.0, 1920x1080 cropped from 1088: written by x264 at its defaults (ITU-T H.264 section 7.3.2.1.1).
	const sps = Buffer.from('0000000167640028acd940780227e5c044000003000400000300c83c60c658', 'hex');
	assert.deepEqual(codedFormatOf('h264', sps), { codecString: 'avc1.640028', width: 1920, height: 1080 });
	assert.equal(codedFormatOf('vp8', Uint8Array.of(1, 2)), undefined);
});
