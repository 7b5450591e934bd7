import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { TurbocastError } from '../../src/protocol/errors.js';
import { createAddressOf } from '../../src/server/client-address.js';

const from = (remoteAddress: string, forwarded?: string): IncomingMessage =>
	({ socket: { remoteAddress }, headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded } }) as unknown as IncomingMessage;

test('without trusted proxies nobody is believed', () => {
	const addressOf = createAddressOf([]);
	assert.equal(addressOf(from('198.51.100.7', '203.0.113.1')), '198.51.100.7');
	assert.equal(addressOf(from('::ffff:198.51.100.7')), '198.51.100.7', 'one form for each address');
});

test('a trusted proxy is believed, the one before it only when it is trusted too', () => {
	const addressOf = createAddressOf(['10.0.0.0/8', '::1', '2001:db8::/32']);
	assert.equal(addressOf(from('10.1.2.3', '203.0.113.1')), '203.0.113.1');
	assert.equal(addressOf(from('::1', '2001:db9::5')), '2001:db9::5');
	assert.equal(addressOf(from('::ffff:10.1.2.3', '192.0.2.9, 203.0.113.1, 10.9.9.9')), '203.0.113.1', 'what a client wrote itself stands further left');
	assert.equal(addressOf(from('198.51.100.7', '203.0.113.1')), '198.51.100.7');
	assert.equal(addressOf(from('10.1.2.3')), '10.1.2.3');
	assert.equal(addressOf(from('10.1.2.3', 'unknown, _hidden')), '10.1.2.3');
	assert.equal(addressOf(from('10.1.2.3', '10.0.0.1, 10.0.0.2')), '10.0.0.1');
});

test('what is no address and no network is refused', () => {
	for (const proxy of ['proxy.example', '10.0.0.0/33', '10.0.0.0/x', '::1/129', '']) {
		assert.throws(() => createAddressOf([proxy]), (error) => error instanceof TurbocastError && error.code === 'invalid_config' && error.param === 'server.trusted_proxies', proxy);
	}
});
