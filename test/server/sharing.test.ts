/** Several people in one session: who sees what, who may do what, and what each costs the others. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import type { ServerMessages } from '../../src/protocol/messages.js';
import { newServerKey } from '../../src/server/keys.js';
import { ControlClient } from './control-client.js';
import type { MemoryViewer } from './memory-transport.js';
import { startMachine, startService, type Machine, type Service } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const START = { type: 'session.start', event_id: 's', prompt: 'a cat' };

const share = async (client: ControlClient, fields: object = {}): Promise<ServerMessages['session.shared']> => {
	client.send({ type: 'session.share', event_id: 'share', ...fields });
	return client.next('session.shared');
};

const follow = (service: Service, token: string): ControlClient => new ControlClient(service.socketUrl, ['realtime.video.v1', `token.${token}`]);

/** Comes by a shared link, and watches. */
const watch = async (service: Service, token: string): Promise<{ client: ControlClient; viewer: MemoryViewer; id: string }> => {
	const client = follow(service, token);
	const { member_id: id } = await client.next('session.joined');
	const index = service.memory.viewers.length;
	client.send({ type: 'webrtc.offer', sdp: 'v=0' });
	await client.next('webrtc.answer');
	const viewer = service.memory.viewers.slice(index).at(-1);
	return { client, id, viewer: viewer ?? assert.fail('no viewer') };
};

/** A session that plays to its owner, and a link to it. */
const startShared = async (service: Service, fields: object = {}) => {
	const owner = await service.connectViewer();
	owner.client.send(START);
	await owner.viewer.received(2);
	return { ...owner, token: (await share(owner.client, fields)).token };
};

const refused = async (client: ControlClient): Promise<[code: string, closeCode: number]> => {
	await once(client.socket, 'open');
	return [(await client.next('error')).code, (await client.closed).code];
};

test('a frame names the changes that it carries to their author alone', async () => {
	await using service = await startService(machine);
	const { client: owner, viewer: ours, token } = await startShared(service);
	const { client, viewer } = await watch(service, token);
	await viewer.received(2);
	owner.send({ type: 'session.update', event_id: 'mine', prompt: 'a dog' });
	const { frame_id: frame } = await owner.next('event.applied', (message) => message.event_id === 'mine');
	const heard = await client.next('event.applied', (message) => message.frame_id === frame);
	await viewer.received(viewer.chunks.length + 1);
	assert.deepEqual(ours.metas.find((meta) => meta.frame_id === frame)?.applied_event_ids, ['mine']);
	assert.deepEqual([viewer.metas.find((meta) => meta.frame_id === frame)?.applied_event_ids, heard.event_id], [[], undefined]);
});

test('who follows a link sees the same video from a key frame on, encoded once, and hears how it goes', async () => {
	await using service = await startService(machine);
	const { client: owner, viewer: ours, token } = await startShared(service);
	const { client, viewer, id } = await watch(service, token);
	const [created, joined] = client.messages;
	assert.ok(created?.type === 'session.created' && joined?.type === 'session.joined');
	const first = owner.messages[0];
	assert.ok(first?.type === 'session.created');
	assert.deepEqual([created.session_id, joined.session_id, joined.role, created.resume_token], [first.session_id, first.session_id, 'viewer', undefined]);
	const ready = client.messages.find((message) => message.type === 'session.ready');
	assert.deepEqual(ready?.prompts, [{ text: 'a cat', weight: 1 }]);
	await viewer.received(10);
	assert.equal(viewer.chunks[0]?.isKeyframe, true);
	const from = ours.chunks.findIndex((chunk) => chunk.frameId === viewer.chunks[0]?.frameId);
	await ours.received(from + 10);
	assert.deepEqual(viewer.chunks.slice(0, 10), ours.chunks.slice(from, from + 10));
	await client.next('chunk.completed');
	const members = await owner.next('session.members', (message) => message.members.some((member) => member.member_id === id && member.is_watching));
	assert.deepEqual([members.you, members.driver], ['owner', 'owner']);
	assert.deepEqual(members.members.map((member) => [member.member_id, member.role]), [['owner', 'owner'], [id, 'viewer']]);

	const text = await (await fetch(`${service.url}metrics`)).text();
	const encoded = Number(/^turbocast_encode_ms_count\{codec="h264"\} (\d+)$/mu.exec(text)?.[1]);
	const sent = Number(/^turbocast_frames_total\{outcome="sent"\} (\d+)$/mu.exec(text)?.[1]);
	assert.ok(sent >= encoded + 9, `${encoded} encoded, ${sent} sent`);
});

