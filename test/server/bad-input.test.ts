/** Everything that a client can get wrong, over a raw socket: each gets its code, and nothing else breaks. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { ErrorCode } from '../../src/protocol/errors.js';
import { MAX_MESSAGE_BYTES } from '../../src/protocol/limits.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const START = { type: 'session.start', event_id: 'e', prompt: 'a cat' };

/** Message, code, and a part of the sentence. */
const BEFORE_START: readonly (readonly [title: string, message: object, code: ErrorCode, says: RegExp])[] = [
	['an empty prompt', { ...START, prompt: '' }, 'invalid_prompt', /must not be empty/u],
	['a prompt of white space', { ...START, prompt: ' \t' }, 'invalid_prompt', /say what should be seen/u],
	['a prompt of 10 kB', { ...START, prompt: 'x'.repeat(10_000) }, 'invalid_prompt', /at most 2000 characters/u],
	['a prompt with half a character', { ...START, prompt: 'x\ud800' }, 'invalid_prompt', /unpaired surrogate/u],
	['a prompt that is a number', { ...START, prompt: 5 }, 'invalid_prompt', /must be text/u],
	['a start without prompt', { type: 'session.start', event_id: 'e' }, 'invalid_request', /missing/u],
	['an unknown type', { type: 'session.begin', event_id: 'e' }, 'invalid_message', /not a known message type/u],
	['an unknown model', { ...START, model: 'wan-14b' }, 'model_not_found', /this server runs small/u],
	['a size that the model has not', { ...START, size: '640x480' }, 'invalid_request', /one of 48x32, 32x32/u],
	['a size that is none', { ...START, size: 'large' }, 'invalid_request', /WIDTHxHEIGHT/u],
	['steps that nobody has', { ...START, parameters: { steps: 3 } }, 'invalid_request', /one of 1, 2, 4/u],
	['a seed below zero', { ...START, seed: -1 }, 'invalid_request', /from 0/u],
	['an update before the start', { type: 'session.update', event_id: 'e', prompt: 'a dog' }, 'invalid_state', /session.start before session.update/u],
	['an action before the start', { type: 'input.action', event_id: 'e', axes: { steer_x: 1 } }, 'invalid_state', /session.start before input.action/u],
	['an offer that is not SDP', { type: 'webrtc.offer', event_id: 'e', sdp: 'hello' }, 'invalid_sdp', /v=0/u],
	['a candidate before the offer', { type: 'webrtc.candidate', event_id: 'e', candidate: null }, 'invalid_state', /webrtc.offer before/u],
	['a candidate that is a text', { type: 'webrtc.candidate', event_id: 'e', candidate: 'x' }, 'invalid_request', /must be an object/u],
];

test('before the start: each mistake is answered by its code and event_id, and the session can still be started', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	for (const [title, message, code, says] of BEFORE_START) {
		const error = await client.refusalOf(message);
		assert.equal(error.code, code, title);
		assert.equal(error.event_id, 'e', title);
		assert.match(error.message, says, title);
		assert.match(error.message, /[.]$/u, `${title}: a whole sentence`);
	}
	client.send({ ...START, unknown_field: 1 });
	await client.next('session.ready');
	assert.equal(client.messages.filter((message) => message.type === 'error').length, BEFORE_START.length);
});

const AFTER_START: typeof BEFORE_START = [
	['a second start', START, 'invalid_state', /already started/u],
	['an update of nothing', { type: 'session.update', event_id: 'e' }, 'invalid_request', /changes nothing/u],
	['an update with no steps in its parameters', { type: 'session.update', event_id: 'e', parameters: {} }, 'invalid_request', /changes nothing/u],
	['an empty prompt', { type: 'session.update', event_id: 'e', prompt: '' }, 'invalid_prompt', /empty/u],
	['an unknown control', { type: 'input.action', event_id: 'e', axes: { fly: 1 } }, 'invalid_request', /not a control of the model small; it has steer_x/u],
	['a control out of its range', { type: 'input.action', event_id: 'e', axes: { steer_x: 1.5 } }, 'invalid_request', /from -1 to 1, not 1.5/u],
	['a control that is a text', { type: 'input.action', event_id: 'e', axes: { steer_x: '1' } }, 'invalid_request', /must be a number/u],
	['an offer that is not SDP', { type: 'webrtc.offer', event_id: 'e', sdp: 'hello' }, 'invalid_sdp', /v=0/u],
];

