/** Sessions that are sent to WHIP endpoints: over real connections where the video matters, over memory where the rules of HTTP do. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { linkedIceServers } from '../../src/server/ice-servers.js';
import { newServerKey } from '../../src/server/keys.js';
import { ownAddresses } from '../../src/transport/own-addresses.js';
import { createWebRtcTransport, type WebRtcOptions } from '../../src/transport/webrtc.js';
import { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine, type Service } from './service.js';
import { WhipServer } from './whip-server.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const TOKEN = 'secret.of~the-endpoint/+==';

type PublicationObject = { readonly id: string; readonly url: string; readonly state: string; readonly codec: string | null; readonly connections: number; readonly ice_restarts: number; readonly error: { readonly code: string } | null };

const openTransport = (options: Partial<WebRtcOptions> = {}) => createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock, ...options });

const ask = (service: Service, method: string, path: string, { body, token, headers = {} }: { readonly body?: unknown; readonly token?: string; readonly headers?: { readonly [name: string]: string } } = {}): Promise<Response> =>
	fetch(new URL(path, service.url), {
		method, headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
		...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
	});

const answerOf = async (response: Response): Promise<{ status: number; code: string }> => ({ status: response.status, code: ((await response.json()) as { error: { code: string } }).error.code });

const listOf = async (service: Service, path: string): Promise<readonly PublicationObject[]> => ((await (await ask(service, 'GET', path)).json()) as { data: PublicationObject[] }).data;

/** Asks until it is so. */
const untilState = async (service: Service, path: string, holds: (publication: PublicationObject) => boolean): Promise<PublicationObject> => {
	for (;;) {
		const [publication] = await listOf(service, path);
		if (publication !== undefined && holds(publication)) {
			return publication;
		}
		await systemClock.sleep(20);
	}
};

/** A session that runs, and the address of its publications. */
const startSession = async (client: ControlClient): Promise<{ path: string; token: string }> => {
	const { session_id: id, resume_token: token } = await client.next('session.created');
	client.send({ type: 'session.start', prompt: 'red blue', seed: 7 });
	await client.next('session.ready');
	return { path: `/v1/realtime/sessions/${id}/publications`, token: token ?? '' };
};

const allowing = (...endpoints: readonly WhipServer[]) => ({ publish: { allowedOrigins: endpoints.map(({ origin }) => origin), maxPerSession: 2, firstWaitMs: 2 } });

