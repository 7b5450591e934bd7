/** Prompts and addresses are personal data: nothing that the service prints may hold one, at any level, unless one key says so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ControlClient } from '../server/control-client.js';
import { serve, type Served } from './served.js';

/** Words that stand nowhere else, one for each way into the service. */
const WORDS = ['zebrastart', 'zebraupdate', 'zebratype', 'zebrajson', 'zebramodel', 'zebraevent', 'zebracontrol', 'zebrareason', 'zebraempty', 'zebrapath'] as const;
const ADDRESS = '192.0.2.77';

/** Takes every way by which words of a person come in, with an engine that dies in between. */
const useEverything = async (service: Served): Promise<void> => {
	const client = await ControlClient.open(service.socketUrl);
	await client.refusalOf({ type: 'zebratype' });
	client.socket.send('{"prompt": "zebrajson');
	await client.next('error');
	await client.refusalOf({ type: 'session.start', prompt: 'a cat', model: 'zebramodel' });
	await client.refusalOf({ type: 'session.start', prompt: ['zebraempty'] });
	client.send({ type: 'session.start', event_id: 'zebraevent', prompt: 'a zebrastart flies' });
	await client.next('event.applied');
	client.send({ type: 'session.update', prompt: 'a zebraupdate flies' });
	await client.next('event.applied');
	await client.refusalOf({ type: 'input.action', axes: { zebracontrol: 1 } });
	await client.refusalOf({ type: 'webrtc.offer', sdp: `v=0\r\no=- 1 1 IN IP4 ${ADDRESS}\r\n` });
	await fetch(new URL('/zebrapath', service.url));
	process.kill(Number((await service.logged('Engine ready.'))['pid']), 'SIGKILL');
	await client.next('session.reconnecting');
	await client.next('chunk.completed');
	client.send({ type: 'session.stop', reason: 'zebrareason' });
	await client.closed;
	await service.logged('The session has ended.');
};

for (const level of ['debug', 'info'] as const) {
	test(`at level ${level} nothing that a person wrote is printed`, async () => {
		await using service = await serve({ TURBOCAST_LOG__LEVEL: level });
		await useEverything(service);
		service.kill('SIGINT');
		await service.exited;
		const printed = service.output();
		assert.match(printed, /The session has started/u);
		assert.deepEqual([...WORDS, ADDRESS].filter((word) => printed.includes(word)), []);
	});
}

test('log.personal_data puts prompts into the field `prompt`, and nowhere else', async () => {
	await using service = await serve({ TURBOCAST_LOG__LEVEL: 'debug', TURBOCAST_LOG__PERSONAL_DATA: 'true' });
	await useEverything(service);
	assert.deepEqual(service.log().filter((line) => JSON.stringify(line).includes('zebrastart')).map((line) => [line['msg'], line['prompt']]), [['The session has started.', 'a zebrastart flies']]);
});
