/** Players that come by WHEP: over real connections where the video matters, over memory where the rules of HTTP do. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { FRAGMENT_TYPE, MAX_FRAGMENT_BYTES, MOST_PATCHES_PER_MINUTE, SDP_TYPE, WHEP_PATH } from '../../src/protocol/whep.js';
import { newServerKey } from '../../src/server/keys.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { Receiver } from '../transport/receiver.js';
import { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine, type Service } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const openTransport = () => createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock });

/** An offer as a player makes it, of a connection that nobody goes on with. */
const someOffer = async (): Promise<string> => {
	await using receiver = new Receiver('h264');
	await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
	return receiver.connection.localDescription?.sdp ?? '';
};

const START = `${WHEP_PATH}?prompt=red%20blue&seed=7`;

type Extra = { readonly token?: string; readonly headers?: { readonly [name: string]: string } };

const ask = (service: Service, method: string, path: string, body?: string, { token, headers = {} }: Extra = {}): Promise<Response> =>
	fetch(new URL(path, service.url), {
		method,
		headers: {
			...(method === 'POST' ? { 'content-type': SDP_TYPE } : method === 'PATCH' ? { 'content-type': FRAGMENT_TYPE } : {}),
			...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers,
		},
		...(body === undefined ? {} : { body }),
	});

const codeOf = async (response: Response): Promise<string> => ((await response.json()) as { error: { code: string } }).error.code;
const answerOf = async (response: Response): Promise<{ status: number; code: string }> => ({ status: response.status, code: await codeOf(response) });
const locationOf = (response: Response): string => response.headers.get('location') ?? '';

/** Plays as a player would: POST, answer, picture. Candidates are in the offer. */
const play = async (service: Service, receiver: Receiver, path: string, extra?: Extra): Promise<Response> => {
	await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
	const response = await ask(service, 'POST', path, receiver.connection.localDescription?.sdp ?? '', extra);
	assert.equal(response.status, 201, await response.clone().text());
	await receiver.connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
	await receiver.until(() => receiver.units.length >= 5);
	return response;
};

const sessions = async (service: Service): Promise<number> =>
	Number(/^turbocast_sessions_active (\d+)/mu.exec(await (await fetch(new URL('/metrics', service.url))).text())?.[1]);

const gone = async (service: Service): Promise<void> => {
	while (await sessions(service) > 0) {
		await systemClock.sleep(20);
	}
};

describe('over a real connection', () => {
	test('one POST gives the video of a session of its own, and DELETE ends it', async () => {
		await using service = await startService(machine, {}, openTransport());
		await using receiver = new Receiver('h264');
		const response = await play(service, receiver, START);
		assert.equal(response.headers.get('content-type'), SDP_TYPE);
		assert.match(locationOf(response), /^\/v1\/realtime\/whep\/[\w-]{32}$/u);
		assert.match(response.headers.get('etag') ?? '', /^"[\w-]+"$/u);
		assert.match(response.headers.get('session-id') ?? '', /^sess_/u);
		assert.equal(await sessions(service), 1);
		assert.equal((await ask(service, 'DELETE', locationOf(response))).status, 200);
		await gone(service);
		assert.deepEqual(await answerOf(await ask(service, 'DELETE', locationOf(response))), { status: 404, code: 'session_not_found' });
	});

	test('a restart by PATCH brings the picture back under a new ETag; requests that belong to the ICE session before are refused', async () => {
		await using service = await startService(machine, {}, openTransport());
		await using receiver = new Receiver('h264');
		const response = await play(service, receiver, START);
		const [path, first] = [locationOf(response), response.headers.get('etag') ?? ''];
		const offer = await receiver.restartOffer();
		const fragment = offer.split('\r\n').filter((line) => /^a=(?:ice-ufrag|ice-pwd|candidate):/u.test(line)).join('\r\n');
		const restarted = await ask(service, 'PATCH', path, fragment, { headers: { 'if-match': '"*"' } });
		assert.equal(restarted.status, 200, await restarted.clone().text());
		assert.equal(restarted.headers.get('content-type'), FRAGMENT_TYPE);
		const second = restarted.headers.get('etag') ?? '';
		assert.notEqual(second, first);
		const body = await restarted.text();
		// What a player does with it: the answer of before with other ICE lines.
		const ice = body.split('\r\n').filter((line) => /^a=(?:ice-ufrag|ice-pwd|candidate):/u.test(line));
		const before = (receiver.connection.remoteDescription?.sdp ?? '').split('\r\n').filter((line) => line !== '' && !/^a=(?:ice-ufrag|ice-pwd|candidate):|^a=end-of-candidates/u.test(line));
		await receiver.restarted(`${before.flatMap((line) => (line.startsWith('m=') ? [line] : line.startsWith('a=mid:') ? [line, ...ice] : [line])).join('\r\n')}\r\n`);
		const had = receiver.units.length;
		await receiver.until(() => receiver.units.length > had + 5);
		assert.equal(await sessions(service), 1);
		const trickle = (etag: string) => ask(service, 'PATCH', path, 'a=mid:0\r\na=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\n', { headers: { 'if-match': etag } });
		assert.deepEqual(await answerOf(await trickle(first)), { status: 412, code: 'precondition_failed' });
		const trickled = await trickle(second);
		assert.equal(trickled.status, 204);
		assert.equal(trickled.headers.get('etag'), null);
	});

	test('whoever has the link of a session watches it with a URL and that token, and leaves it as it was', async () => {
		await using service = await startService(machine, {}, openTransport());
		await using client = await service.connect();
		client.send({ type: 'session.start', prompt: 'red' });
		await client.next('session.ready');
		client.send({ type: 'session.share' });
		const { token } = await client.next('session.shared');
		await using receiver = new Receiver('h264');
		const response = await play(service, receiver, WHEP_PATH, { token });
		const { members } = await client.next('session.members', (message) => message.members.some(({ is_watching: watches }) => watches));
		assert.deepEqual(members.map(({ role }) => role), ['owner', 'viewer']);
		assert.equal((await ask(service, 'DELETE', locationOf(response), undefined, { token })).status, 200);
		await client.next('session.members', (message) => message.members.length === 1);
		assert.ok(await client.isAlive());
	});
});

