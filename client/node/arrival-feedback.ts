/**
 * Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1) of a receiver in Node, in place of werift 0.25.2's own: that writes a
 * length that leaves out the last bytes of most packets, so that they cannot be read, begins its deltas at a time that is not in the packet, and sorts numbers across their
 * wrap. A server that believes what is left of it takes a good way for a full one.
 */

/** Of times in the packet. */
const TICK_MS = 0.25;
const TICKS_OF_REFERENCE = 256;
/** Arrivals are told so long after the first of them, as often as browsers do. */
const FEEDBACK_AFTER_MS = 50;
/** Arrivals that were told are remembered so long: a packet that was overtaken is told with those around it. */
const MEMORY_MS = 500;
/** Packets of one feedback, those missing among them. What lies further back is not told any more. */
const MOST_PACKETS = 512;

const HEADER_BYTES = 20;
const PACKET_TYPE = 205;
const FORMAT = 15;
const SYMBOLS = 7;
const LONGEST_RUN = 0x1fff;

const STATUS = { missing: 0, small: 1, large: 2 } as const;
type Status = (typeof STATUS)[keyof typeof STATUS];

/** Runs of equal statuses, and vectors of seven symbols of two bits where they change (sections 3.1.3 and 3.1.4). */
const statusChunks = (statuses: readonly Status[]): Buffer => {
	const chunks: number[] = [];
	let at = 0;
	while (at < statuses.length) {
		const first = statuses[at] ?? STATUS.missing;
		let run = 1;
		while (statuses[at + run] === first && run < LONGEST_RUN) {
			run += 1;
		}
		if (run >= SYMBOLS || at + run === statuses.length) {
			chunks.push((first << 13) | run);
			at += run;
		} else {
			chunks.push(statuses.slice(at, at + SYMBOLS).reduce<number>((bits, status, index) => bits | (status << (2 * (SYMBOLS - 1 - index))), 0xc000));
			at += SYMBOLS;
		}
	}
	const bytes = Buffer.alloc(2 * chunks.length);
	chunks.forEach((chunk, index) => bytes.writeUInt16BE(chunk, 2 * index));
	return bytes;
};

/** Pure: arrivals and the time are told to it. */
export class ArrivalFeedback {
	readonly #senderSsrc: number;
	readonly #mediaSsrc: number;
	/** By the number with its wraps counted: when it came, in ticks. */
	readonly #arrivals = new Map<number, number>();
	#newest: number | undefined;
	/** The number that the next feedback begins at. */
	#next: number | undefined;
	/** The first and the last number that is not told yet. */
	#untold: { first: number; last: number } | undefined;
	#count = 0;

	constructor(senderSsrc: number, mediaSsrc: number) {
		this.#senderSsrc = senderSsrc;
		this.#mediaSsrc = mediaSsrc;
	}

	/** A packet with this transport-wide number (16 bits) is there. */
	arrived(number: number, nowMs: number): void {
		const unwrapped = this.#newest === undefined ? number : this.#newest + (((number - this.#newest) << 16) >> 16);
		this.#newest = Math.max(this.#newest ?? unwrapped, unwrapped);
		if (this.#arrivals.has(unwrapped)) {
			return;
		}
		this.#arrivals.set(unwrapped, Math.round(nowMs / TICK_MS));
		this.#untold = { first: Math.min(this.#untold?.first ?? unwrapped, unwrapped), last: Math.max(this.#untold?.last ?? unwrapped, unwrapped) };
	}

