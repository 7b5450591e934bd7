import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { MAX_STREAMS, startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const pidOf = (): number => (machine.engine.state.kind === 'ready' ? machine.engine.state.pid : assert.fail('the engine is not ready'));

test('a session walks its whole line: created, accepted, ready, started, applied, completed, ended', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	const [created] = client.messages;
	assert.ok(created?.type === 'session.created');
	assert.equal(created.model.id, 'small');
	assert.deepEqual(created.model.steps, [1, 2, 4]);
	assert.equal(created.model.frames_per_chunk, 8);
	assert.deepEqual(created.ice_servers, [{ urls: ['stun:stun.example.org'] }]);
	assert.deepEqual(created.limits, {
		max_message_bytes: 65536, max_prompt_length: 2000, max_prompts: 8, max_session_ms: 3_600_000, idle_timeout_ms: 60_000, start_timeout_ms: 60_000, resume_grace_ms: 0, max_lead_ms: 1000,
	});

	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat jumps over the unicorn', seed: 5, parameters: { steps: 1 }, size: '32x32' });
	const accepted = await client.next('event.accepted');
	assert.deepEqual(accepted, { type: 'event.accepted', event_id: 's', will_apply_at_chunk: 0, will_apply_at_media_ms: 0, unknown_words: ['unicorn'] });
	const ready = await client.next('session.ready');
	assert.equal(ready.session_id, created.session_id);
	assert.deepEqual({ ...ready, cold_start_ms: 0, session_id: '', expires_in_ms: 0, resume_token: '' }, {
		type: 'session.ready', session_id: '', model: 'small', seed: 5, steps: 1, width: 32, height: 32, cold_start_ms: 0, resume_token: '',
		resumed: false, is_paused: false, prompts: [{ text: 'a cat jumps over the unicorn', weight: 1 }], controls: {}, max_lead_ms: 1000, expires_in_ms: 0,
	});
	assert.ok(ready.expires_in_ms > 3_590_000 && ready.expires_in_ms <= 3_600_000);
	assert.deepEqual(await client.next('generation.started'), { type: 'generation.started', chunk_index: 0, seed: 5, media_ms: 0, history: 'new' });
	const applied = await client.next('event.applied');
	assert.equal(applied.event_id, 's');
	assert.equal(applied.frame_id, 0);
	assert.equal(applied.rtp_timestamp, viewer.chunks[0]?.rtpTimestamp);
	const { wait_ms: wait, generate_ms: generate, hold_ms: hold, encode_ms: encode } = applied.timings;
	assert.ok(Math.abs(wait + generate + hold + encode - applied.server_latency_ms) < 1e-6, 'the parts of the latency are all of it');
	assert.ok(generate > 0 && encode > 0);
	const completed = await client.next('chunk.completed', (message) => message.chunk_index === 1);
	assert.deepEqual([completed.frames, completed.first_frame_id, completed.media_ms], [8, 8, 500]);
	assert.ok(completed.timings.denoise_ms > 0);

	await viewer.received(20);
	assert.equal(viewer.chunks[0]?.isKeyframe, true);
	assert.deepEqual(viewer.metas.slice(0, 20).map((meta) => meta.frame_id), Array.from({ length: 20 }, (_, index) => index));
	assert.deepEqual(viewer.metas.slice(0, 20).map((meta) => meta.rtp_timestamp), viewer.chunks.slice(0, 20).map((chunk) => chunk.rtpTimestamp));
	assert.deepEqual(viewer.metas[0]?.applied_event_ids, ['s']);
	assert.deepEqual(viewer.metas[1]?.applied_event_ids, []);

	client.send({ type: 'session.stop' });
	const ended = await client.next('session.ended');
	assert.equal(ended.reason, 'stopped');
	assert.ok(ended.frames >= 20 && ended.generated_ms === ended.frames * 62.5);
	assert.deepEqual(await client.closed, { code: 1000, reason: 'stopped' });
	assert.equal(client.messages.at(-1), ended);
	assert.equal(viewer.state.kind, 'closed');
});

test('the same seed and inputs give the same frames through the whole server', async () => {
	const sums: number[][] = [];
	for (let run = 0; run < 2; run++) {
		await using service = await startService(machine);
		const { client, viewer } = await service.connectViewer();
		client.send({ type: 'session.start', prompt: 'a dog', seed: 9 });
		await viewer.received(12);
		sums.push(viewer.chunks.slice(0, 12).map((chunk) => chunk.data.reduce((sum, byte, index) => (sum + byte * (index + 1)) >>> 0, 0)));
	}
	assert.deepEqual(sums[0], sums[1]);
});

