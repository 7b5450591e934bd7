/** Sessions whose client never asks for the video: it steers and listens, and everything comes in time all the same. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

test('without an offer, chunks go on past the lead and changes are applied on the media clock', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat', parameters: { steps: 1 } });
	await client.next('event.applied', (message) => message.event_id === 's');
	// The lead of a second holds two chunks of half a second: the fifth is only made when frames pass.
	await client.next('chunk.completed', (message) => message.chunk_index === 4);
	client.send({ type: 'session.update', event_id: 'u', prompt: 'a dog' });
	const accepted = await client.next('event.accepted', (message) => message.event_id === 'u');
	const applied = await client.next('event.applied', (message) => message.event_id === 'u');
	assert.equal(applied.chunk_index, accepted.will_apply_at_chunk);
	assert.equal(applied.media_ms > 0, true);
	client.send({ type: 'session.stop' });
	await client.next('session.ended');
});

test('an offer that comes late gets the video from where it is, beginning with a key frame', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat', parameters: { steps: 1 } });
	await client.next('chunk.completed', (message) => message.chunk_index === 2);
	client.send({ type: 'webrtc.offer', sdp: 'v=0' });
	await client.next('webrtc.answer');
	const viewer = service.memory.viewers.at(-1);
	await viewer?.received(10);
	assert.equal(viewer?.chunks[0]?.isKeyframe, true);
	assert.ok((viewer?.metas[0]?.frame_id ?? 0) > 0);
	client.send({ type: 'session.stop' });
	await client.next('session.ended');
});

test('an offer that is refused leaves the session playing unseen', async () => {
	await using service = await startService(machine);
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat', parameters: { steps: 1 } });
	await client.next('chunk.completed', (message) => message.chunk_index === 0);
	client.send({ type: 'webrtc.offer', event_id: 'o', sdp: 'nonsense' });
	const error = await client.next('error', (message) => message.event_id === 'o');
	assert.equal(error.code, 'invalid_sdp');
	await client.next('chunk.completed', (message) => message.chunk_index === 5);
	client.send({ type: 'session.stop' });
	await client.next('session.ended');
});

test('nobody watching for too long ends it as idle', async () => {
	await using service = await startService(machine, { idleTimeoutMs: 1000 });
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat', parameters: { steps: 1 } });
	assert.equal((await client.next('session.ended')).reason, 'idle');
});
