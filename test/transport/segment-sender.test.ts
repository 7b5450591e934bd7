/** However many packets a call takes, those that arrive are those that were to be sent, in order; and where the system refuses, nothing of the rest is sent. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { test, type TestContext } from 'node:test';
import { silentLog, type Log } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { ERRNO, SegmentSender, systemSendMessage, type SendMessage } from '../../src/transport/segment-sender.js';
import { trySegmentation } from '../../src/transport/segmentation.js';
import { socketAddress } from '../../src/transport/socket-address.js';
import { handleOf } from '../../src/transport/socket-handle.js';
import type { Transport } from '../../src/transport/transport.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';

const onLinux = { skip: process.platform !== 'linux' && 'only Linux cuts packets' };

const bound = async (context: TestContext, type: 'udp4' | 'udp6' = 'udp4'): Promise<Socket> => {
	const socket = createSocket({ type, recvBufferSize: 1 << 20 });
	socket.bind(0, type === 'udp4' ? '127.0.0.1' : '::1');
	await once(socket, 'listening');
	context.after(() => new Promise<void>((resolve) => {
		socket.close(() => resolve());
	}));
	return socket;
};

const fdOf = (socket: Socket): number => handleOf(socket)?.fd ?? -1;

const addressTo = (socket: Socket): Buffer => {
	const { address, port } = socket.address();
	const bytes = socketAddress(address, port);
	assert.ok(bytes !== undefined);
	return bytes;
};

const received = (socket: Socket, count: number): Promise<Buffer[]> => new Promise((resolve) => {
	const packets: Buffer[] = [];
	socket.on('message', (data) => {
		if (packets.push(data) === count) {
			resolve(packets);
		}
	});
});

/** Each of its own bytes. */
const packetsOf = (...lengths: number[]): Buffer[] => lengths.map((length, index) => Buffer.alloc(length, index + 1));

/** The system's call, counted. `refuses` gives the error of a call in place of it. */
const counted = (refuses: (call: number) => number = () => 0): { readonly sendMessage: SendMessage; calls: number } => {
	const send = systemSendMessage();
	const counter = {
		calls: 0,
		sendMessage: (fd: number, message: number): number => {
			const errno = refuses(counter.calls);
			counter.calls += 1;
			return errno === 0 ? send(fd, message) : -errno;
		},
	};
	return counter;
};

for (const [what, lengths, calls] of [
	['a picture: a longer one, many of one length, a shorter one', [1212, ...new Array<number>(11).fill(1200), 345], 2],
	['one alone', [700], 1],
	['growing ones', [10, 20, 30], 3],
	['a shorter one in the middle', [100, 100, 50, 100, 100], 2],
	['more than a call takes', new Array<number>(150).fill(40), 3],
	['more bytes than a call takes', new Array<number>(60).fill(1400), 2],
	['bytes up to what a call takes', [...new Array<number>(54).fill(1200), 707], 1],
	['an empty one', [100, 0, 100], 3],
] as const) {
	test(`packets arrive as they were, ${what}`, onLinux, async (context) => {
		const [from, to] = [await bound(context), await bound(context)];
		const counter = counted();
		const packets = packetsOf(...lengths);
		const arriving = received(to, packets.length);
		assert.deepEqual(new SegmentSender(counter.sendMessage).send(fdOf(from), addressTo(to), packets), { packets: packets.length, errno: 0 });
		assert.equal(counter.calls, calls);
		const arrived = await arriving;
		assert.ok(arrived.every((data, index) => packets[index]?.equals(data)));
	});
}

const hasIpv6 = Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'));

test('packets go over IPv6', { skip: onLinux.skip || (!hasIpv6 && 'this machine has no ::1') }, async (context) => {
	const [from, to] = [await bound(context, 'udp6'), await bound(context, 'udp6')];
	const packets = packetsOf(1200, 1200, 300);
	const arriving = received(to, packets.length);
	assert.deepEqual(new SegmentSender().send(fdOf(from), addressTo(to), packets), { packets: 3, errno: 0 });
	assert.deepEqual(await arriving, packets);
});

