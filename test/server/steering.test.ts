/** Steering a session through the whole server: a real engine, a real encoder, the viewer in memory. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const started = async (service: Awaited<ReturnType<typeof startService>>) => {
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat jumps', seed: 5, parameters: { steps: 1 } });
	await client.next('event.applied');
	return { client, viewer };
};

test('a change is heard at the chunk, or at the media time, that it was put off to', async () => {
	await using service = await startService(machine);
	const { client } = await started(service);
	const { chunk_index: now } = await client.next('chunk.completed');
	// 8 frames at 16 a second: a chunk is 500 ms. Seconds away, so that it is still to come on a busy machine.
	const later = now + 9;
	client.send({ type: 'session.update', event_id: 'time', prompt: 'the dog flies', at: { media_ms: later * 500 - 100 } });
	const atTime = await client.next('event.accepted');
	assert.deepEqual([atTime.event_id, atTime.will_apply_at_chunk, atTime.will_apply_at_media_ms], ['time', later, later * 500]);
	client.send({ type: 'input.action', event_id: 'chunk', axes: { steer_x: 1 }, at: { chunk: later + 1 } });
	assert.equal((await client.next('event.accepted')).will_apply_at_chunk, later + 1);
	client.send({ type: 'session.update', event_id: 'at once', parameters: { steps: 2 } });
	const applied = [await client.next('event.applied'), await client.next('event.applied'), await client.next('event.applied')];
	assert.deepEqual(applied.map(({ event_id: id }) => id), ['at once', 'time', 'chunk']);
	assert.deepEqual(applied.slice(1).map(({ chunk_index: chunk, frame_id: frame }) => [chunk, frame]), [[later, later * 8], [later + 1, (later + 1) * 8]]);
});

test('steering that cannot be is refused by name, and the session goes on', async () => {
	await using service = await startService(machine);
	const { client } = await started(service);
	for (const [message, param] of [
		[{ type: 'session.update' }, undefined],
		[{ type: 'session.update', prompt: 'a', prompts: [{ text: 'b', weight: 1 }] }, 'prompts'],
		[{ type: 'session.update', transition: { mode: 'cut' } }, 'transition'],
		[{ type: 'session.update', prompt: 'a', transition: { mode: 'cut', chunks: 2 } }, 'transition.chunks'],
		[{ type: 'session.update', prompt: 'a', at: {} }, 'at'],
		[{ type: 'session.update', prompt: 'a', at: { chunk: 1, media_ms: 1 } }, 'at'],
		[{ type: 'session.update', pacing: { max_lead_ms: 1001 } }, 'pacing.max_lead_ms'],
	] as const) {
		const refusal = await client.refusalOf({ ...message, event_id: 'x' });
		assert.deepEqual([refusal.code, refusal.event_id, refusal.param], ['invalid_request', 'x', param], JSON.stringify(message));
	}
	const { chunk_index: now } = await client.next('chunk.completed');
	await client.next('chunk.completed', (chunk) => chunk.chunk_index > now + 1);
});

test('a cut and a reset begin anew, with the prompt of now; a reset has another seed', async () => {
	await using service = await startService(machine);
	const { client } = await started(service);
	client.send({ type: 'session.update', event_id: 'c', prompts: [{ text: 'the dog flies', weight: 1 }, { text: 'a rocket unicorn', weight: 3 }], transition: { mode: 'cut' } });
	assert.deepEqual((await client.next('event.accepted')).unknown_words, ['unicorn']);
	const cut = await client.next('generation.started');
	assert.deepEqual([cut.history, cut.seed], ['new', 5]);
	assert.equal((await client.next('event.applied')).chunk_index, cut.chunk_index);
	client.send({ type: 'session.reset', event_id: 'r', seed: 77 });
	const reset = await client.next('generation.started');
	assert.deepEqual([reset.history, reset.seed], ['new', 77]);
	assert.equal((await client.next('chunk.completed', (chunk) => chunk.chunk_index === reset.chunk_index)).seed, 77);
	client.send({ type: 'session.reset' });
	assert.notEqual((await client.next('generation.started')).seed, 77);
});

test('a new prompt sees the past again, and the chunk says what that cost', async () => {
	await using service = await startService(machine);
	const { client } = await started(service);
	await client.next('chunk.completed', (chunk) => chunk.chunk_index === 1);
	client.send({ type: 'session.update', event_id: 'p', prompt: 'the dog flies' });
	const { will_apply_at_chunk: at } = await client.next('event.accepted');
	const completed = await client.next('chunk.completed', (chunk) => chunk.chunk_index === at);
	const later = await client.next('chunk.completed');
	assert.ok(completed.timings.recache_ms > later.timings.recache_ms, `${completed.timings.recache_ms} and ${later.timings.recache_ms}`);
	assert.equal(client.messages.filter((message) => message.type === 'generation.started').length, 1, 'the past was not left');
});

test('a pause holds the picture, and changes made meanwhile are heard when it goes on', async () => {
	await using service = await startService(machine, { maxLeadMs: 600 });
	const { client, viewer } = await started(service);
	client.send({ type: 'session.pause', event_id: 'p' });
	const paused = await client.next('session.paused');
	assert.equal(paused.event_id, 'p');
	const shown = viewer.chunks.length;
	assert.ok(Math.abs(paused.frame_id - (shown - 1)) <= 1, `${paused.frame_id} of ${shown}`);
	client.send({ type: 'session.update', event_id: 'u', prompt: 'the dog flies' });
	const { will_apply_at_chunk: at } = await client.next('event.accepted');
	await new Promise((resolve) => setTimeout(resolve, 1200));
	assert.ok(viewer.chunks.length <= shown + 1, 'frames were sent while paused');
	assert.ok(!client.messages.some((message) => message.type === 'chunk.completed' && message.chunk_index > at), 'chunks were begun while paused');
	client.send({ type: 'session.resume', event_id: 'r' });
	assert.equal((await client.next('session.resumed')).event_id, 'r');
	assert.equal((await client.next('event.applied')).event_id, 'u');
	assert.deepEqual(viewer.metas.map((meta) => meta.frame_id), Array.from({ length: viewer.metas.length }, (_, index) => index), 'no frame is left out');
	await client.next('chunk.completed', (message) => message.chunk_index > at);
});

test('the lead of a session is its own, told and kept, and bounded by the server\'s', async () => {
	await using service = await startService(machine, { maxLeadMs: 2000 });
	const client = await service.connect();
	assert.equal((await client.refusalOf({ type: 'session.start', prompt: 'a cat', pacing: { max_lead_ms: 2001 } })).param, 'pacing.max_lead_ms');
	service.memory.connects = false;
	client.send({ type: 'webrtc.offer', sdp: 'v=0' });
	client.send({ type: 'session.start', prompt: 'a cat', parameters: { steps: 1 }, pacing: { max_lead_ms: 500 } });
	assert.equal((await client.next('session.ready')).max_lead_ms, 500);
	await client.next('chunk.completed');
	// Nobody sees it, so generation stops at the lead: a chunk of 500 ms, then, with more lead, three of them.
	client.send({ type: 'session.update', event_id: 'l', pacing: { max_lead_ms: 1500 } });
	// Another may come first, of a machine that falls behind.
	const updated = await client.next('pacing.updated', (message) => message.event_id === 'l');
	assert.deepEqual([updated.reason, updated.max_lead_ms], ['requested', 1500]);
	await client.next('chunk.completed', (chunk) => chunk.chunk_index === 2);
	assert.equal(await client.isAlive(), true);
	assert.equal(client.messages.filter((message) => message.type === 'chunk.completed').length, 3);
});