test('while generating: each mistake is answered, and the video goes on with the same viewer', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send(START);
	await viewer.received(2);
	for (const [title, message, code, says] of AFTER_START) {
		const error = await client.refusalOf(message);
		assert.equal(error.code, code, title);
		assert.equal(error.event_id, 'e', title);
		assert.match(error.message, says, title);
	}
	await viewer.received(viewer.chunks.length + 4);
	assert.equal(viewer.state.kind, 'connected');
});

test('offers that no connection can be made of are refused, and cost neither session nor viewer', async () => {
	const transport = createWebRtcTransport({ portRange: undefined, announceAddresses: [], iceServers: [], fps: 16, log: silentLog, clock: systemClock });
	await using service = await startService(machine, {}, transport);
	const client = await service.connect();
	client.send(START);
	await client.next('session.ready');
	const session = 'v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n';
	for (const [title, sdp] of [
		['plain text', 'hello'], ['a first line', 'v=0'], ['no media', session], ['audio alone', `${session}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\n`],
		['cut in the middle', `${session}m=video 9 UDP/TLS/RTP/SA`], ['forty thousand letters', `${session}a=${'x'.repeat(40_000)}`],
	] as const) {
		const error = await client.refusalOf({ type: 'webrtc.offer', event_id: title, sdp });
		assert.equal(error.code, title === 'audio alone' || title === 'cut in the middle' ? 'unsupported_media' : 'invalid_sdp', title);
		assert.equal(error.event_id, title);
	}
	assert.equal(await client.isAlive(), true);
});

test('frames that are no message are answered by invalid_message, and the connection goes on', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	for (const [title, frame, says] of [
		['no JSON', 'hello', /not valid JSON/u],
		['half a JSON', '{"type": "ping"', /not valid JSON/u],
		['nothing', '', /not valid JSON/u],
		['a list', '[]', /JSON object/u],
		['null', 'null', /JSON object/u],
		['nesting without end', '['.repeat(60_000), /not valid JSON/u],
		['binary JSON', Buffer.from('{"type": "ping"}'), /text frame instead of a binary one/u],
		['an empty binary frame', Buffer.alloc(0), /text frame/u],
	] as const) {
		client.socket.send(frame);
		const error = await client.next('error');
		assert.equal(error.code, 'invalid_message', title);
		assert.match(error.message, says, title);
	}
	assert.equal(await client.isAlive(), true);
});

test('a prompt that is not UTF-8 is refused, and the connection goes on', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	const bytes = Buffer.concat([Buffer.from('{"type":"session.start","event_id":"e","prompt":"caf'), Buffer.from([0xe9, 0xff]), Buffer.from('"}')]);
	client.socket.send(bytes, { binary: false });
	const error = await client.next('error');
	assert.equal(error.code, 'invalid_message');
	assert.match(error.message, /not valid UTF-8/u);
	assert.equal(await client.isAlive(), true);
});

for (const [title, bytes] of [['one byte too long', MAX_MESSAGE_BYTES + 1], ['a megabyte and more', 17 * MAX_MESSAGE_BYTES], ['ten megabytes', 10_000_000]] as const) {
	test(`a message that is ${title} is told why before the connection closes with 1009, and others go on`, async () => {
		await using service = await startService(machine);
		const other = await service.connect();
		const client = await service.connect();
		client.socket.send(`"${'x'.repeat(bytes - 2)}"`);
		const error = await client.next('error');
		assert.equal(error.code, 'message_too_big');
		assert.match(error.message, /65536 bytes/u);
		assert.equal((await client.next('session.ended')).reason, 'failed');
		assert.equal((await client.closed).code, 1009);
		assert.equal(await other.isAlive(), true);
	});
}

