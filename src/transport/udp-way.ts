/**
 * The short way from a connection of werift to its UDP socket. The library's own takes three promises for each packet, and Node looks every address up, also
 * one that is an address already, and sends a turn later. Whatever is not plain UDP (a relay, a peer known by a name) goes the library's way. Where the system takes many packets at
 * once, those of a picture go together.
 */
import type { Socket } from 'node:dgram';
import { isIP } from 'node:net';
import type { RTCIceTransport } from 'werift';
import { ERRNO, type SegmentSender } from './segment-sender.js';
import { socketAddress } from './socket-address.js';
import { handleOf } from './socket-handle.js';

type Pair = {
	readonly protocol: { readonly type: string; readonly transport?: { readonly type: string; readonly closed: boolean; readonly socket: Socket } };
	readonly remoteAddr: readonly [host: string, port: number];
	packetsSent: number;
	bytesSent: number;
};

type IceInside = {
	readonly nominated?: Pair;
	/** Nominated, and the peer consents (RFC 7675). */
	readonly canSendApplicationData: () => boolean;
	send: (data: Buffer) => Promise<void>;
};

export type TogetherOptions = {
	/** `undefined`: not known yet, or not here. */
	readonly sender: () => SegmentSender | undefined;
	/** A socket whose device does not take packets together sends them one by one from now on. */
	readonly onRefused: (errno: number) => void;
};

/** Where a connection sends now: `socket` is `undefined` when that is no plain UDP. */
type Way = { readonly pair: Pair; readonly socket: Socket | undefined; readonly address: Buffer | undefined };

type Sender = { readonly send: IceInside['send']; readonly sendTogether: (packets: readonly Buffer[]) => number };

/** What sending at once returns: nothing is to be waited for. */
export const SENT = Promise.resolve();
const direct = new WeakSet<Socket>();

const senders = new WeakMap<object, Sender>();
const refusing = new WeakSet<Socket>();
/** No hardware for it below, or a packet longer than the way takes. Both last. */
const LASTING: readonly number[] = [ERRNO.EINVAL, ERRNO.EIO];

/** Takes addresses for what they are. */
const skipLookup = (socket: Socket): void => {
	if (direct.has(socket)) {
		return;
	}
	direct.add(socket);
	const handle = handleOf(socket);
	if (typeof handle?.lookup !== 'function') {
		return;
	}
	const lookup = handle.lookup.bind(handle);
	// Few are asked for, of a connection that lasts: its own pairs.
	let known = '';
	handle.lookup = (address, callback) => {
		if (address !== known && isIP(address) === 0) {
			lookup(address, callback);
			return;
		}
		known = address;
		callback(null, address);
	};
};

/** The socket that a connection sends through now; `undefined` when it is no plain UDP. */
const socketOf = ({ protocol: { type, transport }, remoteAddr: [host] }: Pair): Socket | undefined =>
	type === 'stun' && transport?.type === 'udp' && isIP(host) > 0 ? transport.socket : undefined;

/** Makes a connection send UDP at once. What it sends is handed to the operating system, or waits in the socket, when `send` returns. */
export const sendAtOnce = (ice: RTCIceTransport['connection'], together?: TogetherOptions): void => {
	const inside = ice as unknown as IceInside;
	const library = inside.send;
	let way: Way | undefined;
	/** `undefined` when nothing may be sent. */
	const present = (): Way | undefined => {
		const { nominated } = inside;
		if (nominated === undefined || !inside.canSendApplicationData()) {
			return undefined;
		}
		if (nominated !== way?.pair) {
			const socket = socketOf(nominated);
			if (socket !== undefined) {
				skipLookup(socket);
			}
			way = { pair: nominated, socket, address: socket === undefined ? undefined : socketAddress(...nominated.remoteAddr) };
		}
		return way;
	};
	const send = (data: Buffer): Promise<void> => {
		const to = present();
		if (to === undefined) {
			return SENT;
		}
		const { pair, socket } = to;
		if (socket === undefined) {
			return library(data);
		}
		if (pair.protocol.transport?.closed !== true) {
			const [host, port] = pair.remoteAddr;
			socket.send(data, port, host);
			pair.packetsSent += 1;
			pair.bytesSent += data.length;
		}
		return SENT;
	};
	const sendTogether = (packets: readonly Buffer[]): number => {
		const sender = together?.sender();
		if (sender === undefined || packets.length < 2) {
			return 0;
		}
		const { pair, socket, address } = present() ?? {};
		if (pair === undefined || socket === undefined || address === undefined || pair.protocol.transport?.closed === true || refusing.has(socket)) {
			return 0;
		}
		const fd = handleOf(socket)?.fd ?? -1;
		// What waits in the socket goes first.
		if (fd < 0 || socket.getSendQueueCount() > 0) {
			return 0;
		}
		const { packets: taken, errno } = sender.send(fd, address, packets);
		for (let index = 0; index < taken; index += 1) {
			pair.bytesSent += packets[index]?.length ?? 0;
		}
		pair.packetsSent += taken;
		if (LASTING.includes(errno)) {
			refusing.add(socket);
			together?.onRefused(errno);
		}
		return taken;
	};
	inside.send = send;
	senders.set(ice, { send, sendTogether });
};

/**
 * Hands packets to the operating system with few calls of it. Returns how many it took, from the first on: the others are to be sent one by one, by the connection's `send`. Whoever has put a
 * `send` of their own in the place of ours gets all of them.
 */
export const sendTogether = (ice: RTCIceTransport['connection'], packets: readonly Buffer[]): number => {
	const sender = senders.get(ice);
	return sender === undefined || ice.send !== sender.send ? 0 : sender.sendTogether(packets);
};

/** Packets that the operating system has not taken yet. */
export const waitingInSocket = (ice: RTCIceTransport['connection']): number => {
	const { nominated } = ice as unknown as IceInside;
	const socket = nominated === undefined || nominated.protocol.transport?.closed === true ? undefined : socketOf(nominated);
	return socket?.getSendQueueCount() ?? 0;
};