test('what is wrong with a request has its code: method, types, size, offer, prompt', async () => {
	await using service = await startService(machine, { maxWaiting: 0 });
	const offer = await someOffer();
	for (const [title, response, expected] of [
		['another method', ask(service, 'PUT', START), { status: 405, code: 'method_not_allowed' }],
		['an answer it does not take', ask(service, 'POST', START, offer, { headers: { accept: 'text/html' } }), { status: 406, code: 'not_acceptable' }],
		['JSON', ask(service, 'POST', START, '{}', { headers: { 'content-type': 'application/json' } }), { status: 415, code: 'unsupported_media_type' }],
		['a fragment that is no fragment', ask(service, 'PATCH', `${WHEP_PATH}/nobody`, 'x'), { status: 404, code: 'session_not_found' }],
		['too long a body', ask(service, 'POST', START, `v=0\r\n${'a=x\r\n'.repeat(12_000)}`), { status: 413, code: 'message_too_big' }],
		['no SDP', ask(service, 'POST', START, 'hello'), { status: 400, code: 'invalid_sdp' }],
		['no codec that there is', ask(service, 'POST', START, offer.replace('H264/90000', 'AV1/90000')), { status: 422, code: 'unsupported_media' }],
		['no video', ask(service, 'POST', START, offer.replace('a=recvonly', 'a=sendonly')), { status: 422, code: 'unsupported_media' }],
		['no prompt', ask(service, 'POST', WHEP_PATH, offer), { status: 400, code: 'invalid_request' }],
		['an empty prompt', ask(service, 'POST', `${WHEP_PATH}?prompt=%20`, offer), { status: 400, code: 'invalid_prompt' }],
		['a seed that is none', ask(service, 'POST', `${START}&seed=x&steps=two`, offer), { status: 400, code: 'invalid_request' }],
		['no such model', ask(service, 'POST', `${START}&model=huge`, offer), { status: 404, code: 'model_not_found' }],
		['no such session', ask(service, 'POST', '/v1/realtime/sessions/sess_x/whep', offer), { status: 404, code: 'session_not_found' }],
	] as const) {
		assert.deepEqual(await answerOf(await response), expected, title);
	}
	assert.equal((await ask(service, 'GET', START)).status, 204);
	assert.equal(await sessions(service), 0);
	assert.ok(service.memory.viewers.every(({ state }) => state.kind === 'closed'), 'no connection is left of those that were refused');
});