test('a change is heard from the start of the chunk it was announced for, and its first frame says so', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat', parameters: { steps: 1 } });
	await client.next('event.applied');
	client.send({ type: 'session.update', event_id: 'u', prompt: 'a rocket flies', parameters: { steps: 2 } });
	const accepted = await client.next('event.accepted', (message) => message.event_id === 'u');
	client.send({ type: 'input.action', event_id: 'a', axes: { steer_x: 1 } });
	await client.next('event.accepted', (message) => message.event_id === 'a');
	const applied = await client.next('event.applied', (message) => message.event_id === 'u');
	assert.equal(applied.chunk_index, accepted.will_apply_at_chunk);
	assert.equal(applied.frame_id, applied.chunk_index * 8);
	assert.ok(applied.server_latency_ms > 0);
	await client.next('event.applied', (message) => message.event_id === 'a');
	const meta = viewer.metas.find((entry) => entry.applied_event_ids.includes('u'));
	assert.equal(meta?.frame_id, applied.frame_id);
	assert.equal(meta.rtp_timestamp, applied.rtp_timestamp);
});

test('while the viewer is not connected generation stops at the lead; it plays from the first frame once it is', async () => {
	await using service = await startService(machine, { maxLeadMs: 1000 });
	const client = await service.connect();
	service.memory.connects = false;
	client.send({ type: 'webrtc.offer', event_id: 'o', sdp: 'v=0' });
	assert.equal((await client.next('webrtc.answer')).event_id, 'o');
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat' });
	await client.next('chunk.completed', (message) => message.chunk_index === 1);
	assert.equal(await client.isAlive(), true);
	assert.equal(client.messages.filter((message) => message.type === 'chunk.completed').length, 2);
	assert.equal(client.messages.filter((message) => message.type === 'event.applied').length, 0);
	const [viewer] = service.memory.viewers;
	viewer?.become({ kind: 'connected' });
	const applied = await client.next('event.applied');
	assert.equal(applied.frame_id, 0);
	await client.next('chunk.completed', (message) => message.chunk_index === 3);
});

test('a viewer that comes back gets a key frame, and one that asks for one gets it', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await viewer.received(3);
	viewer.become({ kind: 'disconnected' });
	const before = viewer.chunks.length;
	viewer.become({ kind: 'connected' });
	await viewer.received(before + 1);
	assert.equal(viewer.chunks[before]?.isKeyframe, true, 'after it came back');
	const asked = viewer.chunks.length;
	viewer.askForKeyframe();
	// The one that it came back with was a moment ago; the next comes when the interval is over, and frames that are late come at once until then.
	await viewer.received(asked + 16);
	assert.ok(viewer.chunks.slice(asked, asked + 16).some((chunk) => chunk.isKeyframe), 'after it asked');
});

test('a new offer replaces the viewer of the session', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await viewer.received(2);
	client.send({ type: 'webrtc.offer', sdp: 'v=0' });
	await client.next('webrtc.answer');
	assert.equal(viewer.state.kind, 'closed');
	const next = service.memory.viewers[1];
	await next?.received(2);
	assert.equal(next?.chunks[0]?.isKeyframe, true);
});

test('an engine that is killed is told of, comes back, and the video goes on with the next chunk and frame', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat', seed: 3 });
	await viewer.received(10);
	process.kill(pidOf(), 'SIGKILL');
	const reconnecting = await client.next('session.reconnecting');
	assert.equal(reconnecting.code, 'engine_failed');
	const error = await client.next('error');
	assert.equal(error.code, 'engine_failed');
	assert.equal(error.event_id, undefined);
	assert.match(error.message, /goes on by itself/u);
	client.send({ type: 'session.update', event_id: 'u', prompt: 'a dog' });
	const again = await client.next('generation.started');
	assert.ok(again.chunk_index > 0);
	await client.next('event.applied', (message) => message.event_id === 'u');
	const ids = viewer.metas.map((meta) => meta.frame_id);
	assert.deepEqual(ids, ids.map((_, index) => index), 'frame ids have no gap');
	const indices = viewer.metas.map((meta) => meta.chunk_index);
	assert.deepEqual(indices, [...indices].sort((a, b) => a - b));
	assert.equal(client.messages.filter((message) => message.type === 'session.reconnecting').length, 1);
});

