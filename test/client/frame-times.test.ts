import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameTimes } from '../../client/frame-times.js';

/** Three pictures of 16 frames a second, decoded; their media times are 0, 0.0625 and 0.125 s. */
const filled = (times: FrameTimes): FrameTimes => {
	for (const rtpTimestamp of [90_000, 95_625, 101_250]) {
		times.decoded(times.received(rtpTimestamp));
	}
	return times;
};

const shown = (times: FrameTimes, mediaTimeS: number): number | undefined => times.shown(mediaTimeS)?.rtpTimestamp;

test('a picture is told by its media time, rounded or not, and one of an unknown time is the newest', () => {
	const times = filled(new FrameTimes());
	assert.deepEqual([0, 0.0625, 0.063, 0.125, 7].map((mediaTimeS) => shown(times, mediaTimeS)), [90_000, 95_625, 95_625, 101_250, 101_250]);
});

test('a canvas has a clock of its own: it shows the newest, though its time be that of an old one by chance', () => {
	const times = filled(new FrameTimes(false));
	assert.equal(shown(times, 0.0625), 101_250);
	times.received(106_875);
	assert.equal(shown(times, 0.1875), 101_250, 'one that is not decoded yet');
});

test('before any is decoded none is shown', () => {
	assert.equal(shown(new FrameTimes(false), 0), undefined);
	assert.equal(shown(new FrameTimes(), 0), undefined);
});