test('PATCH needs If-Match, a fragment and the type of one; a player that asks too often is told so', async () => {
	await using service = await startService(machine);
	const made = await ask(service, 'POST', START, await someOffer());
	const [path, etag] = [locationOf(made), made.headers.get('etag') ?? ''];
	const candidate = 'a=mid:0\r\na=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n';
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', path, candidate)), { status: 428, code: 'precondition_required' });
	const offered = await someOffer();
	const other = await ask(service, 'POST', START, offered);
	const names = offered.split('\r\n').filter((line) => /^a=ice-(?:ufrag|pwd):/u.test(line)).slice(0, 2).join('\r\n');
	assert.equal((await ask(service, 'PATCH', locationOf(other), `${names}\r\n${candidate}`)).status, 204, 'candidates that name the present ICE session need none');
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', locationOf(other), `a=ice-ufrag:else\r\na=ice-pwd:passwordpasswordpassword\r\n${candidate}`)), { status: 428, code: 'precondition_required' });
	assert.equal((await ask(service, 'DELETE', locationOf(other))).status, 200);
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', path, candidate, { headers: { 'if-match': '"other"' } })), { status: 412, code: 'precondition_failed' });
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', path, candidate, { headers: { 'if-match': etag, 'content-type': SDP_TYPE } })), { status: 415, code: 'unsupported_media_type' });
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', path, 'hello', { headers: { 'if-match': etag } })), { status: 400, code: 'invalid_sdp' });
	assert.deepEqual(await answerOf(await ask(service, 'PATCH', path, `a=mid:${'0'.repeat(MAX_FRAGMENT_BYTES)}`, { headers: { 'if-match': etag } })), { status: 413, code: 'message_too_big' });
	assert.equal((await ask(service, 'PATCH', path, candidate, { headers: { 'if-match': etag } })).status, 204);
	assert.deepEqual(service.memory.viewers[0]?.candidates, [{ candidate: 'candidate:1 1 udp 2122260223 127.0.0.1 9 typ host', sdp_mid: '0' }, null]);
	let refused: Response | undefined;
	for (let count = 0; count <= 2 * MOST_PATCHES_PER_MINUTE && refused === undefined; count += 1) {
		const response = await ask(service, 'PATCH', path, candidate, { headers: { 'if-match': etag } });
		refused = response.status === 204 ? undefined : response;
	}
	assert.ok(refused !== undefined);
	assert.ok(Number(refused.headers.get('retry-after')) >= 1);
	assert.deepEqual(await answerOf(refused), { status: 429, code: 'rate_limited' });
});

test('the places, the line and the limits of an address hold for players, who do not wait in the line', async () => {
	await using service = await startService(machine, { maxSessions: 1, maxWaiting: 4, maxConnections: 3 });
	const offer = await someOffer();
	const first = await ask(service, 'POST', START, offer);
	assert.equal(first.status, 201);
	const second = await ask(service, 'POST', START, offer);
	assert.ok(Number(second.headers.get('retry-after')) >= 1);
	assert.deepEqual(await answerOf(second), { status: 503, code: 'capacity_exhausted' });
	assert.equal(await sessions(service), 1);
	await using one = await service.connect();
	await using two = await service.connect();
	assert.ok(await two.isAlive());
	assert.deepEqual(await answerOf(await ask(service, 'POST', START, offer)), { status: 503, code: 'capacity_exhausted' });
	assert.equal((await ask(service, 'DELETE', locationOf(first))).status, 200);
	await gone(service);
	assert.equal((await ask(service, 'POST', START, offer)).status, 201, 'its place and its connection are free again');
	assert.ok(await one.isAlive());
});

test('an address that offers too often is told when to come again', async () => {
	await using service = await startService(machine, { whepOffersPerMinute: 2 });
	for (let count = 0; count < 2; count += 1) {
		assert.equal((await ask(service, 'POST', START, 'v=0')).status, 400);
	}
	const refused = await ask(service, 'POST', START, 'v=0');
	assert.ok(Number(refused.headers.get('retry-after')) > 20);
	assert.deepEqual(await answerOf(refused), { status: 429, code: 'rate_limited' });
});

test('a player whose connection ends takes its session with it; the longest duration ends both', async () => {
	await using service = await startService(machine, { sessionMaxMs: 3000 });
	const made = await ask(service, 'POST', START, await someOffer());
	await service.memory.viewers[0]?.close('lost');
	await gone(service);
	assert.equal((await ask(service, 'DELETE', locationOf(made))).status, 404);
	const again = await ask(service, 'POST', START, await someOffer());
	assert.equal(again.status, 201);
	await gone(service);
	assert.equal(service.memory.viewers[1]?.state.kind, 'closed');
	assert.equal((await ask(service, 'DELETE', locationOf(again))).status, 404);
});