test('an encoder process that is killed comes back, and the video goes on with a key frame', async () => {
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await viewer.received(6);
	const { pid } = machine.encoders;
	assert.ok(pid !== undefined);
	process.kill(pid, 'SIGKILL');
	const before = viewer.chunks.length;
	await viewer.received(before + 8);
	assert.ok(viewer.chunks.slice(before).some((chunk) => chunk.isKeyframe));
	assert.deepEqual(client.messages.filter((message) => message.type === 'error' && message.code !== 'encoder_failed'), []);
});

test('a socket that is lost frees its place for the next session', async () => {
	await using service = await startService(machine, { maxSessions: 1 });
	const first = await service.connect();
	first.send({ type: 'session.start', prompt: 'a cat' });
	await first.next('session.ready');
	const second = await service.connect();
	assert.equal((await second.refusalOf({ type: 'session.start', event_id: 'x', prompt: 'a dog' })).code, 'capacity_exhausted');
	first.socket.terminate();
	await first.closed;
	while ((await fetch(`${service.url}readyz`)).status !== 200) {
		// Asked again until the server has heard of the loss.
	}
	second.send({ type: 'session.start', prompt: 'a dog' });
	await second.next('session.ready');
});

test('a stream that the engine has no room for gives the place back, and the session can be started later', async () => {
	await using service = await startService(machine, { maxSessions: 1 });
	const client = await service.connect();
	const others = await Promise.all(Array.from({ length: MAX_STREAMS }, () => machine.engine.openStream({ seed: 1, width: 32, height: 32 })));
	assert.equal((await client.refusalOf({ type: 'session.start', event_id: 'x', prompt: 'a cat' })).code, 'capacity_exhausted');
	assert.equal((await fetch(`${service.url}readyz`)).status, 200);
	await Promise.all(others.map((stream) => stream.close()));
	client.send({ type: 'session.start', prompt: 'a cat' });
	await client.next('session.ready');
});

test('the timeouts of starting and watching are off while somebody watches, and on again when nobody does', async () => {
	// Time enough for a busy machine to start and to offer in.
	await using service = await startService(machine, { startTimeoutMs: 3000, idleTimeoutMs: 3000 });
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await client.next('session.ready');
	client.send({ type: 'webrtc.offer', sdp: 'v=0' });
	await client.next('webrtc.answer');
	const [viewer] = service.memory.viewers;
	// At 16 frames a second at most: longer than both, whatever the machine.
	await viewer?.received(56);
	assert.equal(await client.isAlive(), true);
	viewer?.become({ kind: 'disconnected' });
	assert.equal((await client.next('error')).code, 'idle_timeout');
	assert.equal((await client.closed).code, 4408);
});

test('a session is told ten seconds before its longest duration is over', async () => {
	await using service = await startService(machine, { sessionMaxMs: 10_500 });
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat' });
	assert.deepEqual(await client.next('session.expiring'), { type: 'session.expiring', reason: 'max_duration', seconds_left: 10 });
	client.send({ type: 'session.stop' });
	assert.equal((await client.next('session.ended')).reason, 'stopped');
});

test('stopping before a start, or while the stream is being opened, ends properly too', async () => {
	await using service = await startService(machine);
	const early = await service.connect();
	early.send({ type: 'session.stop' });
	assert.deepEqual({ ...(await early.next('session.ended')), session_id: '' }, { type: 'session.ended', session_id: '', reason: 'stopped', generated_ms: 0, frames: 0 });
	assert.equal((await early.closed).code, 1000);
	const hasty = await service.connect();
	hasty.send({ type: 'session.start', prompt: 'a cat' });
	hasty.send({ type: 'session.stop' });
	assert.equal((await hasty.next('session.ended')).reason, 'stopped');
	assert.equal((await hasty.closed).code, 1000);
});

test('closing the server tells every client that it is draining, and closes the transport', async () => {
	const service = await startService(machine);
	const { client } = await service.connectViewer();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await client.next('session.ready');
	const idle = await service.connect();
	await Promise.all([service.server.close(), service.server.close()]);
	for (const each of [client, idle]) {
		assert.equal((await each.next('error', (message) => message.code === 'draining')).retryable, true);
		assert.equal((await each.next('session.ended')).reason, 'draining');
		assert.equal((await each.closed).code, 1013);
	}
	assert.equal(service.memory.isClosed, true);
	assert.equal(machine.engine.state.kind, 'ready', 'the engine stays its owner\'s');
});
