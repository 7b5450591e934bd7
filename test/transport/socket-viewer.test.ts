import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EncodedChunk } from '../../src/base/frame.js';
import { parseVideoUnit } from '../../src/protocol/video-unit.js';
import { MOST_BEHIND_MS, MOST_UNSENT_BYTES, SocketViewer } from '../../src/transport/socket-viewer.js';

/** Frame tag, start code and size of a VP8 key frame of 64x48 (RFC 6386 section 9.1). */
const KEYFRAME = Uint8Array.of(0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 48, 0, 1, 2, 3);
const DELTA = Uint8Array.of(0x11, 0, 0, 4, 5);
const chunk = (frameId: number, isKeyframe = false): EncodedChunk =>
	({ codec: 'vp8', data: isKeyframe ? KEYFRAME : DELTA, isKeyframe, frameId, rtpTimestamp: frameId * 5625, encodeMs: 1 });

const createViewer = () => {
	const world = { nowMs: 0, unsent: 0, sent: [] as Uint8Array[] };
	const viewer = new SocketViewer('vp8', { sendBytes: (bytes) => world.sent.push(bytes), sendMeta: () => undefined, unsentBytes: () => world.unsent }, {
		nowMs: () => world.nowMs, sleep: () => Promise.resolve(),
	});
	return { world, viewer };
};

test('begins with a key frame, which says what a decoder is configured with', () => {
	const { world, viewer } = createViewer();
	assert.deepEqual([viewer.send(chunk(0)), viewer.send(chunk(1, true)), viewer.send(chunk(2))], ['dropped', 'sent', 'sent']);
	assert.deepEqual(world.sent.map((bytes) => parseVideoUnit(bytes)), [
		{ frameId: 1, rtpTimestamp: 5625, format: { codecString: 'vp8', width: 64, height: 48 }, data: KEYFRAME },
		{ frameId: 2, rtpTimestamp: 11_250, format: undefined, data: DELTA },
	]);
});

test('a client that acknowledges too late loses frames up to a key frame, once it has caught up', () => {
	const { world, viewer } = createViewer();
	viewer.send(chunk(0, true));
	viewer.acknowledged(0);
	viewer.send(chunk(1));
	world.nowMs = MOST_BEHIND_MS;
	assert.equal(viewer.send(chunk(2)), 'sent', 'as late as it may be');
	world.nowMs += 1;
	assert.equal(viewer.send(chunk(3)), 'dropped');
	assert.equal(viewer.send(chunk(4, true)), 'dropped', 'a key frame would only wait behind the rest');
	viewer.acknowledged(2);
	assert.equal(viewer.send(chunk(5)), 'dropped', 'builds on frames that it does not have');
	assert.deepEqual([viewer.send(chunk(6, true)), viewer.send(chunk(7))], ['sent', 'sent']);
});

test('of a client that never acknowledges, what the socket has not taken counts: its age and its size', () => {
	const { world, viewer } = createViewer();
	viewer.send(chunk(0, true));
	world.nowMs = 10 * MOST_BEHIND_MS;
	assert.equal(viewer.send(chunk(1)), 'sent', 'all was taken');
	world.unsent = 1;
	world.nowMs += MOST_BEHIND_MS + 1;
	assert.equal(viewer.send(chunk(2)), 'dropped', 'one frame has waited too long');
	world.unsent = 0;
	assert.equal(viewer.send(chunk(3, true)), 'sent');
	world.unsent = MOST_UNSENT_BYTES + 1;
	assert.equal(viewer.send(chunk(4)), 'dropped', 'too many bytes wait');
});

test('asks for a key frame when the decoder lost the picture, sends nothing until it comes, and nothing after its close', async () => {
	const { viewer } = createViewer();
	let asked = 0;
	viewer.onKeyframeNeeded(() => {
		asked += 1;
	});
	viewer.send(chunk(0, true));
	viewer.requestKeyframe();
	assert.deepEqual([asked, viewer.send(chunk(1)), viewer.send(chunk(2, true))], [1, 'dropped', 'sent']);
	const states: string[] = [];
	viewer.onState(({ kind }) => states.push(kind));
	await viewer.close('test');
	await viewer.close('again');
	assert.deepEqual([states, viewer.send(chunk(3, true))], [['closed'], 'dropped']);
});

test('knows what the way carries while frames come late, and hopes for more while they come in time', () => {
	const { world, viewer } = createViewer();
	const send = (frameId: number, delayMs: number): void => {
		viewer.send(chunk(frameId, frameId === 0));
		world.nowMs += delayMs;
		viewer.acknowledged(frameId);
	};
	send(0, 20);
	assert.deepEqual([viewer.bandwidthBps, viewer.backlogMs], [undefined, 0]);
	// One frame of five bytes every 250 ms, of which 230 are waiting: four of them within a second.
	for (const frameId of [1, 2, 3, 4, 5, 6, 7, 8]) {
		send(frameId, 250);
	}
	assert.equal(viewer.bandwidthBps, 4 * DELTA.length * 8 * 0.85);
	viewer.send(chunk(9));
	world.nowMs += 120;
	assert.equal(viewer.backlogMs, 100, 'beyond the 20 ms that every frame takes');
	viewer.acknowledged(9);
	assert.equal(viewer.bandwidthBps, 4 * DELTA.length * 8 * 0.85 * 1.02);
});
