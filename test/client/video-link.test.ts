/** How the client asks for the video, over a place that shows none and in time that is only counted. */
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { SocketVideo, VideoConnection, VideoSink } from '../../client/platform.js';
import { VideoLink, type VideoLinkEvents } from '../../client/video-link.js';
import { TurbocastError } from '../../src/protocol/errors.js';

type Sent = Parameters<VideoLinkEvents['send']>[0];

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A link that has offered, got no answer in two seconds, and asked for the video over the socket. */
const openLink = async () => {
	const sent: Sent[] = [];
	const failures: TurbocastError[] = [];
	const sink = {
		open: (_servers, { onOffer }): VideoConnection => ({
			offer: () => Promise.resolve(onOffer('v=0')), answer: () => Promise.resolve(), addCandidate: () => Promise.resolve(),
			getStats: () => Promise.resolve(new Map() as unknown as RTCStatsReport), hasPicture: () => Promise.resolve(false), close: () => undefined,
		}),
		openSocketVideo: (): Promise<SocketVideo> => Promise.resolve({ codecs: ['h264'], unit: () => undefined, close: () => undefined }),
		use: () => undefined, show: () => undefined, announced: () => undefined, close: () => undefined,
	} satisfies VideoSink;
	mock.timers.enable({ apis: ['setTimeout'] });
	const link = new VideoLink(sink, 'auto', true, {
		send: (message) => void sent.push(message), onFailed: (error) => void failures.push(error),
		onConnected: () => undefined, onDisturbed: () => undefined, onFrameMeta: () => undefined, onTransport: () => undefined,
	});
	link.open([]);
	await settle();
	mock.timers.tick(2000);
	await settle();
	const types = (): string[] => sent.map(({ type }) => type);
	assert.deepEqual(types(), ['webrtc.offer', 'video.open']);
	return {
		link, failures, types,
		/** The last message is answered so. */
		refuse: async () => {
			link.refused((sent.at(-1) as { event_id?: string }).event_id ?? '', new TurbocastError('not_supported', 'There is no video over this socket.'));
			await settle();
		},
		[Symbol.dispose]: () => {
			link.close();
			mock.timers.reset();
		},
	};
};

test('whoever comes back with the video over the socket, and is refused it, offers again: the answer to the offer before was lost with its socket', async () => {
	using opened = await openLink();
	const { link, failures, types, refuse } = opened;
	link.suspend();
	link.open([]);
	assert.deepEqual(types().slice(2), ['video.open']);
	await refuse();
	assert.deepEqual(types().slice(3), ['webrtc.offer']);
	assert.deepEqual(failures, []);
});

test('an offer that is under way is not made again when the socket carries no video', async () => {
	using opened = await openLink();
	await opened.refuse();
	assert.deepEqual(opened.types(), ['webrtc.offer', 'video.open']);
	assert.deepEqual(opened.failures, []);
});
