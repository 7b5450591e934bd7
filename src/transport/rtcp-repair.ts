/**
 * Repairs of werift 0.25.2 around RTCP. Each is a function with the defect it stands against; the tests show the defect in the
 * library too, and fail when it is gone, so that the repair can go with it.
 */
import { RtcpPacketConverter, type RtcpPacket, type TransportWideCC } from 'werift';

/**
 * Cuts a compound packet (RFC 3550 section 6.1) into its packets. The library does not cut a packet at its own length, so that a
 * NACK followed by REMB is read on into the REMB, as hundreds of lost packets that never were.
 */
export const splitCompound = (compound: Buffer): Buffer[] => {
	const packets: Buffer[] = [];
	let start = 0;
	while (start + 4 <= compound.length) {
		const end = start + (compound.readUInt16BE(start + 2) + 1) * 4;
		if (end > compound.length) {
			break;
		}
		packets.push(compound.subarray(start, end));
		start = end;
	}
	return packets;
};

let isRepaired = false;

/** Makes every connection of the library read compounds as they are. Takes effect once, for the whole process. */
export const repairCompoundParsing = (): void => {
	if (isRepaired) {
		return;
	}
	isRepaired = true;
	const parseOne = RtcpPacketConverter.deSerialize.bind(RtcpPacketConverter);
	RtcpPacketConverter.deSerialize = (data: Buffer): RtcpPacket[] => splitCompound(data).flatMap((packet) => parseOne(packet));
};

export type PacketReport = {
	/** Transport-wide number, 16 bits. */
	readonly sequence: number;
	/** When it arrived, receiver's clock; `undefined`: it did not. */
	readonly arrivedAtMs: number | undefined;
};

/**
 * What transport-wide feedback says of each packet (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1). The library's own
 * `packetResults` leaves out status vectors and begins every run at the base number.
 */
export const readTransportFeedback = (feedback: TransportWideCC): PacketReport[] => {
	const statuses = feedback.packetChunks.flatMap((chunk) =>
		'runLength' in chunk ? new Array<number>(chunk.runLength).fill(chunk.packetStatus) : chunk.symbolList);
	// Multiples of 64 ms; deltas are microseconds in the library.
	let atMs = Number(feedback.referenceTime) * 64;
	let delta = 0;
	return statuses.slice(0, feedback.packetStatusCount).map((status, index) => {
		const sequence = (feedback.baseSequenceNumber + index) & 0xffff;
		if (status !== 1 && status !== 2) {
			return { sequence, arrivedAtMs: undefined };
		}
		atMs += Number(feedback.recvDeltas[delta]?.delta ?? 0) / 1000;
		delta += 1;
		return { sequence, arrivedAtMs: atMs };
	});
};

/** Numbers of a NACK as they are on the wire: the library adds the bit mask without wrapping at 2^16 (RFC 4585 section 6.2.1). */
export const lostSequences = (nack: { readonly lost: readonly number[] }): number[] => nack.lost.map((sequence) => sequence & 0xffff);
