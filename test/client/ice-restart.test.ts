import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { IceRestart } from '../../client/ice-restart.js';

const create = () => {
	const said: string[] = [];
	const at = { isUp: false, refuses: false, isHeard: true };
	const restart = new IceRestart({
		untilHeard: () => Promise.resolve(at.isHeard),
		restart: () => {
			said.push('restart');
			return at.refuses ? Promise.reject(new Error('no offer')) : Promise.resolve();
		},
		isUp: () => at.isUp,
		onFailed: () => said.push('failed'),
	});
	return { said, at, restart };
};

/** What was promised has been told. */
const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a connection that was up restarts once in trouble; one that never was fails', async () => {
	const { said, restart } = create();
	restart.troubled();
	assert.deepEqual(said, []);
	restart.failed();
	assert.deepEqual(said, ['failed']);
	restart.connected();
	restart.troubled();
	restart.troubled();
	await soon();
	assert.deepEqual(said, ['failed', 'restart']);
	restart.connected();
	restart.failed();
	await soon();
	assert.deepEqual(said, ['failed', 'restart', 'restart'], 'all ways gone at once is trouble too');
	restart.close();
});

test('a restart that comes to nothing is a failure: told by the connection, by the time that it takes, or by the offer', async () => {
	mock.timers.enable({ apis: ['setTimeout'] });
	try {
		const { said, at, restart } = create();
		restart.connected();
		restart.troubled();
		await soon();
		restart.failed();
		assert.deepEqual(said, ['restart', 'failed']);
		restart.troubled();
		await soon();
		mock.timers.tick(9999);
		assert.equal(said.length, 3);
		mock.timers.tick(1);
		assert.deepEqual(said.slice(2), ['restart', 'failed']);
		at.isUp = true;
		restart.troubled();
		await soon();
		mock.timers.tick(10_000);
		assert.deepEqual(said.slice(4), ['restart'], 'it was never down');
		at.refuses = true;
		restart.troubled();
		await soon();
		assert.deepEqual(said.slice(5), ['restart', 'failed']);
		restart.close();
		restart.troubled();
		assert.equal(said.length, 7);
	} finally {
		mock.timers.reset();
	}
});

test('where the server is not heard either, or the connection is back before it is, nothing is restarted', async () => {
	mock.timers.enable({ apis: ['setTimeout'] });
	try {
		const { said, at, restart } = create();
		restart.connected();
		at.isHeard = false;
		restart.troubled();
		await soon();
		assert.deepEqual(said, []);
		mock.timers.tick(10_000);
		assert.deepEqual(said, ['failed'], 'a new connection is the next thing to try');
		at.isHeard = true;
		restart.troubled();
		restart.connected();
		await soon();
		assert.deepEqual(said, ['failed']);
		restart.close();
	} finally {
		mock.timers.reset();
	}
});
