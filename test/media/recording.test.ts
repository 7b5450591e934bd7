import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EncodedChunk } from '../../src/base/frame.js';
import { Recording } from '../../src/media/recording.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const FRAME_MS = 62.5;
/** Tag, start code and size of a VP8 key frame (RFC 6386 section 9.1), and some bytes. */
const keyframe = (side: number): Uint8Array => Uint8Array.of(0x10, 0, 0, 0x9d, 0x01, 0x2a, side, 0, side, 0, ...new Array<number>(90).fill(7));
const DELTA = new Uint8Array(100).fill(1);

const chunk = (frameId: number, side?: number, codec: EncodedChunk['codec'] = 'vp8'): EncodedChunk =>
	({ codec, data: side === undefined ? DELTA : keyframe(side), isKeyframe: side !== undefined, frameId, rtpTimestamp: frameId * 5625, encodeMs: 1 });

/** Frames from `first` on, each hundred bytes, a key frame every ten. */
const fill = (recording: Recording, first: number, count: number, side = 64): boolean[] =>
	Array.from({ length: count }, (_, index) => recording.add(chunk(first + index, index % 10 === 0 ? side : undefined), (first + index) * FRAME_MS));

const idsOf = (recording: Recording, span: Parameters<Recording['cut']>[0]): number[] => recording.cut(span).units.map(({ rtpTimestamp }) => rtpTimestamp / 5625);
const isNothing = (error: unknown): boolean => error instanceof TurbocastError && error.code === 'invalid_state';

test('a span begins with the key frame at or before its begin and ends where it was asked to', () => {
	const recording = new Recording({ mostMs: 60_000, mostBytes: 1e6 });
	fill(recording, 0, 40);
	assert.deepEqual(idsOf(recording, { fromMs: 25 * FRAME_MS, toMs: 28 * FRAME_MS }), [20, 21, 22, 23, 24, 25, 26, 27, 28]);
	assert.deepEqual(idsOf(recording, { lastMs: 5 * FRAME_MS }), [30, 31, 32, 33, 34, 35, 36, 37, 38, 39]);
	assert.equal(idsOf(recording, {}).length, 40);
	assert.throws(() => recording.cut({ fromMs: 40 * FRAME_MS }), isNothing);
	assert.throws(() => new Recording({ mostMs: 1, mostBytes: 1 }).cut({}), isNothing);
});

test('is bounded in time and in bytes, and what is left begins with a key frame', () => {
	const byTime = new Recording({ mostMs: 20 * FRAME_MS, mostBytes: 1e6 });
	fill(byTime, 0, 55);
	assert.equal(idsOf(byTime, {})[0], 30);
	const byBytes = new Recording({ mostMs: 1e6, mostBytes: 2500 });
	fill(byBytes, 0, 55);
	assert.ok(byBytes.bytes <= 2500, `${byBytes.bytes}`);
	assert.equal((idsOf(byBytes, {})[0] ?? 1) % 10, 0);
	const tiny = new Recording({ mostMs: 1e6, mostBytes: 150 });
	fill(tiny, 0, 8);
	assert.throws(() => tiny.cut({}), isNothing, 'one group that is too big is no recording');
});

test('where the size changes, the file begins after the change; frames that were not encoded are no gap', () => {
	const recording = new Recording({ mostMs: 60_000, mostBytes: 1e6 });
	fill(recording, 0, 10, 64);
	fill(recording, 10, 10, 32);
	const { units, format } = recording.cut({});
	assert.deepEqual([units.length, format], [10, { codecString: 'vp8', width: 32, height: 32 }]);
	assert.deepEqual(recording.cut({ toMs: 9 * FRAME_MS }).format.width, 64);
	assert.equal(recording.add(chunk(25), 25 * FRAME_MS), false, 'needs no key frame');
	assert.deepEqual(idsOf(recording, {}).slice(-3), [18, 19, 25]);
});

test('keeps to one codec while it lasts, and begins with a key frame of the other when it is gone', () => {
	const recording = new Recording({ mostMs: 60_000, mostBytes: 1e6 });
	fill(recording, 0, 10);
	assert.equal(recording.add(chunk(11, undefined, 'h264'), 11 * FRAME_MS), false);
	recording.add(chunk(12), 12 * FRAME_MS);
	assert.deepEqual(idsOf(recording, {}).slice(-2), [9, 12]);
	assert.equal(recording.add(chunk(60, undefined, 'h264'), 60 * FRAME_MS), true, 'asks for a key frame');
	assert.deepEqual(idsOf(recording, {}).slice(-1), [12]);
});

test('asks for a key frame every five seconds', () => {
	const recording = new Recording({ mostMs: 60_000, mostBytes: 1e6 });
	recording.add(chunk(0, 64), 0);
	assert.deepEqual([79, 80].map((frameId, index) => {
		if (index === 0) {
			Array.from({ length: 78 }, (_, id) => recording.add(chunk(id + 1), (id + 1) * FRAME_MS));
		}
		return recording.add(chunk(frameId), frameId * FRAME_MS);
	}), [false, true]);
});
