/** The short way is the library's, with less in between: what it may not send it does not, what is no plain UDP goes the library's way. */
import assert from 'node:assert/strict';
import dns from 'node:dns';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mock, test, type TestContext } from 'node:test';
import type { RTCIceTransport } from 'werift';
import { SENT, sendAtOnce, waitingInSocket } from '../../src/transport/udp-way.js';

const bound = async (context: TestContext): Promise<Socket> => {
	const socket = createSocket('udp4');
	socket.bind(0, '127.0.0.1');
	await once(socket, 'listening');
	context.after(() => new Promise<void>((resolve) => {
		socket.close(resolve);
	}));
	return socket;
};

type Pair = { protocol: { type: string; transport: { type: string; closed: boolean; socket: Socket } }; remoteAddr: [string, number]; packetsSent: number; bytesSent: number };

const pairOf = (from: Socket, to: Socket, host = '127.0.0.1', type = 'stun'): Pair =>
	({ protocol: { type, transport: { type: 'udp', closed: false, socket: from } }, remoteAddr: [host, to.address().port], packetsSent: 0, bytesSent: 0 });

/** A connection of the library as far as sending goes; `library` gets what goes its way. */
const connectionOf = (nominated: Pair | undefined): { ice: { nominated: Pair | undefined; consents: boolean; send: (data: Buffer) => Promise<void> }; connection: RTCIceTransport['connection']; library: Buffer[] } => {
	const library: Buffer[] = [];
	const ice = {
		nominated, consents: true,
		canSendApplicationData: () => ice.nominated !== undefined && ice.consents,
		send: (data: Buffer): Promise<void> => {
			library.push(data);
			return new Promise(() => undefined);
		},
	};
	const connection = ice as unknown as RTCIceTransport['connection'];
	sendAtOnce(connection);
	return { ice, connection, library };
};

const received = (socket: Socket, count: number): Promise<string[]> => new Promise((resolve) => {
	const texts: string[] = [];
	socket.on('message', (data) => {
		if (texts.push(data.toString()) === count) {
			resolve(texts);
		}
	});
});

test('plain UDP is sent at once, in order, counted, and no address is looked up', async (context) => {
	const lookup = mock.method(dns, 'lookup');
	context.after(() => lookup.mock.restore());
	const [from, to, other] = [await bound(context), await bound(context), await bound(context)];
	const before = lookup.mock.callCount();
	const first = pairOf(from, to);
	const { ice, connection, library } = connectionOf(first);
	const arriving = received(to, 3);
	assert.equal(ice.send(Buffer.from('one')), SENT);
	assert.equal(ice.send(Buffer.from('three')), SENT);
	assert.deepEqual([first.packetsSent, first.bytesSent], [2, 8]);
	assert.equal(waitingInSocket(connection), 0, 'the operating system has taken them');
	const second = pairOf(from, other);
	const elsewhere = received(other, 1);
	ice.nominated = second;
	void ice.send(Buffer.from('elsewhere'));
	ice.nominated = first;
	void ice.send(Buffer.from('last'));
	assert.deepEqual(await arriving, ['one', 'three', 'last']);
	assert.deepEqual(await elsewhere, ['elsewhere']);
	assert.equal(lookup.mock.callCount(), before, 'fails when Node keeps its handles elsewhere: then skipLookup does nothing any more');
	assert.deepEqual(library, []);
	from.send('named', to.address().port, 'localhost');
	assert.equal(lookup.mock.callCount(), before + 1, 'names are looked up as ever');
});

test('without a nominated pair, without consent and after the end nothing is sent', async (context) => {
	const [from, to] = [await bound(context), await bound(context)];
	const pair = pairOf(from, to);
	const { ice, connection, library } = connectionOf(undefined);
	assert.equal(ice.send(Buffer.from('early')), SENT);
	assert.equal(waitingInSocket(connection), 0);
	ice.nominated = pair;
	ice.consents = false;
	void ice.send(Buffer.from('unwanted'));
	ice.consents = true;
	pair.protocol.transport.closed = true;
	void ice.send(Buffer.from('late'));
	assert.equal(waitingInSocket(connection), 0);
	assert.deepEqual([pair.packetsSent, library], [0, []]);
	pair.protocol.transport.closed = false;
	const arriving = received(to, 1);
	void ice.send(Buffer.from('now'));
	assert.deepEqual(await arriving, ['now']);
});

test('a relay, and a peer that is known by a name, are left to the library', async (context) => {
	const [from, to] = [await bound(context), await bound(context)];
	for (const pair of [pairOf(from, to, '127.0.0.1', 'turn'), pairOf(from, to, 'localhost')]) {
		const { ice, connection, library } = connectionOf(pair);
		assert.notEqual(ice.send(Buffer.from('far')), SENT);
		assert.deepEqual(library.map(String), ['far']);
		assert.equal(pair.packetsSent, 0);
		assert.equal(waitingInSocket(connection), 0);
	}
});