test('a message of exactly the greatest size is read', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	const filler = 'x'.repeat(MAX_MESSAGE_BYTES - '{"type":"ping","filler":""}'.length);
	client.socket.send(`{"type":"ping","filler":"${filler}"}`);
	await client.next('pong');
});

test('more messages a second than allowed are answered by rate_limited with a time to wait, and are not heard', async () => {
	await using service = await startService(machine, { messagesPerSecond: 10 });
	const client = await service.connect();
	// So many that some are too many even where seconds pass while they are read.
	for (let index = 0; index < 50; index++) {
		client.send({ type: 'ping', event_id: `p${index}` });
	}
	const error = await client.next('error');
	assert.equal(error.code, 'rate_limited');
	assert.equal(error.retryable, true);
	assert.ok(error.retry_after_ms !== undefined && error.retry_after_ms > 0 && error.retry_after_ms <= 100);
	assert.equal(client.socket.readyState, WebSocket.OPEN);
});

test('who goes on making mistakes is told and closed with 4429', async () => {
	await using service = await startService(machine, { badMessagesPerMinute: 5 });
	const client = await service.connect();
	for (let index = 0; index < 6; index++) {
		client.send({ type: 'nonsense' });
	}
	const last = await client.next('error', (error) => error.code === 'rate_limited');
	assert.match(last.message, /More than 5 mistakes/u);
	assert.equal((await client.next('session.ended')).reason, 'failed');
	assert.equal((await client.closed).code, 4429);
	assert.equal(client.messages.filter((message) => message.type === 'error' && message.code === 'invalid_message').length, 6);
});

test('more offers a minute than anybody needs are rate_limited', async () => {
	await using service = await startService(machine, { offersPerMinute: 2 });
	const client = await service.connect();
	for (let index = 0; index < 2; index++) {
		client.send({ type: 'webrtc.offer', sdp: 'v=0' });
		await client.next('webrtc.answer');
	}
	assert.equal((await client.refusalOf({ type: 'webrtc.offer', event_id: 'e', sdp: 'v=0' })).code, 'rate_limited');
});

test('more changes than wait for a chunk are rate_limited, and the session goes on', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	client.send(START);
	await client.next('chunk.completed', (message) => message.chunk_index === 1);
	for (let index = 0; index < 65; index++) {
		client.send({ type: 'input.action', event_id: `a${index}`, axes: { steer_x: 1 } });
	}
	const error = await client.next('error');
	assert.equal(error.code, 'rate_limited');
	assert.equal(error.event_id, 'a64');
	assert.equal(await client.isAlive(), true);
});

test('nobody starts, nobody watches, or it goes on too long: told, ended and closed with the code of the limit', async () => {
	for (const [changes, code, reason, closeCode, isStarted] of [
		[{ startTimeoutMs: 60 }, 'start_timeout', 'idle', 4408, false],
		[{ idleTimeoutMs: 60 }, 'idle_timeout', 'idle', 4408, true],
		[{ sessionMaxMs: 60 }, 'max_duration', 'max_duration', 4410, true],
	] as const) {
		await using service = await startService(machine, changes);
		const client = await service.connect();
		if (isStarted) {
			client.send(START);
		}
		assert.equal((await client.next('error')).code, code);
		assert.equal((await client.next('session.ended')).reason, reason);
		assert.equal((await client.closed).code, closeCode);
		assert.equal((await fetch(`${service.url}readyz`)).status, 200, 'its place is free');
	}
});

test('one connection too many is told why and closed; a place more than there are is not', async () => {
	await using service = await startService(machine, { maxConnections: 2, maxSessions: 1 });
	const [first, second] = [await service.connect(), await service.connect()];
	const third = new ControlClient(service.socketUrl);
	assert.equal((await third.next('error')).code, 'capacity_exhausted');
	assert.equal((await third.closed).code, 1013);
	first.send(START);
	await first.next('session.ready');
	const error = await second.refusalOf(START);
	assert.equal(error.code, 'capacity_exhausted');
	assert.equal(error.event_id, 'e');
	assert.ok(error.retryable && error.retry_after_ms !== undefined);
	assert.equal(await second.isAlive(), true);
});