describe('over a real connection', () => {
	for (const codec of ['h264', 'vp8'] as const) {
		test(`an endpoint that takes ${codec} gets pictures, sees the token, and is told of the end; the session goes on`, async () => {
			await using endpoint = await WhipServer.open();
			endpoint.codec = codec;
			await using service = await startService(machine, allowing(endpoint), openTransport());
			await using client = new ControlClient(service.socketUrl);
			const { path } = await startSession(client);
			const made = await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live?key=hidden`, token: TOKEN } });
			assert.equal(made.status, 201, await made.clone().text());
			const publication = (await made.json()) as PublicationObject;
			assert.equal(publication.codec, codec);
			assert.equal(publication.url, `${endpoint.origin}/live`);
			const [offer] = endpoint.of('POST');
			assert.deepEqual([offer?.authorization, offer?.contentType, offer?.path], [`Bearer ${TOKEN}`, 'application/sdp', '/live?key=hidden']);
			assert.match(offer?.body ?? '', /^a=sendonly/mu);
			assert.match(offer?.body ?? '', /^a=group:BUNDLE/mu);
			await endpoint.receivers[0]?.until(() => (endpoint.receivers[0]?.units.length ?? 0) >= 5);
			await untilState(service, path, ({ state }) => state === 'live');
			const metrics = await (await ask(service, 'GET', '/metrics')).text();
			assert.match(metrics, /^turbocast_publications\{state="live"\} 1$/mu);
			assert.match(metrics, /^turbocast_publish_attempts_total\{outcome="answered"\} 1$/mu);
			const location = made.headers.get('location') ?? '';
			assert.equal(((await (await ask(service, 'DELETE', location)).json()) as PublicationObject).state, 'ended');
			assert.deepEqual(endpoint.of('DELETE').map(({ path: at, authorization }) => [at, authorization]), [['/live/resource-0', `Bearer ${TOKEN}`]]);
			assert.ok(await client.isAlive());
			assert.equal((await ask(service, 'GET', location)).status, 200, 'it can still be asked about');
		});
	}

	test('a publication whose connection ends comes back by itself, with a key frame first', async () => {
		await using endpoint = await WhipServer.open();
		await using service = await startService(machine, allowing(endpoint), openTransport());
		await using client = new ControlClient(service.socketUrl);
		const { path } = await startSession(client);
		assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
		await endpoint.receivers[0]?.until(() => (endpoint.receivers[0]?.units.length ?? 0) >= 3);
		await untilState(service, path, ({ state }) => state === 'live');
		await endpoint.receivers[0]?.connection.close();
		await endpoint.until(() => endpoint.receivers.length === 2);
		const second = endpoint.receivers[1] ?? assert.fail();
		await second.until(() => second.units.length >= 3);
		// A parameter set (RFC 6184 section 5.2, type 7) begins the key frame.
		assert.ok(second.units[0]?.data.includes(Buffer.from([0, 0, 0, 1, 0x67])), 'the first picture stands on its own');
		const { connections } = await untilState(service, path, ({ state }) => state === 'live');
		assert.equal(connections, 2);
		assert.equal(endpoint.of('DELETE').length, 1, 'the resource of before is deleted');
	});
});

test('a publication whose machine gets another address restarts ICE: the endpoint keeps its resource, and pictures go on', async () => {
	let addresses: readonly string[] = ownAddresses();
	let onLook = (): void => undefined;
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint), openTransport({
		ownAddresses: () => {
			onLook();
			return addresses;
		},
	}));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live`, token: TOKEN } })).status, 201);
	const [receiver] = endpoint.receivers;
	await receiver?.until(() => receiver.units.length >= 3);
	// Until the way has been looked at it is not known to begin at an address of this machine; a look may just be over.
	await new Promise<void>((resolve) => {
		let looks = 0;
		onLook = () => {
			looks += 1;
			if (looks === 2) {
				resolve();
			}
		};
	});
	addresses = [];
	const { connections } = await untilState(service, path, ({ ice_restarts: restarts, state }) => restarts === 1 && state === 'live');
	assert.equal(connections, 1);
	const shown = receiver?.units.length ?? 0;
	await receiver?.until(() => receiver.units.length >= shown + 5);
	const [restart] = endpoint.of('PATCH');
	assert.deepEqual([restart?.path, restart?.ifMatch, restart?.contentType, restart?.authorization], ['/live/resource-0', '*', 'application/trickle-ice-sdpfrag', `Bearer ${TOKEN}`]);
	const fragmentIn = (text: string | undefined): string | undefined => /^a=ice-ufrag:(\S+)/mu.exec(text ?? '')?.[1];
	assert.notEqual(fragmentIn(restart?.body), undefined);
	assert.notEqual(fragmentIn(restart?.body), fragmentIn(endpoint.of('POST')[0]?.body));
	assert.match(restart?.body ?? '', /^a=candidate:/mu);
	assert.deepEqual([endpoint.of('POST').length, endpoint.of('DELETE').length, endpoint.receivers.length], [1, 0, 1]);
});

test('an endpoint that restarts no ICE is offered the video anew, whatever it answers', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
	const replies = [
		{ status: 405 }, { status: 412 }, { status: 422 }, { status: 501 }, { status: 204 }, { status: 500 },
		{ status: 200, headers: { 'content-type': 'text/html' }, body: '<p>' },
		{ status: 202, headers: { 'content-type': 'application/trickle-ice-sdpfrag' }, body: 'a=ice-ufrag:later' },
	];
	for (const [index, reply] of replies.entries()) {
		endpoint.reply = ({ method }) => (method === 'PATCH' ? reply : undefined);
		service.memory.viewers.at(-1)?.become({ kind: 'disconnected' });
		await untilState(service, path, ({ connections, state }) => connections === index + 2 && state === 'live');
		assert.deepEqual([endpoint.of('PATCH').length, endpoint.of('DELETE').length, endpoint.of('POST').length], [index + 1, index + 1, index + 2], `after ${reply.status}`);
		assert.equal(service.memory.viewers.at(-2)?.state.kind, 'closed');
	}
	assert.deepEqual((await listOf(service, path)).map(({ ice_restarts: restarts }) => restarts), [0]);
});