test('an error ends it: what was sent before it is counted, the rest is not sent', onLinux, async (context) => {
	const [from, to] = [await bound(context), await bound(context)];
	const packets = packetsOf(10, 20, 20, 30);
	const arriving = received(to, 2);
	const counter = counted((call) => (call === 1 ? ERRNO.EAGAIN : 0));
	const sender = new SegmentSender(counter.sendMessage);
	assert.deepEqual(sender.send(fdOf(from), addressTo(to), packets), { packets: 1, errno: ERRNO.EAGAIN });
	assert.equal(counter.calls, 2);
	assert.deepEqual(sender.send(fdOf(from), addressTo(to), packets.slice(3)), { packets: 1, errno: 0 });
	assert.deepEqual(await arriving, [packets[0], packets[3]]);
	assert.deepEqual(sender.send(fdOf(from), addressTo(to), [Buffer.alloc(70_000)]), { packets: 0, errno: ERRNO.EMSGSIZE }, 'longer than any packet');
});

test('the numbers of errors are those of the system', onLinux, async (context) => {
	const [from, to] = [await bound(context), await bound(context)];
	const sender = new SegmentSender();
	assert.deepEqual(sender.send(-1, addressTo(to), packetsOf(10, 10)), { packets: 0, errno: 9 }, 'EBADF');
	assert.equal(sender.send(fdOf(from), addressTo(to).subarray(0, 4), packetsOf(10, 10)).errno, ERRNO.EINVAL, 'half an address');
});

test('addresses are written as the system reads them', () => {
	assert.deepEqual(socketAddress('192.0.2.7', 0x1234), Buffer.from([2, 0, 0x12, 0x34, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0]));
	const sixth = (host: string): string | undefined => socketAddress(host, 1)?.toString('hex', 8, 24);
	assert.deepEqual(['2001:db8::a:1', '::', '::1', 'fe80::', '1:2:3:4:5:6:7:8', '::ffff:192.0.2.7'].map(sixth), [
		'20010db800000000000000000' + '00a0001', '0'.repeat(32), '0'.repeat(31) + '1', 'fe80' + '0'.repeat(28), '00010002000300040005000600070008', '00000000000000000000ffffc0000207',
	]);
	assert.deepEqual([socketAddress('::1', 0x1234)?.length, socketAddress('::1', 0x1234)?.toString('hex', 0, 8)], [28, '0a00123400000000']);
	assert.deepEqual([socketAddress('fe80::1%eth0', 1), socketAddress('localhost', 1), socketAddress('', 1)], [undefined, undefined, undefined]);
});

test('it is used only where packets of one call arrive as they were', onLinux, async () => {
	assert.equal((await trySegmentation(systemClock)).kind, 'used');
	const refused = await trySegmentation(systemClock, () => -ERRNO.EINVAL);
	assert.deepEqual(refused, { kind: 'not used', why: 'the system refuses it (error 22)' });
	const asked: number[] = [];
	// Takes them and does nothing, as a system might that does not know what it is told.
	const swallowed = await trySegmentation({ ...systemClock, nowMs: () => 0, sleep: (ms) => Promise.resolve(void asked.push(ms)) }, () => 13);
	assert.deepEqual(swallowed, { kind: 'not used', why: 'of 3 packets that this machine sent to itself, these came: none' });
	assert.equal(asked.length, 1);
});

test('a transport says in one line what was found, and looks for nothing where it is switched off', onLinux, async () => {
	const lines: object[] = [];
	const open = (segmentation: boolean, told: () => void): Transport => {
		const info: Log['info'] = (fields, message) => {
			lines.push({ ...fields, message });
			told();
		};
		return createWebRtcTransport({ fps: 16, segmentation, clock: systemClock, log: { ...silentLog, info } });
	};
	// What is switched off comes first: were it to look, it would say so before the other.
	const off = open(false, () => undefined);
	const on = await new Promise<Transport>((resolve) => {
		const transport = open(true, () => resolve(transport));
	});
	assert.deepEqual(lines, [{ segmentation: 'used', message: 'UDP segmentation tried.' }]);
	await Promise.all([off.close(), on.close()]);
});
