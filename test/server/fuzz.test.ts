/** What `npm run bench -- fuzz` does a hundred thousand times, often enough to notice a new mistake, with the UDP transport of the real service. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { parseServerMessage } from '../../src/protocol/messages.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { Receiver } from '../transport/receiver.js';
import { fuzz } from './fuzz-client.js';
import { FUZZ_KINDS, FuzzMessages } from './fuzz-messages.js';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

const offerOf = async (codec: 'h264' | 'vp8'): Promise<string> => {
	await using receiver = new Receiver(codec);
	return (await receiver.connection.createOffer()).sdp;
};

test('the same seed gives the same frames, of every kind', () => {
	const [one, two, other] = [new FuzzMessages(5, ['v=0']), new FuzzMessages(5, ['v=0']), new FuzzMessages(6, ['v=0'])].map((messages) => Array.from({ length: 200 }, () => messages.next()));
	assert.deepEqual(one, two);
	assert.notDeepEqual(one, other);
	assert.deepEqual([...new Set(one?.map(({ kind }) => kind))].sort(), [...FUZZ_KINDS].sort());
});

test('two thousand bad messages: every answer is in the protocol, no code is internal, and a session works afterwards', async () => {
	const transport = createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock });
	await using service = await startService(machine, { messagesPerSecond: 10_000, badMessagesPerMinute: 10_000, maxWaiting: 4 }, transport);
	const messages = new FuzzMessages(11, [await offerOf('h264'), await offerOf('vp8')]);
	const outcome = await fuzz(service.socketUrl, messages, { count: 2000, connections: 4, random: () => 0.5 });
	assert.deepEqual(outcome.violations, []);
	assert.equal(outcome.sent, 2000);
	for (const code of ['invalid_message', 'invalid_request', 'invalid_sdp', 'invalid_state']) {
		assert.ok((outcome.answers.get(code) ?? 0) > 0, `${code} was never met: ${JSON.stringify([...outcome.answers])}`);
	}
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await client.next('chunk.completed');
	assert.ok(client.messages.every((message) => parseServerMessage(message) !== undefined));
});
