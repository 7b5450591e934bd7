/** How frames and their records find each other in Node. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import type { EncodedFrame } from '../../client/node/index.js';
import { FrameSink } from '../../client/node/frame-sink.js';
import type { FrameMeta } from '../../src/protocol/messages.js';
import type { VideoUnit } from '../../src/protocol/video-unit.js';

const RTP = 5625;

const unit = (frameId: number): VideoUnit => ({ frameId, rtpTimestamp: frameId * RTP, format: { codecString: 'vp8', width: 32, height: 32 }, data: Uint8Array.of(1) });

const record = (frameId: number): FrameMeta => ({
	type: 'frame.meta', frame_id: frameId, rtp_timestamp: frameId * RTP, chunk_index: 0, media_ms: 0, keyframe: true,
	t_taken_ms: 0, t_generated_ms: 0, t_encoded_ms: 0, t_sent_ms: 0, applied_event_ids: [],
});

/** A sink that is read, and what brings it frames. */
const openSink = async () => {
	const sink = new FrameSink(() => undefined);
	const video = await sink.openSocketVideo('websocket', { onPicture: () => undefined, onKeyframeNeeded: () => undefined, onFailed: assert.fail }) ?? assert.fail('no video');
	sink.use(video);
	const frames = sink.read(undefined);
	const next = async (): Promise<EncodedFrame> => (await frames.next()).value ?? assert.fail('the frames have ended');
	return { sink, video, next, [Symbol.dispose]: () => sink.close() };
};

test('a frame goes with its record, whichever comes first, and without one where none comes', async () => {
	using opened = await openSink();
	const { sink, video, next } = opened;
	const first = next();
	sink.announced(record(1));
	video.unit(unit(1));
	assert.equal((await first).meta?.frame_id, 1);
	const second = next();
	video.unit(unit(2));
	sink.announced(record(2));
	assert.equal((await second).meta?.frame_id, 2);
	const third = next();
	video.unit(unit(3));
	assert.equal((await third).meta, undefined);
});

test('a record that came in time is its frame\'s, though the process was busy until it was late', async (context) => {
	using opened = await openSink();
	const { sink, video, next } = opened;
	const socket = createSocket('udp4');
	context.after(() => socket.close());
	socket.bind(0, '127.0.0.1');
	await once(socket, 'listening');
	// Connected, it sends at once.
	socket.connect(socket.address().port, '127.0.0.1');
	await once(socket, 'connect');
	socket.on('message', () => sink.announced(record(1)));
	const frame = next();
	// Timers come after this, before the socket is read.
	await new Promise((resolve) => setImmediate(resolve));
	video.unit(unit(1));
	socket.send('record');
	const untilMs = performance.now() + 300;
	while (performance.now() < untilMs) {
		// Busy.
	}
	assert.equal((await frame).meta?.frame_id, 1);
});