test('whoever ends a publication is answered when the endpoint was told, however long that took', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	const made = await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } });
	await untilState(service, path, ({ state }) => state === 'live');
	let wasTold = false;
	endpoint.delay = async ({ method }) => {
		if (method === 'DELETE') {
			await systemClock.sleep(300);
			wasTold = true;
		}
	};
	assert.equal((await ask(service, 'DELETE', made.headers.get('location') ?? '')).status, 200);
	assert.ok(wasTold);
});

test('a connection restarts ICE a few times, then another is made', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
	endpoint.reply = ({ method }) => (method === 'PATCH' ? { status: 200, headers: { 'content-type': 'application/trickle-ice-sdpfrag' }, body: 'a=ice-ufrag:next' } : undefined);
	const [viewer] = service.memory.viewers;
	for (let restarts = 1; restarts <= 8; restarts += 1) {
		viewer?.become({ kind: 'disconnected' });
		await untilState(service, path, ({ ice_restarts: count, state }) => count === restarts && state === 'live');
	}
	assert.deepEqual(viewer?.restarts, Array.from({ length: 8 }, () => 'a=ice-ufrag:next'));
	viewer?.become({ kind: 'disconnected' });
	const { connections, ice_restarts: restarts } = await untilState(service, path, ({ connections: count, state }) => count === 2 && state === 'live');
	assert.deepEqual([connections, restarts, endpoint.of('PATCH').length, endpoint.of('POST').length], [2, 8, 8, 2]);
});

test('where all of the network stands still, a publication waits for the way of before', async () => {
	const endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
	await endpoint[Symbol.asyncDispose]();
	const [viewer] = service.memory.viewers;
	viewer?.become({ kind: 'disconnected' });
	await untilState(service, path, ({ state }) => state === 'connecting');
	viewer?.become({ kind: 'connected' });
	const { connections, ice_restarts: restarts } = await untilState(service, path, ({ state }) => state === 'live');
	assert.deepEqual([connections, restarts, service.memory.viewers.length, endpoint.of('PATCH').length], [1, 0, 1, 0]);
});

test('a publication is over after twelve failures in a row, and one success among them begins the count anew', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
	const FIRST_FAILURES = 5;
	// The offer that was taken, some that are not, one that is, and from then on none.
	endpoint.reply = ({ method }) => (method === 'POST' && endpoint.of('POST').length !== FIRST_FAILURES + 2 ? { status: 503, headers: { 'retry-after': '0' } } : undefined);
	service.memory.viewers.at(-1)?.become({ kind: 'closed', reason: 'lost' });
	await untilState(service, path, ({ connections, state }) => connections === 2 && state === 'live');
	service.memory.viewers.at(-1)?.become({ kind: 'closed', reason: 'lost' });
	const { error, connections } = await untilState(service, path, ({ state }) => state === 'ended');
	assert.deepEqual([error?.code, connections], ['publish_failed', 2]);
	// The loss is the first failure, each offer that is not taken another.
	assert.equal(endpoint.of('POST').length, 1 + FIRST_FAILURES + 1 + 12);
	assert.ok(await client.isAlive());
});

test('of publications that are over the last sixteen can be asked about', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	const ids: string[] = [];
	for (let count = 0; count < 18; count += 1) {
		const made = (await (await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).json()) as PublicationObject;
		assert.equal((await ask(service, 'DELETE', `${path}/${made.id}`)).status, 200);
		ids.push(made.id);
	}
	const running = (await (await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).json()) as PublicationObject;
	assert.deepEqual((await listOf(service, path)).map(({ id }) => id), [...ids.slice(2), running.id]);
	assert.equal((await ask(service, 'GET', `${path}/${ids[1] ?? ''}`)).status, 404);
});

