/** Live sessions on models joined from published networks: a stream whose first chunk is shorter, and clip after clip. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { EngineHost } from '../../src/engine/engine-host.js';
import { startEncoders } from '../../src/media/encoder-host.js';
import { type JoinedModelOptions, writeJoinedModel } from '../model/joined-model.js';
import type { ServerMessages } from '../../src/protocol/messages.js';
import { resolveStart } from '../../src/server/start-request.js';
import type { ControlClient } from './control-client.js';
import { startService } from './service.js';

const TICKS_PER_FRAME = 90_000 / 16;

const startMachine = async (options: JoinedModelOptions) => {
	const model = await writeJoinedModel(options);
	const engine = await EngineHost.start({ modelFolder: model.path, profile: 'cpu-fp32', threads: 1, log: silentLog, clock: systemClock });
	const encoders = await startEncoders({ implementation: 'auto', log: silentLog, clock: systemClock });
	await engine.ready();
	return {
		engine, encoders,
		[Symbol.asyncDispose]: async () => {
			await engine.close();
			await encoders.close();
			model[Symbol.dispose]();
		},
	};
};

/** The first chunks, as they were reported; they are shown after that. */
const chunksOf = ({ messages }: ControlClient, count: number): ServerMessages['chunk.completed'][] =>
	messages.flatMap((message) => (message.type === 'chunk.completed' ? [message] : [])).slice(0, count);

test('a stream of a published decoder: 9 frames, then 12 a chunk, counted without a gap in ids and media time', async () => {
	await using machine = await startMachine({ kind: 'self-forcing', decoder: 'taehv' });
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat jumps over the snow', seed: 5, parameters: { steps: 1 }, size: '48x32' });
	await client.next('chunk.completed', (message) => message.chunk_index === 0);
	client.send({ type: 'session.update', event_id: 'u', prompt: 'a dog' });
	const accepted = await client.next('event.accepted', (message) => message.event_id === 'u');
	const chunk = accepted.will_apply_at_chunk;
	assert.equal(accepted.will_apply_at_media_ms, chunk === 0 ? 0 : (9 + 12 * (chunk - 1)) * 62.5);
	const applied = await client.next('event.applied', (message) => message.event_id === 'u');
	assert.equal(applied.frame_id, 9 + 12 * (chunk - 1));
	await viewer.received(46);
	const reports = chunksOf(client, 4).slice(1);
	assert.deepEqual(reports.map(({ frames, first_frame_id, media_ms }) => [frames, first_frame_id, media_ms]), [[12, 9, 562.5], [12, 21, 1312.5], [12, 33, 2062.5]]);
	const metas = viewer.metas.slice(0, 40);
	assert.deepEqual(metas.map(({ frame_id }) => frame_id), metas.map((_, index) => index));
	assert.deepEqual(metas.map(({ chunk_index }) => chunk_index), metas.map((_, index) => (index < 9 ? 0 : 1 + Math.floor((index - 9) / 12))));
	// The clock may have been stretched by waiting, and what lay before the new prompt shown at twice the speed; RTP time and media time are one.
	for (const [index, meta] of metas.entries()) {
		const ticks = (meta.rtp_timestamp - (metas[0]?.rtp_timestamp ?? 0) + 2 ** 32) % 2 ** 32;
		assert.ok(Math.abs(ticks - meta.media_ms * 90) <= 1, `frame ${index}: ${ticks} ticks at ${meta.media_ms} ms`);
		assert.ok(ticks >= ((index - 0.5) * TICKS_PER_FRAME) / 2, `frame ${index} comes ${ticks} ticks after the first`);
	}
	// What begins anew has a chunk of 9 again, and what is said of chunks to come is true after it.
	client.send({ type: 'session.reset', event_id: 'r', seed: 6 });
	const { will_apply_at_chunk: reset } = await client.next('event.accepted', (message) => message.event_id === 'r');
	while (!client.messages.some((message) => message.type === 'chunk.completed' && message.chunk_index === reset)) {
		await once(client.socket, 'message');
	}
	client.send({ type: 'session.update', event_id: 'late', seed: 7 });
	const late = await client.next('event.accepted', (message) => message.event_id === 'late');
	const carried = await client.next('event.applied', (message) => message.event_id === 'late');
	assert.equal(late.will_apply_at_media_ms, carried.frame_id * 62.5);
	assert.equal(carried.frame_id, 9 + 12 * (carried.chunk_index - 1) - 3);
});

test('a model that wants a picture is not started without one', async () => {
	using model = await writeJoinedModel({ kind: 'image-to-video' });
	assert.throws(() => resolveStart({ type: 'session.start', prompt: 'a cat' }, model.spec, { steps: 0, maxLeadMs: 1000, randomSeed: () => 1 }), { code: 'not_supported', message: /generate --image/u });
});

test('a model of whole clips makes clip after clip, at its own speed; a change comes with the next clip', async () => {
	await using machine = await startMachine({ kind: 'turbodiffusion', decoder: 'taehv', changes: { clip: { latents: 3 } } });
	await using service = await startService(machine);
	const { client, viewer } = await service.connectViewer();
	client.send({ type: 'session.start', event_id: 's', prompt: 'a cat jumps over the snow', seed: 5, parameters: { steps: 1 } });
	client.send({ type: 'session.update', event_id: 'u', prompt: 'a dog' });
	const applied = await client.next('event.applied', (message) => message.event_id === 'u');
	assert.equal(applied.frame_id % 9, 0, 'a change does not come in the midst of a clip');
	await viewer.received(28);
	assert.deepEqual(chunksOf(client, 3).map(({ frames, first_frame_id: first }) => [frames, first]), [[9, 0], [9, 9], [9, 18]]);
	const metas = viewer.metas.slice(0, 27);
	for (let frame = 1; frame < 27; frame++) {
		const ticks = ((metas[frame]?.rtp_timestamp ?? 0) - (metas[frame - 1]?.rtp_timestamp ?? 0) + 2 ** 32) % 2 ** 32;
		if (frame % 9 !== 0) {
			assert.ok(Math.abs(ticks - TICKS_PER_FRAME) <= 1, `frame ${frame} stands ${ticks} ticks`);
		}
	}
	client.send({ type: 'session.stop' });
	assert.equal((await client.next('session.ended')).reason, 'stopped');
});