test('where there are keys, players need one: a server key, or a client secret that may do what is asked', async () => {
	const key = newServerKey();
	const other = newServerKey();
	await using service = await startService(machine, {}, undefined, { keys: [key, other] });
	const secret = async (body: object): Promise<string> =>
		((await (await fetch(new URL('/v1/realtime/client_secrets', service.url), { method: 'POST', headers: { authorization: `Bearer ${key}` }, body: JSON.stringify(body) })).json()) as { value: string }).value;
	const offer = await someOffer();
	const without = await ask(service, 'POST', START, offer);
	assert.equal(without.headers.get('www-authenticate'), 'Bearer');
	assert.deepEqual(await answerOf(without), { status: 401, code: 'unauthorized' });
	assert.deepEqual(await answerOf(await ask(service, 'POST', START, offer, { token: await secret({ permissions: { actions: ['view'] } }) })), { status: 403, code: 'forbidden' });
	const token = await secret({});
	assert.equal((await ask(service, 'POST', START, 'v=0', { token })).status, 400, 'an offer that cannot be answered');
	const made = await ask(service, 'POST', START, offer, { token });
	assert.equal(made.status, 201, 'uses up no secret');
	assert.deepEqual(await answerOf(await ask(service, 'POST', START, offer, { token })), { status: 401, code: 'unauthorized' });

	const sessionId = made.headers.get('session-id') ?? '';
	const watch = `/v1/realtime/sessions/${sessionId}/whep`;
	assert.deepEqual(await answerOf(await ask(service, 'POST', watch, offer, { token: await secret({}) })), { status: 403, code: 'forbidden' });
	assert.deepEqual(await answerOf(await ask(service, 'POST', watch, offer, { token: other })), { status: 404, code: 'session_not_found' });
	const watching = await ask(service, 'POST', watch, offer, { token: key });
	assert.equal(watching.status, 201);
	assert.equal(watching.headers.get('session-id'), sessionId);
	assert.equal((await ask(service, 'POST', WHEP_PATH, offer, { token: await secret({ session_id: sessionId }) })).status, 201);

	assert.equal((await ask(service, 'DELETE', locationOf(made))).status, 401);
	assert.deepEqual(await answerOf(await ask(service, 'DELETE', locationOf(made), undefined, { token: other })), { status: 403, code: 'forbidden' });
	assert.equal((await ask(service, 'DELETE', locationOf(watching), undefined, { token: key })).status, 200);
	assert.equal((await ask(service, 'DELETE', locationOf(made), undefined, { token })).status, 200, 'the secret of the POST, used up as it is');
});

test('pages of allowed origins may play, read the headers that they need, and no others may', async () => {
	await using service = await startService(machine, { allowedOrigins: ['https://video.example'] });
	const headers = { origin: 'https://video.example' };
	const preflight = await ask(service, 'OPTIONS', START, undefined, { headers: { ...headers, 'access-control-request-method': 'POST' } });
	assert.equal(preflight.status, 200);
	assert.equal(preflight.headers.get('accept-post'), SDP_TYPE);
	assert.equal(preflight.headers.get('access-control-allow-origin'), 'https://video.example');
	assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /Authorization, Content-Type, If-Match/u);
	const made = await ask(service, 'POST', START, await someOffer(), { headers });
	for (const name of ['Location', 'ETag', 'Link', 'Retry-After']) {
		assert.match(made.headers.get('access-control-expose-headers') ?? '', new RegExp(`\\b${name}\\b`, 'u'));
	}
	assert.match((await ask(service, 'OPTIONS', locationOf(made), undefined, { headers })).headers.get('access-control-allow-methods') ?? '', /PATCH, DELETE/u);
	const foreign = await ask(service, 'POST', START, await someOffer(), { headers: { origin: 'https://other.example' } });
	assert.equal(foreign.headers.get('access-control-allow-origin'), null);
	assert.deepEqual(await answerOf(foreign), { status: 403, code: 'forbidden' });
});

test('TURN servers come with credentials that expire, in the answer and in session.created', async () => {
	const turn = { urls: ['turn:turn.example:3478?transport=udp', 'turns:turn.example:443?transport=tcp'], secret: 'between "us"', credentialSeconds: 600 };
	await using service = await startService(machine, { turn });
	const isGood = (username = '', credential = ''): void => {
		const leftSeconds = Number(username.split(':', 1)[0]) - Date.now() / 1000;
		assert.ok(leftSeconds > 590 && leftSeconds <= 600, `${leftSeconds} s`);
		assert.equal(credential, createHmac('sha1', turn.secret).update(username).digest('base64'));
	};
	await using client = new ControlClient(service.socketUrl);
	const { ice_servers: servers } = await client.next('session.created');
	assert.deepEqual(servers.map(({ urls }) => urls), [['stun:stun.example.org'], turn.urls]);
	isGood(servers[1]?.username, servers[1]?.credential);
	const links = (await ask(service, 'POST', START, await someOffer())).headers.get('link')?.split(/, (?=<)/u) ?? [];
	assert.equal(links[0], '<stun:stun.example.org>; rel="ice-server"');
	for (const [index, link] of links.slice(1).entries()) {
		const [, url, username, credential] = /^<(.+)>; rel="ice-server"; username="(.+?)"; credential="(.+?)"; credential-type="password"$/u.exec(link) ?? [];
		assert.equal(url, turn.urls[index]);
		isGood(username, credential);
	}
	assert.equal(links.length, 3);
});
