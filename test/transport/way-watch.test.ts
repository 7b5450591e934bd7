/** When a way counts as gone, in time that is only counted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RTCIceTransport } from 'werift';
import { watchWay } from '../../src/transport/way-watch.js';
import { SteppedClock } from '../server/stepped-clock.js';

const openWay = (localIp: string) => {
	const clock = new SteppedClock();
	const life = new AbortController();
	const pair = { id: 'first', protocol: { localIp }, requestsReceived: 0, responsesReceived: 0, packetsReceived: 0 };
	const way: { nominated: typeof pair | undefined } = { nominated: pair };
	const own = { addresses: ['127.0.0.1', '192.0.2.7'] };
	const told: string[] = [];
	watchWay({ connection: way } as unknown as RTCIceTransport, {
		clock, silenceMs: 3000, ownAddresses: () => own.addresses, signal: life.signal, onLost: (reason) => told.push(reason), onFound: () => told.push('found'),
	});
	return { clock, life, pair, way, own, told };
};

test('a way over which nothing comes is gone, and found again with the first word', async () => {
	const { clock, life, pair, told } = openWay('192.0.2.7');
	for (let second = 1; second <= 10; second += 1) {
		pair.packetsReceived += 1;
		await clock.advanceTo(second * 1000);
	}
	assert.deepEqual(told, []);
	await clock.advanceTo(12_500);
	assert.deepEqual(told, []);
	await clock.advanceTo(14_000);
	assert.deepEqual(told, ['nothing came for 3 s']);
	await clock.advanceTo(60_000);
	assert.equal(told.length, 1, 'told once');
	pair.responsesReceived += 1;
	await clock.advanceTo(61_000);
	assert.deepEqual(told.slice(1), ['found']);
	life.abort();
	await clock.advanceTo(120_000);
	assert.equal(told.length, 2, 'looked at no more');
});

test('no way at all, as during a restart, is not a way that is gone', async () => {
	const { clock, life, way, told } = openWay('192.0.2.7');
	way.nominated = undefined;
	await clock.advanceTo(60_000);
	assert.deepEqual(told, []);
	life.abort();
});

test('a way is gone with the address that it begins at, at once', async () => {
	const { clock, life, pair, own, told } = openWay('192.0.2.7');
	const hear = async (second: number): Promise<void> => {
		pair.packetsReceived += 1;
		await clock.advanceTo(second * 1000);
	};
	await hear(1);
	own.addresses = ['127.0.0.1', '198.51.100.9'];
	await hear(2);
	assert.deepEqual(told, ['this machine no longer has the address 192.0.2.7']);
	await hear(3);
	assert.equal(told.length, 1);
	own.addresses = ['127.0.0.1', '192.0.2.7'];
	await hear(4);
	assert.deepEqual(told.slice(1), ['found']);
	life.abort();
});

test('an announced address, of a NAT perhaps, need not be one of this machine', async () => {
	const { clock, life, pair, own, told } = openWay('203.0.113.1');
	for (let second = 1; second <= 5; second += 1) {
		pair.packetsReceived += 1;
		own.addresses = second > 2 ? [] : own.addresses;
		await clock.advanceTo(second * 1000);
	}
	assert.deepEqual(told, []);
	life.abort();
});
