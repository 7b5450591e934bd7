/**
 * The short way from a connection of werift to its UDP socket. The library's own takes three promises for each packet, and Node looks every address up, also
 * one that is an address already, and sends a turn later. Whatever is not plain UDP (a relay, a peer known by a name) goes the library's way.
 */
import type { Socket } from 'node:dgram';
import { isIP } from 'node:net';
import type { RTCIceTransport } from 'werift';

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

type Lookup = (address: string, callback: (error: Error | null | undefined, address: string, family?: number) => void) => void;
type SocketState = { readonly handle: { lookup: Lookup } | null };

/** What sending at once returns: nothing is to be waited for. */
export const SENT = Promise.resolve();
const direct = new WeakSet<Socket>();

/** Takes addresses for what they are. Node keeps the handle to itself; where it is not found nothing changes. */
const skipLookup = (socket: Socket): void => {
	if (direct.has(socket)) {
		return;
	}
	direct.add(socket);
	const symbol = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'state symbol');
	const state = symbol === undefined ? undefined : (socket as unknown as { readonly [state: symbol]: Partial<SocketState> | undefined })[symbol];
	const handle = state?.handle;
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
export const sendAtOnce = (ice: RTCIceTransport['connection']): void => {
	const inside = ice as unknown as IceInside;
	const send = inside.send;
	let pair: Pair | undefined;
	let socket: Socket | undefined;
	inside.send = (data) => {
		const { nominated } = inside;
		if (nominated === undefined || !inside.canSendApplicationData()) {
			return SENT;
		}
		if (nominated !== pair) {
			pair = nominated;
			socket = socketOf(pair);
			if (socket !== undefined) {
				skipLookup(socket);
			}
		}
		if (socket === undefined) {
			return send(data);
		}
		if (pair.protocol.transport?.closed !== true) {
			const [host, port] = pair.remoteAddr;
			socket.send(data, port, host);
			pair.packetsSent += 1;
			pair.bytesSent += data.length;
		}
		return SENT;
	};
};

/** Packets that the operating system has not taken yet. */
export const waitingInSocket = (ice: RTCIceTransport['connection']): number => {
	const { nominated } = ice as unknown as IceInside;
	const socket = nominated === undefined || nominated.protocol.transport?.closed === true ? undefined : socketOf(nominated);
	return socket?.getSendQueueCount() ?? 0;
};
