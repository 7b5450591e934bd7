/** Puts the packets of a stream together into access units, in order and without holes. */

/** The part of an RTP packet that is looked at (RFC 3550 section 5.1). */
export type Packet = {
	readonly header: { readonly sequenceNumber: number; readonly timestamp: number; readonly marker: boolean };
	readonly payload: Buffer;
};

export const NODE_CODECS = ['h264', 'vp8'] as const;
export type NodeCodec = (typeof NODE_CODECS)[number];

export type PacketGroup<P extends Packet> = { readonly rtpTimestamp: number; readonly packets: readonly P[]; readonly isKeyframe: boolean };

/** Some four frames of two megabits a second: a packet that is still missing then is not resent in time to be of use. */
const MOST_WAITING_PACKETS = 256;

const sequenceDifference = (a: number, b: number): number => ((a - b) << 16) >> 16;

/** Types of network abstraction layer units (ITU-T H.264 table 7-1), and of their packets (RFC 6184 table 1). */
const NAL_IDR = 5;
const NAL_SPS = 7;
const STAP_A = 24;
const FU_A = 28;

const typeOf = (payload: Buffer, at = 0): number => (payload[at] ?? 0) & 0x1f;

/** Whether a picture begins with this packet. */
const isFirst = (codec: NodeCodec, { payload }: Packet): boolean =>
	codec === 'vp8'
		// S bit and partition 0 of the payload descriptor (RFC 7741 section 4.2).
		? ((payload[0] ?? 0) & 0x10) !== 0 && ((payload[0] ?? 0) & 0x07) === 0
		// Anything but a later fragment; whether units came before it, the sequence numbers tell.
		: typeOf(payload) !== FU_A || ((payload[1] ?? 0) & 0x80) !== 0;

const isKey = (codec: NodeCodec, packets: readonly Packet[]): boolean => {
	if (codec === 'h264') {
		return packets.some(({ payload }) => {
			const type = typeOf(payload);
			const inner = type === FU_A ? typeOf(payload, 1) : type === STAP_A ? typeOf(payload, 3) : type;
			return inner === NAL_IDR || inner === NAL_SPS;
		});
	}
	const payload = packets[0]?.payload ?? Buffer.alloc(0);
	// Length of the descriptor: its extension byte says which fields follow (RFC 7741 section 4.2).
	let at = 1;
	if (((payload[0] ?? 0) & 0x80) !== 0) {
		const extension = payload[1] ?? 0;
		at = 2;
		at += (extension & 0x80) === 0 ? 0 : ((payload[at] ?? 0) & 0x80) === 0 ? 1 : 2;
		at += (extension & 0x40) === 0 ? 0 : 1;
		at += (extension & 0x30) === 0 ? 0 : 1;
	}
	// Inverse key frame flag of the frame tag (RFC 6386 section 9.1).
	return ((payload[at] ?? 1) & 0x01) === 0;
};

/**
 * Takes packets in any order and gives whole pictures in theirs. A picture whose packets do not come in time, and those that build on it,
 * are left out up to the next key frame, which `onLoss` is there to ask for.
 */
export class AccessUnits<P extends Packet> {
	readonly #codec: NodeCodec;
	readonly #onUnit: (unit: PacketGroup<P>) => void;
	readonly #onLoss: () => void;
	/** By sequence number. */
	readonly #waiting = new Map<number, P>();
	/** The next packet in order; `undefined` until a key frame begins. */
	#next: number | undefined;

	constructor(codec: NodeCodec, events: { readonly onUnit: (unit: PacketGroup<P>) => void; readonly onLoss: () => void }) {
		this.#codec = codec;
		this.#onUnit = events.onUnit;
		this.#onLoss = events.onLoss;
	}

	add(packet: P): void {
		const { sequenceNumber } = packet.header;
		if (this.#next !== undefined && sequenceDifference(sequenceNumber, this.#next) < 0) {
			return; // A copy of what was used, or too late.
		}
		this.#waiting.set(sequenceNumber, packet);
		if (this.#next === undefined) {
			this.#begin();
		}
		this.#take();
		if (this.#waiting.size > MOST_WAITING_PACKETS) {
			this.#next = undefined;
			this.#begin();
			this.#take();
			this.#forget();
			this.#onLoss();
		}
	}

	/** Gives what is whole from `#next` on. */
	#take(): void {
		for (let unit = this.#unitAt(this.#next); unit !== undefined; unit = this.#unitAt(this.#next)) {
			const last = unit.at(-1)?.header.sequenceNumber ?? 0;
			for (const { header } of unit) {
				this.#waiting.delete(header.sequenceNumber);
			}
			this.#next = (last + 1) & 0xffff;
			this.#onUnit({ rtpTimestamp: unit[0]?.header.timestamp ?? 0, packets: unit, isKeyframe: isKey(this.#codec, unit) });
		}
	}

	/** Looks for a whole key frame to begin with; what stands before it is of no use. */
	#begin(): void {
		for (const [sequence, packet] of this.#waiting) {
			if (isFirst(this.#codec, packet) && this.#waiting.get((sequence - 1) & 0xffff)?.header.timestamp !== packet.header.timestamp) {
				const unit = this.#unitAt(sequence);
				if (unit !== undefined && isKey(this.#codec, unit)) {
					this.#next = sequence;
					for (const other of this.#waiting.keys()) {
						if (sequenceDifference(other, sequence) < 0) {
							this.#waiting.delete(other);
						}
					}
					return;
				}
			}
		}
	}

	/** Without a key frame to begin with, only the newest packets may still become one. */
	#forget(): void {
		const sorted = [...this.#waiting.keys()].sort(sequenceDifference);
		for (const sequence of sorted.slice(0, Math.max(0, sorted.length - MOST_WAITING_PACKETS / 2))) {
			if (this.#next === undefined) {
				this.#waiting.delete(sequence);
			}
		}
	}

	/** The packets of the picture that begins with this one, when all of them are there. */
	#unitAt(first: number | undefined): P[] | undefined {
		const unit: P[] = [];
		for (let sequence = first; sequence !== undefined; sequence = (sequence + 1) & 0xffff) {
			const packet = this.#waiting.get(sequence);
			if (packet === undefined || packet.header.timestamp !== (unit[0] ?? packet).header.timestamp) {
				return undefined;
			}
			unit.push(packet);
			if (packet.header.marker) {
				return unit;
			}
		}
		return undefined;
	}
}