test('a viewer may watch and leave, and nothing else', async () => {
	await using service = await startService(machine);
	const { client: owner, viewer: ours, token } = await startShared(service);
	const { client, viewer } = await watch(service, token);
	for (const message of [
		START, { type: 'session.update', prompt: 'x' }, { type: 'input.action', axes: {} }, { type: 'session.pause' }, { type: 'session.resume' }, { type: 'session.reset' },
		{ type: 'session.fork' }, { type: 'session.share' }, { type: 'control.request' }, { type: 'control.grant', member_id: 'owner' }, { type: 'control.release' },
	]) {
		assert.equal((await client.refusalOf({ event_id: 'e', ...message })).code, 'forbidden', message.type);
	}
	assert.equal(await client.isAlive(), true);
	client.send({ type: 'session.stop' });
	assert.equal((await client.next('session.ended')).reason, 'stopped');
	assert.equal((await client.closed).code, 1000);
	assert.equal(viewer.state.kind, 'closed');
	const { members } = await owner.next('session.members', (message) => message.members.length === 1);
	assert.equal(members[0]?.role, 'owner');
	await ours.received(ours.chunks.length + 4);
});

test('guests ask for control, get it in turn, and hand it on; the owner takes it back', async () => {
	await using service = await startService(machine);
	const { client: owner, token } = await startShared(service, { role: 'guest' });
	const [ann, bob] = [await watch(service, token), await watch(service, token)];
	assert.equal((await ann.client.refusalOf({ type: 'session.update', prompt: 'a dog' })).code, 'forbidden');
	ann.client.send({ type: 'control.request', event_id: 'please' });
	assert.equal((await owner.next('control.requested')).member_id, ann.id);
	bob.client.send({ type: 'control.request', event_id: 'me too' });
	assert.equal((await owner.next('control.requested')).member_id, bob.id);
	assert.deepEqual((await owner.next('session.members', ({ members }) => members.filter((member) => member.wants_control).length === 2)).driver, 'owner');

	owner.send({ type: 'control.grant', event_id: 'go', member_id: ann.id });
	assert.deepEqual(await owner.next('control.revoked'), { type: 'control.revoked', event_id: 'go', member_id: 'owner', reason: 'granted' });
	assert.deepEqual(await owner.next('control.granted'), { type: 'control.granted', event_id: 'go', member_id: ann.id });
	assert.deepEqual(await ann.client.next('control.granted'), { type: 'control.granted', event_id: 'please', member_id: ann.id });
	assert.deepEqual(await bob.client.next('control.granted'), { type: 'control.granted', member_id: ann.id });
	assert.equal((await owner.refusalOf({ type: 'session.update', prompt: 'a bird' })).code, 'forbidden');
	ann.client.send({ type: 'session.update', event_id: 'mine', prompt: 'a dog' });
	assert.equal((await ann.client.next('event.accepted')).event_id, 'mine');
	assert.equal((await ann.client.next('event.applied')).event_id, 'mine');
	assert.equal((await owner.next('event.applied', (message) => message.event_id === undefined)).chunk_index > 0, true);

	ann.client.send({ type: 'control.release', event_id: 'enough' });
	assert.equal((await bob.client.next('control.granted', (message) => message.member_id === bob.id)).event_id, 'me too');
	owner.send({ type: 'control.request', event_id: 'back' });
	assert.deepEqual(await owner.next('control.granted', (message) => message.member_id === 'owner'), { type: 'control.granted', event_id: 'back', member_id: 'owner' });
	assert.equal((await bob.client.refusalOf({ type: 'session.update', prompt: 'a fish' })).code, 'forbidden');
	owner.send({ type: 'control.grant', member_id: bob.id });
	await owner.next('control.granted', (message) => message.member_id === bob.id);
	bob.client.socket.terminate();
	assert.equal((await owner.next('control.revoked', (message) => message.reason === 'left')).member_id, bob.id);
	assert.equal((await owner.next('control.granted')).member_id, 'owner');
	assert.equal((await owner.refusalOf({ type: 'control.grant', member_id: 'nobody' })).param, 'member_id');
});

test('the end of the session is everyone\'s, and its links lead nowhere then', async () => {
	await using service = await startService(machine);
	const { client: owner, token } = await startShared(service);
	const { client, viewer } = await watch(service, token);
	owner.send({ type: 'session.stop' });
	assert.equal((await client.next('session.ended')).reason, 'stopped');
	assert.equal((await client.closed).code, 1000);
	assert.equal(viewer.state.kind, 'closed');
	assert.deepEqual(await refused(follow(service, token)), ['session_not_found', 4404]);
	assert.equal((await fetch(`${service.url}readyz`)).status, 200);
});