	/** A feedback packet on what has arrived since the one before, and on what is missing between; `undefined` when nothing has. */
	take(nowMs: number): Buffer | undefined {
		const untold = this.#untold;
		if (untold === undefined) {
			return undefined;
		}
		this.#untold = undefined;
		const last = untold.last;
		const wanted = Math.max(Math.min(this.#next ?? untold.first, untold.first), last - MOST_PACKETS + 1);
		this.#next = Math.max(this.#next ?? 0, last + 1);
		const oldest = (nowMs - MEMORY_MS) / TICK_MS;
		for (const [number, ticks] of this.#arrivals) {
			if (number < wanted && ticks < oldest) {
				this.#arrivals.delete(number);
			}
		}
		return this.#packet(wanted, last);
	}

	#packet(first: number, last: number): Buffer {
		const ticks = Array.from({ length: last - first + 1 }, (_, index) => this.#arrivals.get(first + index));
		// There is one: the last number has arrived.
		const reference = Math.floor(Math.min(...ticks.filter((tick) => tick !== undefined)) / TICKS_OF_REFERENCE);
		let before = reference * TICKS_OF_REFERENCE;
		const deltas: Buffer[] = [];
		const statuses = ticks.map((tick): Status => {
			if (tick === undefined) {
				return STATUS.missing;
			}
			const delta = tick - before;
			before = tick;
			const isSmall = delta >= 0 && delta <= 0xff;
			const bytes = Buffer.alloc(isSmall ? 1 : 2);
			if (isSmall) {
				bytes.writeUInt8(delta);
			} else {
				bytes.writeInt16BE(Math.max(-0x8000, Math.min(0x7fff, delta)));
			}
			deltas.push(bytes);
			return isSmall ? STATUS.small : STATUS.large;
		});
		const body = Buffer.concat([statusChunks(statuses), ...deltas]);
		const padding = (4 - (body.length % 4)) % 4;
		const packet = Buffer.alloc(HEADER_BYTES + body.length + padding);
		// Version 2; the last byte of the padding tells its length (RFC 3550 section 6.4.1).
		packet.writeUInt8(0x80 | (padding > 0 ? 0x20 : 0) | FORMAT, 0);
		packet.writeUInt8(PACKET_TYPE, 1);
		packet.writeUInt16BE(packet.length / 4 - 1, 2);
		packet.writeUInt32BE(this.#senderSsrc, 4);
		packet.writeUInt32BE(this.#mediaSsrc, 8);
		packet.writeUInt16BE(first & 0xffff, 12);
		packet.writeUInt16BE(statuses.length, 14);
		packet.writeUIntBE(reference & 0xffffff, 16, 3);
		packet.writeUInt8(this.#count, 19);
		body.copy(packet, HEADER_BYTES);
		if (padding > 0) {
			packet.writeUInt8(padding, packet.length - 1);
		}
		this.#count = (this.#count + 1) & 0xff;
		return packet;
	}
}

/** What the library's receiver has inside: it makes its feedback when the first packet has come, and tells it the number of each. */
type Inside = {
	readonly twccEnabled: unknown;
	receiverTWCC?: { handleTWCC: (number: number | undefined) => void; twccRunning: boolean };
	readonly rtcpSsrc: number;
	readonly dtlsTransport: { sendRtcp: (packets: readonly { serialize: () => Buffer }[]) => Promise<void> };
	setupTWCC: (mediaSsrc: number) => void;
};

/** Makes a receiver of the library send ours. Before the first packet. */
export const sendArrivalFeedback = (receiver: object): void => {
	const inside = receiver as Inside;
	inside.setupTWCC = (mediaSsrc) => {
		if (inside.twccEnabled === undefined || inside.receiverTWCC !== undefined) {
			return;
		}
		const feedback = new ArrivalFeedback(inside.rtcpSsrc, mediaSsrc);
		let timer: NodeJS.Timeout | undefined;
		const tell = (): void => {
			timer = undefined;
			const packet = feedback.take(performance.now());
			if (packet !== undefined) {
				inside.dtlsTransport.sendRtcp([{ serialize: () => packet }]).catch(() => undefined);
			}
		};
		inside.receiverTWCC = {
			handleTWCC: (number) => {
				if (number !== undefined) {
					feedback.arrived(number, performance.now());
					timer ??= setTimeout(tell, FEEDBACK_AFTER_MS).unref();
				}
			},
			twccRunning: false,
		};
	};
};
