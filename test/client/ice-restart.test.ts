import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { IceRestart } from '../../client/ice-restart.js';

const create = () => {
	const said: string[] = [];
	const at = { isUp: false, refuses: false };
	const restart = new IceRestart({
		restart: () => {
			said.push('restart');
			return at.refuses ? Promise.reject(new Error('no offer')) : Promise.resolve();
		},
		isUp: () => at.isUp,
		onFailed: () => said.push('failed'),
	});
	return { said, at, restart };
};

test('a connection that was up restarts once in trouble; one that never was fails', () => {
	const { said, restart } = create();
	restart.troubled();
	assert.deepEqual(said, []);
	restart.failed();
	assert.deepEqual(said, ['failed']);
	restart.connected();
	restart.troubled();
	restart.troubled();
	assert.deepEqual(said, ['failed', 'restart']);
	restart.connected();
	restart.failed();
	assert.deepEqual(said, ['failed', 'restart', 'restart'], 'all ways gone at once is trouble too');
	restart.close();
});

test('a restart that comes to nothing is a failure: told by the connection, by the time that it takes, or by the offer', async () => {
	mock.timers.enable({ apis: ['setTimeout'] });
	try {
		const { said, at, restart } = create();
		restart.connected();
		restart.troubled();
		restart.failed();
		assert.deepEqual(said, ['restart', 'failed']);
		restart.troubled();
		mock.timers.tick(9999);
		assert.equal(said.length, 3);
		mock.timers.tick(1);
		assert.deepEqual(said.slice(2), ['restart', 'failed']);
		at.isUp = true;
		restart.troubled();
		mock.timers.tick(10_000);
		assert.deepEqual(said.slice(4), ['restart'], 'it was never down');
		at.refuses = true;
		restart.troubled();
		await Promise.resolve();
		await Promise.resolve();
		assert.deepEqual(said.slice(5), ['restart', 'failed']);
		restart.close();
		restart.troubled();
		assert.equal(said.length, 7);
	} finally {
		mock.timers.reset();
	}
});
