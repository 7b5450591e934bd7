/** Whether this machine takes UDP packets together, found out once a process by sending some to itself. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { endianness } from 'node:os';
import type { Clock } from '../base/time.js';
import { SegmentSender, systemSendMessage, type SendMessage } from './segment-sender.js';
import { socketAddress } from './socket-address.js';
import { handleOf } from './socket-handle.js';

export type Segmentation =
	| { readonly kind: 'used'; readonly sender: SegmentSender }
	| { readonly kind: 'not used'; readonly why: string };

/** On the way from a machine to itself nothing takes so long; a busy one may. */
const ANSWER_TIMEOUT_MS = 5000;
/** The structures of `segment-sender.ts` are those of these. */
const ARCHITECTURES: readonly string[] = ['x64', 'arm64', 'riscv64'];
const PROBE = ['first', 'other', 'last'];
const LOOPBACK = '127.0.0.1';

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const bound = async (): Promise<Socket> => {
	// Whatever happens to it, the process may end.
	const socket = createSocket('udp4').unref();
	socket.bind(0, LOOPBACK);
	await once(socket, 'listening');
	return socket;
};

/** Packets of one call, as they arrive. Throws when they do not. */
const sendToSelf = async (sender: SegmentSender, clock: Clock): Promise<string[]> => {
	const [from, to] = [await bound(), await bound()];
	const stop = new AbortController();
	try {
		const arrived: string[] = [];
		const all = new Promise<void>((resolve) => {
			to.on('message', (data) => {
				if (arrived.push(data.toString('latin1')) === PROBE.length) {
					resolve();
				}
			});
		});
		const address = socketAddress(LOOPBACK, to.address().port);
		const fd = handleOf(from)?.fd;
		if (address === undefined || fd === undefined || fd < 0) {
			throw new Error('this release of Node does not show its sockets');
		}
		const { packets, errno } = sender.send(fd, address, PROBE.map((text) => Buffer.from(text, 'latin1')));
		if (packets < PROBE.length) {
			throw new Error(`the system refuses it (error ${errno})`);
		}
		await Promise.race([all, clock.sleep(ANSWER_TIMEOUT_MS, stop.signal).catch(() => undefined)]);
		return arrived;
	} finally {
		stop.abort();
		from.close();
		to.close();
	}
};

/** Does not throw. */
export const trySegmentation = async (clock: Clock, sendMessage?: SendMessage): Promise<Segmentation> => {
	if (process.platform !== 'linux' || endianness() !== 'LE' || !ARCHITECTURES.includes(process.arch)) {
		return { kind: 'not used', why: `not made for ${process.platform} on ${process.arch}` };
	}
	try {
		const sender = new SegmentSender(sendMessage ?? systemSendMessage());
		const arrived = await sendToSelf(sender, clock);
		return arrived.join() === PROBE.join() ? { kind: 'used', sender } : { kind: 'not used', why: `of ${PROBE.length} packets that this machine sent to itself, these came: ${arrived.join() || 'none'}` };
	} catch (error) {
		return { kind: 'not used', why: messageOf(error) };
	}
};

let known: Promise<Segmentation> | undefined;

/** The same for every call. */
export const openSegmentation = (clock: Clock): Promise<Segmentation> => (known ??= trySegmentation(clock));
