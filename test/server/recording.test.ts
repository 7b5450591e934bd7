/** The file of a live session over HTTP, from a real encoder, read back by its library. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ALL_FORMATS, BufferSource, EncodedPacketSink, Input } from 'mediabunny';
import { newServerKey } from '../../src/server/keys.js';
import type { ServerMessages } from '../../src/protocol/messages.js';
import type { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine?.[Symbol.asyncDispose]());

/** It came before the answer to the offer. */
const createdOf = ({ messages }: ControlClient): ServerMessages['session.created'] => {
	const [first] = messages;
	assert.ok(first?.type === 'session.created');
	return first;
};

const RECORDING = { mostMs: 60_000, mostBytes: 4e6 };

test('the last seconds come as MP4 with every frame that was sent, for those who may have it', async () => {
	await using service = await startService(machine, { recording: RECORDING });
	const { client, viewer } = await service.connectViewer();
	const { session_id: id, resume_token: token } = createdOf(client);
	const address = `${service.url}v1/realtime/sessions/${id}/recording.mp4`;
	const statusOf = async (url: string, credential?: string): Promise<number> => (await fetch(url, credential === undefined ? {} : { headers: { authorization: `Bearer ${credential}` } })).status;
	assert.equal(await statusOf(address), 409, 'before the start');
	client.send({ type: 'session.start', prompt: 'a cat jumps', size: '32x32', parameters: { steps: 1 } });
	await viewer.received(24);
	const response = await fetch(address, { headers: { authorization: `Bearer ${token ?? ''}` } });
	const file = await response.arrayBuffer();
	assert.deepEqual([response.status, response.headers.get('content-type'), response.headers.get('recording-from-ms')], [200, 'video/mp4', '0']);
	const track = await new Input({ source: new BufferSource(file), formats: ALL_FORMATS }).getPrimaryVideoTrack();
	assert.ok(track !== null);
	assert.deepEqual([track.codec, track.codedWidth, track.codedHeight], ['avc', 32, 32]);
	const packets = [];
	for await (const packet of new EncodedPacketSink(track).packets()) {
		packets.push(packet);
	}
	assert.ok(packets.length >= 24 && packets[0]?.type === 'key' && packets[0].timestamp === 0, `${packets.length} packets`);
	client.send({ type: 'session.share', role: 'viewer' });
	const { token: link } = await client.next('session.shared');
	assert.deepEqual(await Promise.all([statusOf(address, link), statusOf(`${address}?from_ms=x`), statusOf(`${address}?from_ms=5&to_ms=4`), statusOf(`${address}?from_ms=1&last_ms=1`), statusOf(`${address}?from_ms=9000000`)]), [403, 400, 400, 400, 409]);
	assert.equal(await statusOf(address.replace(id, '01890000-0000-7000-8000-000000000000')), 404);
	assert.equal((await fetch(address, { method: 'POST' })).status, 405);
});

test('a server with keys asks for one; one that records nothing says so', async () => {
	await using service = await startService(machine, {}, undefined, { keys: [newServerKey()] });
	assert.equal((await fetch(`${service.url}v1/realtime/sessions/none/recording.mp4`)).status, 401);
	await using open = await startService(machine);
	const { client, viewer } = await open.connectViewer();
	const { session_id: id } = createdOf(client);
	client.send({ type: 'session.start', prompt: 'a cat jumps', size: '32x32' });
	await viewer.received(1);
	assert.equal((await fetch(`${open.url}v1/realtime/sessions/${id}/recording.mp4`)).status, 501);
});