test('the endpoint is told when the session ends, and when the server does', async () => {
	await using endpoint = await WhipServer.open();
	{
		await using service = await startService(machine, allowing(endpoint));
		await using client = new ControlClient(service.socketUrl);
		const { path } = await startSession(client);
		assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/first` } })).status, 201);
		client.send({ type: 'session.stop' });
		await endpoint.until(() => endpoint.of('DELETE').length === 1);
		assert.equal((await ask(service, 'GET', path)).status, 404);
		await using other = new ControlClient(service.socketUrl);
		const { path: otherPath } = await startSession(other);
		assert.equal((await ask(service, 'POST', otherPath, { body: { url: `${endpoint.origin}/second` } })).status, 201);
	}
	assert.deepEqual(endpoint.of('DELETE').map(({ path }) => path.split('/')[1]), ['first', 'second']);
});

test('redirects of 307 and 308 are followed to servers that are allowed, and to no others', async () => {
	await using endpoint = await WhipServer.open();
	await using front = await WhipServer.open();
	await using stranger = await WhipServer.open();
	await using service = await startService(machine, allowing(front, endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	front.reply = ({ path: at }) => ({ status: at === '/once' ? 308 : 307, headers: { location: at === '/once' ? '/twice' : `${endpoint.origin}/live` } });
	assert.equal((await ask(service, 'POST', path, { body: { url: `${front.origin}/once`, token: TOKEN } })).status, 201);
	assert.deepEqual(endpoint.of('POST').map(({ body, authorization }) => [body, authorization]), [['v=0 offer', `Bearer ${TOKEN}`]]);
	const refusals = [
		['a server that is not allowed', { status: 307, headers: { location: `${stranger.origin}/live` } }],
		['for ever', { status: 307, headers: { location: '/again' } }],
		['a redirect that would change the method', { status: 302, headers: { location: `${endpoint.origin}/live` } }],
	] as const;
	for (const [title, reply] of refusals) {
		front.reply = () => reply;
		assert.deepEqual(await answerOf(await ask(service, 'POST', path, { body: { url: `${front.origin}/live` } })), { status: 502, code: 'publish_refused' }, title);
	}
	assert.deepEqual(stranger.asked, []);
});

test('what an endpoint refuses is told with its reason, and is over; what may be otherwise later says so', async () => {
	await using endpoint = await WhipServer.open();
	await using service = await startService(machine, allowing(endpoint));
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	for (const [title, reply, expected] of [
		['a wrong token', { status: 401, body: 'who are you' }, { status: 502, code: 'publish_refused' }],
		['no such address', { status: 404 }, { status: 502, code: 'publish_refused' }],
		['a page', { status: 201, headers: { 'content-type': 'text/html' }, body: '<p>' }, { status: 502, code: 'publish_refused' }],
		['no answer', { status: 201, headers: { 'content-type': 'application/sdp', 'location': '/stale' }, body: 'hello' }, { status: 502, code: 'publish_refused' }],
		['too long an answer', { status: 201, headers: { 'content-type': 'application/sdp' }, body: 'v'.repeat(1_000_000) }, { status: 502, code: 'publish_refused' }],
		['full', { status: 503, headers: { 'retry-after': '7' } }, { status: 502, code: 'publish_failed' }],
	] as const) {
		endpoint.reply = ({ method }) => (method === 'POST' ? reply : undefined);
		const response = await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } });
		assert.equal(response.headers.get('retry-after'), title === 'full' ? '7' : null, title);
		assert.match(title === 'a wrong token' ? await response.clone().text() : 'who are you', /who are you/u);
		assert.deepEqual(await answerOf(response), expected, title);
	}
	assert.deepEqual(endpoint.of('DELETE').map(({ path: at }) => at), ['/stale'], 'a resource whose answer is of no use is deleted');
	assert.deepEqual(new Set((await listOf(service, path)).map(({ state }) => state)), new Set(['ended']));
	const { origin } = endpoint;
	await endpoint[Symbol.asyncDispose]();
	assert.deepEqual(await answerOf(await ask(service, 'POST', path, { body: { url: `${origin}/live` } })), { status: 502, code: 'publish_failed' }, 'nobody there');
	assert.ok(await client.isAlive());
});

test('nothing is published where the operator has not allowed it, and no more than there is room for', async () => {
	await using endpoint = await WhipServer.open();
	await using closed = await startService(machine);
	await using silent = new ControlClient(closed.socketUrl);
	const { path: closedPath } = await startSession(silent);
	assert.deepEqual(await answerOf(await ask(closed, 'POST', closedPath, { body: { url: `${endpoint.origin}/live` } })), { status: 501, code: 'not_supported' });
	silent.send({ type: 'session.stop' });
	await silent.next('session.ended');

	await using service = await startService(machine, allowing(endpoint));
	await using early = new ControlClient(service.socketUrl);
	const { session_id: id } = await early.next('session.created');
	assert.deepEqual(await answerOf(await ask(service, 'POST', `/v1/realtime/sessions/${id}/publications`, { body: { url: `${endpoint.origin}/live` } })), { status: 409, code: 'invalid_state' });
	await using client = new ControlClient(service.socketUrl);
	const { path } = await startSession(client);
	for (const [body, expected] of [
		[{ url: 'http://169.254.169.254/latest' }, { status: 403, code: 'forbidden' }],
		[{ url: endpoint.origin.replace('127.0.0.1', 'localhost') }, { status: 403, code: 'forbidden' }],
		[{ url: endpoint.origin.replace('http://', 'http://name:pass@') }, { status: 400, code: 'invalid_request' }],
		[{ url: 'file:///etc/passwd' }, { status: 400, code: 'invalid_request' }],
		[{ url: endpoint.origin, token: 'two\r\nlines' }, { status: 400, code: 'invalid_request' }],
		[{ url: endpoint.origin, tokn: 'x' }, { status: 400, code: 'invalid_request' }],
		['{', { status: 400, code: 'invalid_message' }],
		['x'.repeat(20_000), { status: 413, code: 'message_too_big' }],
	] as const) {
		assert.deepEqual(await answerOf(await ask(service, 'POST', path, { body })), expected, JSON.stringify(body).slice(0, 80));
	}
	assert.deepEqual(endpoint.asked, []);
	for (let count = 0; count < 2; count += 1) {
		assert.equal((await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })).status, 201);
	}
	assert.deepEqual(await answerOf(await ask(service, 'POST', path, { body: { url: `${endpoint.origin}/live` } })), { status: 503, code: 'capacity_exhausted' });
	assert.equal((await ask(service, 'PUT', path)).status, 405);
	assert.equal((await ask(service, 'GET', `${path}/pub_x`)).status, 404);
	let refused: Response | undefined;
	for (let count = 0; count < 100 && refused === undefined; count += 1) {
		const response = await ask(service, 'POST', path, { body: '{' });
		refused = response.status === 400 ? undefined : response;
	}
	assert.ok(Number(refused?.headers.get('retry-after')) >= 1);
	assert.deepEqual(await answerOf(refused ?? assert.fail()), { status: 429, code: 'rate_limited' });
});

test('a session is published by whoever has it, and by nobody else', async () => {
	await using endpoint = await WhipServer.open();
	const [key, other] = [newServerKey(), newServerKey()];
	await using service = await startService(machine, allowing(endpoint), undefined, { keys: [key, other] });
	const made = await ask(service, 'POST', '/v1/realtime/client_secrets', { token: key, body: {} });
	const { value: secret } = (await made.json()) as { value: string };
	await using client = new ControlClient(service.socketUrl, ['realtime.video.v1', `token.${secret}`]);
	const { path, token } = await startSession(client);
	const body = { url: `${endpoint.origin}/live` };
	for (const [title, response, expected] of [
		['nobody', ask(service, 'POST', path, { body }), { status: 401, code: 'unauthorized' }],
		['a page', ask(service, 'POST', path, { body, token: secret }), { status: 403, code: 'forbidden' }],
		['another', ask(service, 'POST', path, { body, token: other }), { status: 404, code: 'session_not_found' }],
		['another, to look', ask(service, 'GET', path, { token: other }), { status: 404, code: 'session_not_found' }],
		['a token of no session', ask(service, 'POST', path, { body, token: 'rt_x' }), { status: 404, code: 'session_not_found' }],
		['a page of another origin', ask(service, 'POST', path, { body, token: key, headers: { origin: 'https://other.example' } }), { status: 403, code: 'forbidden' }],
	] as const) {
		assert.deepEqual(await answerOf(await response), expected, title);
	}
	assert.deepEqual(endpoint.asked, []);
	assert.equal((await ask(service, 'POST', path, { body, token: key })).status, 201);
	assert.equal((await ask(service, 'POST', path, { body, token })).status, 201);
});

test('STUN and TURN servers are read from Link headers, whatever else stands there', () => {
	assert.deepEqual(linkedIceServers('<stun:stun.example>; rel="ice-server", <https://x.example>; rel="ice-server", <turns:turn.example:443?transport=tcp>; credential="a, \\"b\\"; c"; rel=ice-server; username="who"; credential-type="password", <turn:no.example>; rel="next"'), [
		{ urls: ['stun:stun.example'] }, { urls: ['turns:turn.example:443?transport=tcp'], username: 'who', credential: 'a, "b"; c' },
	]);
	assert.deepEqual(linkedIceServers(null), []);
	assert.equal(linkedIceServers(Array.from({ length: 40 }, (_, index) => `<stun:s${index}.example>; rel="ice-server"`).join(', ')).length, 8);
});