test('a session can be shared before it is started; who waits sees it begin', async () => {
	await using service = await startService(machine);
	const owner = await service.connect();
	const { token } = await share(owner);
	const { client, viewer } = await watch(service, token);
	assert.equal(client.messages.some((message) => message.type === 'session.ready'), false);
	owner.send(START);
	await client.next('session.ready');
	await client.next('generation.started');
	await viewer.received(3);
	assert.equal(viewer.metas[0]?.frame_id, viewer.chunks[0]?.frameId);
	await owner.next('event.applied');
});

test('only so many may watch; one more is told when to try again', async () => {
	await using service = await startService(machine, { maxViewers: 1 });
	const { token } = await startShared(service);
	const { client } = await watch(service, token);
	const late = follow(service, token);
	const error = await late.next('error');
	assert.ok(error.code === 'capacity_exhausted' && error.retry_after_ms !== undefined && /All 1 places/u.test(error.message));
	assert.equal((await late.closed).code, 1013);
	client.socket.terminate();
	await client.closed;
	for (;;) {
		const next = follow(service, token);
		await once(next.socket, 'message');
		if (next.messages[0]?.type === 'session.created') {
			break;
		}
		await next.closed;
	}
});

test('twenty who come together are told of together', async () => {
	const startedMs = performance.now();
	await using service = await startService(machine, { maxViewers: 20, maxConnections: 30 });
	const { client: owner, token } = await startShared(service);
	await Promise.all(Array.from({ length: 20 }, () => watch(service, token)));
	await owner.next('session.members', ({ members }) => members.filter((member) => member.is_watching).length === 21);
	const told = owner.messages.filter((message) => message.type === 'session.members').length;
	// At most one in 200 ms: on a machine that takes seconds for twenty, as often as they come.
	const most = 2 + (performance.now() - startedMs) / 200;
	assert.ok(told <= most, `${told} times, at most ${most}`);
});

test('on a server with keys: a backend makes secrets for one session, of its own key alone', async () => {
	const [key, other] = [newServerKey(), newServerKey()];
	await using service = await startService(machine, {}, undefined, { keys: [key, other] });
	const owner = new ControlClient(service.socketUrl, undefined, { headers: { authorization: `Bearer ${key}` } });
	const { session_id: sessionId } = await owner.next('session.created');
	owner.send(START);
	await owner.next('session.ready');
	const mint = (credential: string, body: object): Promise<Response> =>
		fetch(new URL('/v1/realtime/client_secrets', service.url), { method: 'POST', headers: { authorization: `Bearer ${credential}` }, body: JSON.stringify(body) });
	const made = await mint(key, { session_id: sessionId });
	const secret = (await made.json()) as { value: string; session_id: string; permissions: { actions: string[] } };
	assert.deepEqual([secret.session_id, secret.permissions.actions], [sessionId, ['view']]);
	const viewer = follow(service, secret.value);
	assert.equal((await viewer.next('session.joined')).role, 'viewer');
	assert.deepEqual(await refused(follow(service, secret.value)), ['unauthorized', 4401], 'a secret is for one connection, a link for any number');
	const guest = (await (await mint(key, { session_id: sessionId, permissions: { actions: ['view', 'control'] } })).json()) as { value: string };
	assert.equal((await follow(service, guest.value).next('session.joined')).role, 'guest');
	for (const response of [await mint(other, { session_id: sessionId }), await mint(key, { session_id: 'no such session' })]) {
		assert.equal(response.status, 404);
		assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'session_not_found');
	}
	const { token } = await share(owner);
	assert.equal((await follow(service, token).next('session.joined')).role, 'viewer');
	assert.equal((await follow(service, token).next('session.joined')).role, 'viewer');
	assert.equal((await mint(token, {})).status, 403, 'a link makes no secrets');
});

test('a link expires; those who came by it stay', async () => {
	let nowMs = 1_800_000_000_000;
	await using service = await startService(machine, {}, undefined, { wallMs: () => nowMs });
	const { client: owner } = await service.connectViewer();
	const { token, expires_at: expiresAt } = await share(owner, { expires_in_seconds: 10 });
	assert.equal(expiresAt, nowMs / 1000 + 10);
	const early = await watch(service, token);
	nowMs += 10_000;
	assert.deepEqual(await refused(follow(service, token)), ['token_expired', 4401]);
	assert.equal(await early.client.isAlive(), true);
});

test('links are limited in number', async () => {
	await using service = await startService(machine, {}, undefined, { secretsPerMinute: 2 });
	const client = await service.connect();
	await share(client);
	await share(client);
	const error = await client.refusalOf({ type: 'session.share', event_id: 'e' });
	assert.ok(error.code === 'rate_limited' && error.retry_after_ms !== undefined);
});