/** The HTTP answer to a handshake that is refused. */
const refusedHandshake = async (url: string, protocols: string[], headers: { [name: string]: string } = {}): Promise<{ status: number; code: string }> => {
	const socket = new WebSocket(url, protocols, { headers });
	socket.on('error', () => undefined);
	const [, response] = (await once(socket, 'unexpected-response')) as [unknown, AsyncIterable<Buffer> & { statusCode: number }];
	let body = '';
	for await (const part of response) {
		body += part.toString();
	}
	return { status: response.statusCode, code: (JSON.parse(body) as { error: { code: string } }).error.code };
};

test('handshakes: a wrong path, sub-protocol or origin is refused; none, ours or an allowed one is not', async () => {
	await using service = await startService(machine, { allowedOrigins: ['https://friend.example'] });
	const { socketUrl, url } = service;
	assert.deepEqual(await refusedHandshake(socketUrl.replace('/video', '/audio'), []), { status: 404, code: 'not_found' });
	assert.deepEqual(await refusedHandshake(socketUrl, ['realtime.video.v9']), { status: 406, code: 'unsupported_protocol' });
	assert.deepEqual(await refusedHandshake(socketUrl, [], { origin: 'https://evil.example' }), { status: 403, code: 'forbidden' });
	assert.deepEqual(await refusedHandshake(socketUrl, [], { origin: 'http://evil.example', host: 'evil.example' }), { status: 403, code: 'forbidden' }, 'a name that was bound to this machine');
	assert.deepEqual(await refusedHandshake(socketUrl, [], { origin: 'null' }), { status: 403, code: 'forbidden' });
	for (const [protocols, headers] of [
		[[], {}], [['realtime.video.v9', 'realtime.video.v1'], {}], [[], { origin: url.replace(/\/$/u, '') }], [[], { origin: 'https://friend.example' }],
	] as const) {
		const client = new ControlClient(socketUrl, [...protocols], { headers });
		await client.next('session.created');
		assert.equal(client.socket.protocol, protocols.length === 0 ? '' : 'realtime.video.v1');
	}
});

test('bytes that are no WebSocket frame close that connection alone, and its place is freed', async () => {
	await using service = await startService(machine, { maxSessions: 1 });
	const other = await service.connect();
	const client = await service.connect();
	client.send(START);
	await client.next('session.ready');
	// A frame with reserved bits set, behind the library's back.
	(client.socket as unknown as { _socket: import('node:net').Socket })._socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
	assert.equal((await client.next('error')).code, 'invalid_message');
	assert.equal((await client.closed).code, 4400);
	assert.equal(await other.isAlive(), true);
	other.send(START);
	await other.next('session.ready');
});

test('half a handshake and garbage on the port harm nobody', async () => {
	await using service = await startService(machine);
	for (const bytes of ['GET /v1/realtime/video HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: x\r\n\r\n', '\x16\x03\x01garbage\r\n\r\n']) {
		const socket = connectTcp(service.server.address.port, '127.0.0.1');
		socket.write(bytes);
		socket.resume();
		await once(socket, 'close');
	}
	assert.equal(await (await service.connect()).isAlive(), true);
});

test('a peer that vanishes without a word is given up after a few silent heartbeats', async () => {
	await using service = await startService(machine, { heartbeatMs: 20, maxSessions: 1 });
	const client = await service.connect();
	client.send(START);
	await client.next('session.ready');
	client.socket.pause();
	await using patient = await service.connect();
	while ((await fetch(`${service.url}readyz`)).status !== 200) {
		// Asked again until the place is free; the time limit of the test is the assertion.
	}
	assert.equal(await patient.isAlive(), true);
	client.socket.resume();
	assert.equal((await client.closed).code, 1006);
});
