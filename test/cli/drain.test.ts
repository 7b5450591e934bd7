/** How the service goes: told to, it lets people finish; told twice, it does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ControlClient } from '../server/control-client.js';
import { serve } from './served.js';

const START = { type: 'session.start', event_id: 's', prompt: 'a cat' };

const isAlive = (pid: number): boolean => {
	try {
		process.kill(pid, 0);
		return true;
	} catch {
		return false;
	}
};

/** Resolves when the process is gone; the test's own time limit is the patience. */
const isGone = async (pid: number): Promise<void> => {
	while (isAlive(pid)) {
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
};

test('SIGTERM: unready at once, nobody new, the rest are told and finish; then it ends with 0', async () => {
	await using service = await serve({ TURBOCAST_SERVER__DRAIN_MS: '100000' });
	const running = await ControlClient.open(service.socketUrl);
	running.send(START);
	await running.next('event.applied');
	const idle = await ControlClient.open(service.socketUrl);

	service.kill('SIGTERM');
	assert.deepEqual(await running.next('session.expiring'), { type: 'session.expiring', reason: 'draining', seconds_left: 100 });
	const ready = await fetch(`${service.url}readyz`);
	assert.equal(ready.status, 503);
	assert.equal(((await ready.json()) as { error: { code: string } }).error.code, 'draining');
	assert.ok(Number(ready.headers.get('retry-after')) >= 1);
	assert.equal((await fetch(`${service.url}healthz`)).status, 200);

	const told = await idle.next('error');
	assert.equal(told.code, 'draining');
	assert.equal((await idle.closed).code, 1013, 'a connection without a session is sent elsewhere');
	const late = await ControlClient.open(service.socketUrl);
	const refused = await late.refusalOf(START);
	assert.deepEqual([refused.code, refused.event_id, refused.retryable], ['draining', 's', true]);
	assert.ok((refused.retry_after_ms ?? 0) >= 1000);
	assert.equal((await late.closed).code, 1013);

	const { chunk_index: before } = await running.next('chunk.completed');
	await running.next('chunk.completed', (message) => message.chunk_index > before);
	running.send({ type: 'session.update', event_id: 'u', prompt: 'a dog' });
	await running.next('event.applied', (message) => message.event_id === 'u');
	running.send({ type: 'session.stop' });
	assert.equal((await running.closed).code, 1000);
	assert.equal(await service.exited, 0);
});

test('SIGTERM: who has not finished in time is ended with draining', async () => {
	await using service = await serve({ TURBOCAST_SERVER__DRAIN_MS: '1000' });
	const running = await ControlClient.open(service.socketUrl);
	running.send(START);
	await running.next('event.applied');
	service.kill('SIGTERM');
	assert.equal((await running.next('session.expiring')).seconds_left, 1);
	assert.equal((await running.next('error')).code, 'draining');
	assert.equal((await running.next('session.ended')).reason, 'draining');
	assert.equal((await running.closed).code, 1013);
	assert.equal(await service.exited, 0);
});

test('a second SIGTERM ends it at once, and its processes with it', async () => {
	await using service = await serve({ TURBOCAST_SERVER__DRAIN_MS: '100000' });
	const pids = [await service.logged('Engine ready.'), await service.logged('encoder process ready')].map((line) => Number(line['pid']));
	assert.ok(pids.every(isAlive));
	const running = await ControlClient.open(service.socketUrl);
	running.send(START);
	await running.next('event.applied');
	service.kill('SIGTERM');
	await running.next('session.expiring');
	service.kill('SIGTERM');
	assert.equal(await service.exited, 143);
	await Promise.all(pids.map(isGone));
});

test('Ctrl-C waits for nobody', async () => {
	await using service = await serve({ TURBOCAST_SERVER__DRAIN_MS: '100000' });
	const running = await ControlClient.open(service.socketUrl);
	running.send(START);
	await running.next('event.applied');
	service.kill('SIGINT');
	assert.equal((await running.closed).code, 1013);
	assert.equal(await service.exited, 0);
});
