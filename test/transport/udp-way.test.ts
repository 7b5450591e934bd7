/** The short way is the library's, with less in between: what it may not send it does not, what is no plain UDP goes the library's way. */
import assert from 'node:assert/strict';
import dns from 'node:dns';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mock, test, type TestContext } from 'node:test';
import type { RTCIceTransport } from 'werift';
import { ERRNO, SegmentSender, systemSendMessage } from '../../src/transport/segment-sender.js';
import { SENT, sendAtOnce, sendTogether, waitingInSocket, type TogetherOptions } from '../../src/transport/udp-way.js';

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
const connectionOf = (nominated: Pair | undefined, together?: TogetherOptions): { ice: { nominated: Pair | undefined; consents: boolean; send: (data: Buffer) => Promise<void> }; connection: RTCIceTransport['connection']; library: Buffer[] } => {
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
	sendAtOnce(connection, together);
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

const onLinux = { skip: process.platform !== 'linux' && 'only Linux cuts packets' };

/** `errno` is what the next call of the system ends with in place of sending; 0: it sends. */
const togetherOptions = (): TogetherOptions & { errno: number; calls: number; readonly refused: number[] } => {
	const send = systemSendMessage();
	const sender = new SegmentSender((fd, message) => {
		options.calls += 1;
		return options.errno === 0 ? send(fd, message) : -options.errno;
	});
	const refused: number[] = [];
	const options = { errno: 0, calls: 0, refused, sender: () => sender, onRefused: (errno: number) => void refused.push(errno) };
	return options;
};

const PICTURE = ['first!', 'other', 'other', 'end'].map((text) => Buffer.from(text));

test('packets that are sent together arrive in order among the others, and are counted', onLinux, async (context) => {
	const [from, to] = [await bound(context), await bound(context)];
	const pair = pairOf(from, to);
	const options = togetherOptions();
	const { ice, connection } = connectionOf(pair, options);
	const arriving = received(to, 6);
	void ice.send(Buffer.from('before'));
	assert.equal(sendTogether(connection, PICTURE), 4);
	void ice.send(Buffer.from('after'));
	assert.deepEqual(await arriving, ['before', 'first!', 'other', 'other', 'end', 'after']);
	assert.equal(options.calls, 2);
	assert.deepEqual([pair.packetsSent, pair.bytesSent], [6, 6 + 19 + 5]);
});

test('what is full for a while is asked again, what refuses for good is not', onLinux, async (context) => {
	const to = await bound(context);
	for (const [errno, isLasting] of [[ERRNO.EAGAIN, false], [ERRNO.ENOBUFS, false], [ERRNO.EMSGSIZE, false], [ERRNO.EINVAL, true], [ERRNO.EIO, true]] as const) {
		const from = await bound(context);
		const pair = pairOf(from, to);
		const options = togetherOptions();
		const { connection } = connectionOf(pair, options);
		options.errno = errno;
		assert.equal(sendTogether(connection, PICTURE), 0);
		assert.deepEqual([pair.packetsSent, options.refused], [0, isLasting ? [errno] : []]);
		options.errno = 0;
		assert.equal(sendTogether(connection, PICTURE), isLasting ? 0 : 4);
		assert.equal(options.calls, isLasting ? 1 : 3);
		assert.equal(sendTogether(connectionOf(pairOf(from, to), options).connection, PICTURE), isLasting ? 0 : 4, 'other connections of the socket know it too');
	}
});

test('nothing is sent together when nothing may be sent, when others wait, or when it is to go another way', onLinux, async (context) => {
	const [from, to, closed] = [await bound(context), await bound(context), createSocket('udp4')];
	const options = togetherOptions();
	const pair = pairOf(from, to);
	const { ice, connection } = connectionOf(pair, options);
	const none = (why: string): void => assert.equal(sendTogether(connection, PICTURE), 0, why);
	ice.consents = false;
	none('no consent');
	ice.consents = true;
	pair.protocol.transport.closed = true;
	none('the library has closed it');
	pair.protocol.transport.closed = false;
	const waiting = mock.method(from, 'getSendQueueCount', () => 1);
	none('others wait in the socket');
	waiting.mock.restore();
	assert.equal(sendTogether(connection, PICTURE.slice(0, 1)), 0, 'one alone');
	ice.nominated = pairOf(from, to, 'localhost');
	none('a peer that is known by a name');
	ice.nominated = pairOf(from, to, '127.0.0.1', 'turn');
	none('a relay');
	ice.nominated = undefined;
	none('no pair');
	closed.bind(0, '127.0.0.1');
	await once(closed, 'listening');
	ice.nominated = { ...pairOf(to, to), protocol: { type: 'stun', transport: { type: 'udp', closed: false, socket: closed } } };
	assert.equal(sendTogether(connection, PICTURE), 4, 'while it is open');
	const calls = options.calls;
	closed.close();
	none('Node has closed it, and its descriptor may be that of something else');
	assert.equal(options.calls, calls);
	ice.nominated = pair;
	const { send } = ice;
	ice.send = (data) => send(data);
	none('a simulated link is in between');
	ice.send = send;
	assert.equal(sendTogether(connection, PICTURE), 4);
	assert.equal(sendTogether(connectionOf(pair).connection, PICTURE), 0, 'it is switched off');
	assert.equal(options.calls, calls + 2);
});
