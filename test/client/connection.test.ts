import assert from 'node:assert/strict';
import { test } from 'node:test';
import { socketUrl } from '../../client/client.js';
import { reconnectDelayMs } from '../../client/reconnect.js';
import { TurbocastError } from '../../src/protocol/errors.js';

test('an address may be that of the page, of the server, or of the socket', () => {
	const base = 'https://video.example/page?x=1#top';
	assert.equal(socketUrl('/', base), 'wss://video.example/v1/realtime/video');
	assert.equal(socketUrl('http://127.0.0.1:8080', base), 'ws://127.0.0.1:8080/v1/realtime/video');
	assert.equal(socketUrl('ws://127.0.0.1:8080', base), 'ws://127.0.0.1:8080/v1/realtime/video');
	assert.equal(socketUrl('wss://other.example/behind/proxy?token=1', base), 'wss://other.example/behind/proxy?token=1');
	assert.throws(() => socketUrl('http://', base));
});

test('waits twice as long after each failure, up to eight seconds, with some chance in it', () => {
	const most = [0, 1, 2, 3, 4, 5, 6, 20].map((attempt) => reconnectDelayMs(attempt, undefined, () => 1));
	assert.deepEqual(most, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
	assert.equal(reconnectDelayMs(2, undefined, () => 0), 500);
});

test('waits at least as long as the server asked, and not at all for what will not go away', () => {
	assert.equal(reconnectDelayMs(0, new TurbocastError('capacity_exhausted', 'full', { retryAfterMs: 10_000 }), () => 0), 10_000);
	assert.equal(reconnectDelayMs(3, new TurbocastError('transport_failed', 'lost'), () => 1), 2000);
	assert.equal(reconnectDelayMs(0, new TurbocastError('forbidden', 'no'), () => 1), undefined);
});
