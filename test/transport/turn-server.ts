/**
 * As much of a TURN server (RFC 8656, over UDP) as a picture takes: it asks for credentials, checks them against its secret as coturn does with
 * use-auth-secret, gives an address, and relays to the peers that were permitted, by indications and by channels. Allocations last until it is closed.
 */
import { createHash, createHmac } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { classes, Message, methods, parseMessage } from 'werift';

const REALM = 'turbocast.test';
const NONCE = Buffer.from('nonce of the test');
/** Channel number and length (RFC 8656 section 12.4). */
const CHANNEL_HEADER_BYTES = 4;

type Peer = readonly [address: string, port: number];

type Allocation = {
	readonly socket: Socket;
	/** Addresses. */
	readonly permitted: Set<string>;
	readonly channels: Map<number, Peer>;
};

export type TurnServer = AsyncDisposable & {
	readonly url: string;
	/** Bytes of peers that were handed on to clients. */
	readonly relayed: () => number;
};

/** From which the relay reaches the others, so that they know it by the address that is told to them. */
const relayAddress = (): string => Object.values(networkInterfaces()).flatMap((each) => each ?? []).find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';

const nameOf = ([address, port]: Peer): string => `${address}:${port}`;

/** `wallMs`: what its clock says; names that have expired are refused. */
export const startTurnServer = async (secret: string, wallMs: () => number = Date.now): Promise<TurnServer> => {
	const socket = createSocket('udp4');
	/** By address and port of the client. */
	const allocations = new Map<string, Allocation>();
	let relayed = 0;

	const allocate = async (from: RemoteInfo): Promise<Allocation> => {
		const relay = createSocket('udp4');
		const allocation: Allocation = { socket: relay, permitted: new Set(), channels: new Map() };
		allocations.set(nameOf([from.address, from.port]), allocation);
		relay.on('message', (data, peer) => {
			if (!allocation.permitted.has(peer.address)) {
				return;
			}
			relayed += data.length;
			const [channel] = [...allocation.channels].find(([, bound]) => nameOf(bound) === nameOf([peer.address, peer.port])) ?? [];
			if (channel === undefined) {
				const indication = new Message(methods.DATA, classes.INDICATION);
				socket.send(indication.setAttribute('XOR-PEER-ADDRESS', [peer.address, peer.port]).setAttribute('DATA', data).bytes, from.port, from.address);
				return;
			}
			const header = Buffer.alloc(CHANNEL_HEADER_BYTES);
			header.writeUInt16BE(channel);
			header.writeUInt16BE(data.length, 2);
			socket.send(Buffer.concat([header, data]), from.port, from.address);
		});
		relay.bind(0);
		await once(relay, 'listening');
		return allocation;
	};

	const answer = async (data: Buffer, request: Message, from: RemoteInfo): Promise<void> => {
		const refuse = (code: number, phrase: string): void => {
			const refusal = new Message(request.messageMethod, classes.ERROR, request.transactionId);
			refusal.setAttribute('ERROR-CODE', [code, phrase]).setAttribute('REALM', REALM).setAttribute('NONCE', NONCE);
			socket.send(refusal.bytes, from.port, from.address);
		};
		if (request.messageMethod === methods.BINDING) {
			const told = new Message(methods.BINDING, classes.RESPONSE, request.transactionId);
			socket.send(told.setAttribute('XOR-MAPPED-ADDRESS', [from.address, from.port]).bytes, from.port, from.address);
			return;
		}
		const name = request.getAttributeValue('USERNAME') as string | undefined;
		if (name === undefined) {
			refuse(401, 'Unauthorized');
			return;
		}
		const password = createHmac('sha1', secret).update(name).digest('base64');
		const key = createHash('md5').update(`${name}:${REALM}:${password}`).digest();
		const isKnown = parseMessage(data, key) !== undefined;
		if (!isKnown || Number.parseInt(name, 10) * 1000 < wallMs()) {
			refuse(401, 'Unauthorized');
			return;
		}
		const known = allocations.get(nameOf([from.address, from.port]));
		const success = new Message(request.messageMethod, classes.RESPONSE, request.transactionId);
		if (request.messageMethod === methods.ALLOCATE) {
			const { socket: relay } = known ?? await allocate(from);
			success.setAttribute('LIFETIME', 600).setAttribute('XOR-RELAYED-ADDRESS', [relayAddress(), relay.address().port]).setAttribute('XOR-MAPPED-ADDRESS', [from.address, from.port]);
		} else if (known === undefined) {
			refuse(437, 'Allocation Mismatch');
			return;
		} else if (request.messageMethod === methods.REFRESH) {
			success.setAttribute('LIFETIME', request.getAttributeValue('LIFETIME') as number | undefined ?? 600);
		} else {
			const peer = request.getAttributeValue('XOR-PEER-ADDRESS') as Peer;
			known.permitted.add(peer[0]);
			if (request.messageMethod === methods.CHANNEL_BIND) {
				known.channels.set(request.getAttributeValue('CHANNEL-NUMBER') as number, peer);
			}
		}
		socket.send(success.addMessageIntegrity(key).bytes, from.port, from.address);
	};

	/** To a peer. */
	const forward = (allocation: Allocation | undefined, peer: Peer | undefined, data: Buffer): void => {
		if (peer !== undefined && allocation?.permitted.has(peer[0]) === true) {
			allocation.socket.send(data, peer[1], peer[0]);
		}
	};

	socket.on('message', (data, from) => {
		const allocation = allocations.get(nameOf([from.address, from.port]));
		// The first two bits tell channels from messages (RFC 8656 section 12).
		if (((data[0] ?? 0) & 0xc0) === 0x40) {
			forward(allocation, allocation?.channels.get(data.readUInt16BE(0)), data.subarray(CHANNEL_HEADER_BYTES, CHANNEL_HEADER_BYTES + data.readUInt16BE(2)));
			return;
		}
		const message = parseMessage(data);
		if (message?.messageClass === classes.REQUEST) {
			void answer(data, message, from);
		} else if (message?.messageClass === classes.INDICATION && message.messageMethod === methods.SEND) {
			forward(allocation, message.getAttributeValue('XOR-PEER-ADDRESS') as Peer, message.getAttributeValue('DATA') as Buffer);
		}
	});
	socket.bind(0, '127.0.0.1');
	await once(socket, 'listening');
	return {
		url: `turn:127.0.0.1:${socket.address().port}?transport=udp`,
		relayed: () => relayed,
		[Symbol.asyncDispose]: async () => {
			const sockets = [socket, ...[...allocations.values()].map((each) => each.socket)];
			await Promise.all(sockets.map((each) => {
				const closed = once(each, 'close');
				each.close();
				return closed;
			}));
		},
	};
};
