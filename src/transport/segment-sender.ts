/**
 * Sends UDP packets many to a call: Linux takes one long buffer and cuts it into packets of one length, the last of which may be shorter (UDP_SEGMENT, udp(7),
 * since 4.18). The way to the peer is found, the socket locked and the system called once for all. The packets of a picture but the first and the last are of one length.
 *
 * Node has no such call. `sendmsg` of the C library is called through koffi, on the descriptor of Node's own socket.
 */
import { addressOf, foreign, type ForeignFunction } from '../base/foreign.js';

/** `sendmsg(2)` without waiting: the bytes sent, or an error number below zero. `message` is the address of a msghdr. */
export type SendMessage = (fd: number, message: number) => number;

/** Packets that the operating system took, from the first on, and why it took no more: an error number, or 0. */
export type Taken = { readonly packets: number; readonly errno: number };

/** Error numbers of Linux. */
export const ERRNO = { EIO: 5, EAGAIN: 11, EINVAL: 22, EMSGSIZE: 90, ENOBUFS: 105 } as const;

const MSG_DONTWAIT = 0x40;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
/** UDP_MAX_SEGMENTS of the kernel; newer ones take twice as many. */
const MOST_SEGMENTS = 64;
/** Payload of one IPv4 packet (RFC 791 and 768): 65535, less the headers. It bounds all segments of a call. */
const MOST_BYTES = 65_507;

/** Where in one block of memory the structures lie: msghdr (56 bytes), iovec (16), cmsghdr with the length of a segment (24), and the address of the peer (28). All of 64-bit Linux. */
const AT = { message: 0, vector: 56, control: 72, address: 96, end: 124 } as const;
const MESSAGE = { name: 0, nameLength: 8, vectors: 16, vectorCount: 24, control: 32, controlLength: 40 } as const;
const VECTOR = { base: 0, length: 8 } as const;
const CONTROL = { length: 0, level: 8, type: 12, segmentBytes: 16 } as const;
const CONTROL_BYTES = 24;
/** Without what fills the last word. */
const CONTROL_USED_BYTES = 18;

/** Throws `device_unavailable` where koffi is not installed. */
export const systemSendMessage = (): SendMessage => {
	const koffi = foreign();
	// Of the process itself, so that it does not matter how its C library is called.
	const sendmsg = koffi.load(null).func('sendmsg', 'intptr_t', ['int', 'uintptr_t', 'int']) as ForeignFunction;
	return (fd, message) => {
		const bytes = sendmsg(fd, message, MSG_DONTWAIT) as number;
		return bytes < 0 ? -koffi.errno() : bytes;
	};
};

export class SegmentSender {
	readonly #sendMessage: SendMessage;
	/** Both stay where they are, and hold nothing that outlasts a call. */
	readonly #memory = Buffer.alloc(AT.end);
	readonly #packets = Buffer.alloc(MOST_BYTES);
	readonly #message: number;

	constructor(sendMessage: SendMessage = systemSendMessage()) {
		this.#sendMessage = sendMessage;
		const memory = this.#memory;
		const start = addressOf(memory);
		memory.writeBigUInt64LE(start + BigInt(AT.address), AT.message + MESSAGE.name);
		memory.writeBigUInt64LE(start + BigInt(AT.vector), AT.message + MESSAGE.vectors);
		memory.writeBigUInt64LE(1n, AT.message + MESSAGE.vectorCount);
		memory.writeBigUInt64LE(start + BigInt(AT.control), AT.message + MESSAGE.control);
		memory.writeBigUInt64LE(addressOf(this.#packets), AT.vector + VECTOR.base);
		memory.writeUInt32LE(CONTROL_USED_BYTES, AT.control + CONTROL.length);
		memory.writeUInt32LE(SOL_UDP, AT.control + CONTROL.level);
		memory.writeUInt32LE(UDP_SEGMENT, AT.control + CONTROL.type);
		this.#message = Number(start) + AT.message;
	}

	/** `to` is of `socketAddress`. Sends in order; where it stops, nothing of the rest has been sent. */
	send(fd: number, to: Buffer, packets: readonly Buffer[]): Taken {
		const memory = this.#memory;
		memory.set(to, AT.address);
		memory.writeUInt32LE(to.length, AT.message + MESSAGE.nameLength);
		let first = 0;
		while (first < packets.length) {
			const end = this.#fill(packets, first);
			if (end === first) {
				return { packets: first, errno: ERRNO.EMSGSIZE };
			}
			const sent = this.#sendMessage(fd, this.#message);
			if (sent < 0) {
				return { packets: first, errno: -sent };
			}
			first = end;
		}
		return { packets: first, errno: 0 };
	}

	/** Writes down as many packets as one call takes. Returns the index of the next. */
	#fill(packets: readonly Buffer[], first: number): number {
		const segmentBytes = packets[first]?.length ?? 0;
		let bytes = 0;
		let end = first;
		for (; end < packets.length && end - first < MOST_SEGMENTS; end += 1) {
			const packet = packets[end];
			// An empty packet would not be one at the end of a buffer.
			if (packet === undefined || packet.length > segmentBytes || bytes + packet.length > MOST_BYTES || (end > first && packet.length === 0)) {
				break;
			}
			this.#packets.set(packet, bytes);
			bytes += packet.length;
			if (packet.length < segmentBytes) {
				end += 1;
				break;
			}
		}
		const memory = this.#memory;
		memory.writeUInt32LE(bytes, AT.vector + VECTOR.length);
		memory.writeUInt32LE(end - first > 1 ? CONTROL_BYTES : 0, AT.message + MESSAGE.controlLength);
		memory.writeUInt16LE(segmentBytes & 0xffff, AT.control + CONTROL.segmentBytes);
		return end;
	}
}
