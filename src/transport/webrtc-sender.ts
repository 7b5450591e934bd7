/**
 * One video track out: access units to RTP packets, header extensions, retransmission, and what the receiver says back.
 * Reaches into private fields of werift's `RTCRtpSender` where its public face has a defect; all such places are in this file.
 */
import { H264Packetizer, RtpPacket, serializeAbsSendTime, serializeSdesMid, serializeTransportWideCC, Vp8Packetizer, wrapRtx, ntpTime, RTP_EXTENSION_URI, type RTCDtlsTransport, type RTCRtpSender, type RtcpPacket } from 'werift';
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import { Resender, type KeptPacket } from './resend.js';
import { lostSequences, readTransportFeedback } from './rtcp-repair.js';

/**
 * Tells the browser to show a frame as soon as it is there, and never to build up more than this in its jitter buffer
 * (measured: 11.6 ms from encoder to screen instead of 45 ms; with 0 as the upper end there is no cushion and playback froze).
 */
export const PLAYOUT_DELAY_URI = 'http://www.webrtc.org/experiments/rtp-hdrext/playout-delay';
const PLAYOUT_DELAY_MS = { least: 0, most: 200 };

const RTCP_TRANSPORT_FEEDBACK = 205;
const RTCP_PAYLOAD_FEEDBACK = 206;
/** Formats of those two (RFC 4585 sections 6.2.1 and 6.3.1, RFC 5104 section 4.3.1, and the transport-wide draft). */
const FORMAT_NACK = 1;
const FORMAT_TRANSPORT_WIDE = 15;
const FORMAT_PICTURE_LOSS = 1;
const FORMAT_FULL_INTRA = 4;

/** The fields of werift's sender that are private but needed. */
type SenderInside = {
	readonly headerExtensions: readonly { readonly id: number; readonly uri: string }[];
	readonly mid?: string;
	readonly rtxPayloadType?: number;
	/** Seconds. */
	readonly rtt?: number;
	readonly senderBWE: { rtpPacketSent: (info: unknown) => void; receiveTWCC: (feedback: unknown) => void };
};

type Kept = KeptPacket & { readonly packet: RtpPacket };

export type SenderEvents = {
	/** The receiver cannot show anything until a key frame comes. */
	readonly onPictureLost: () => void;
};

/** min and max in units of 10 ms, 12 bits each. */
const playoutDelayPayload = (): Buffer => {
	const bits = ((PLAYOUT_DELAY_MS.least / 10) << 12) | (PLAYOUT_DELAY_MS.most / 10);
	return Buffer.from([(bits >> 16) & 0xff, (bits >> 8) & 0xff, bits & 0xff]);
};

/** The library answers NACKs by itself from `rtpCache`; an empty one that stays empty stops it. `Resender` does it instead. */
export const disableBuiltInResend = (sender: RTCRtpSender): void => {
	Object.defineProperty(sender, 'rtpCache', { get: () => [], set: () => undefined });
};

/** The library's bandwidth estimator remembers every packet for ever, and misreads feedback. */
export const disableBuiltInEstimator = (sender: RTCRtpSender): void => {
	const { senderBWE } = sender as unknown as SenderInside;
	senderBWE.rtpPacketSent = () => undefined;
	senderBWE.receiveTWCC = () => undefined;
};

export class VideoSender {
	readonly #sender: RTCRtpSender;
	readonly #inside: SenderInside;
	readonly #transport: RTCDtlsTransport;
	readonly #packetizer: H264Packetizer | Vp8Packetizer;
	readonly #resender: Resender<Kept>;
	readonly #events: SenderEvents;
	readonly #stopListening: () => void;
	#rtxSequence = Math.floor(Math.random() * 0x10000);
	#waiting = 0;
	packets = 0;
	/** As reported by transport-wide feedback. */
	lost = 0;

	constructor(sender: RTCRtpSender, codec: VideoCodec, clock: Clock, events: SenderEvents) {
		this.#sender = sender;
		this.#inside = sender as unknown as SenderInside;
		this.#transport = sender.dtlsTransport;
		this.#events = events;
		this.#packetizer = codec === 'h264' ? new H264Packetizer({ inputFormat: 'annexb' }) : new Vp8Packetizer();
		disableBuiltInResend(sender);
		disableBuiltInEstimator(sender);
		this.#resender = new Resender({
			clock,
			send: (kept) => this.#resend(kept.packet),
			onLost: () => events.onPictureLost(),
			roundTripMs: () => (this.#inside.rtt === undefined ? undefined : this.#inside.rtt * 1000),
		});
		// Not `sender.onRtcp`: the library's router drops feedback that names the retransmission stream, and requests (FIR)
		// that name no stream in the header.
		this.#stopListening = this.#transport.onRtcp.subscribe((packet) => this.#onRtcp(packet)).unSubscribe;
	}

	get resent(): number {
		return this.#resender.resent;
	}

	/** Packets that the operating system has not taken yet. */
	get waitingPackets(): number {
		return this.#waiting;
	}

	send(chunk: EncodedChunk): void {
		const data = Buffer.from(chunk.data.buffer, chunk.data.byteOffset, chunk.data.byteLength);
		for (const packet of this.#packetizer.packetize(data, chunk.rtpTimestamp)) {
			this.#addPlayoutDelay(packet);
			this.packets += 1;
			this.#resender.remember({ sequence: packet.header.sequenceNumber, bytes: packet.payload.length, packet });
			this.#track(this.#sender.sendRtp(packet));
		}
	}

	close(): void {
		this.#stopListening();
	}

	#track(sending: Promise<unknown>): void {
		this.#waiting += 1;
		const done = (): void => {
			this.#waiting -= 1;
		};
		sending.then(done, done);
	}

	#addPlayoutDelay(packet: RtpPacket): void {
		const id = this.#inside.headerExtensions.find((extension) => extension.uri === PLAYOUT_DELAY_URI)?.id;
		packet.header.extension = true;
		packet.header.extensions = id === undefined ? [] : [{ id, payload: playoutDelayPayload() }];
	}

	/** A repeat is a packet of its own: a fresh transport-wide number and time, and the retransmission stream where there is one (RFC 4588). */
	#resend(kept: RtpPacket): void {
		const packet = kept.clone();
		packet.header.ssrc = this.#sender.ssrc;
		packet.header.payloadType = this.#sender.codec?.payloadType ?? packet.header.payloadType;
		packet.header.extensions = [...packet.header.extensions, ...this.#freshExtensions()].sort((a, b) => a.id - b.id);
		let out = packet;
		if (this.#inside.rtxPayloadType !== undefined) {
			this.#rtxSequence = (this.#rtxSequence + 1) & 0xffff;
			out = wrapRtx(packet, this.#inside.rtxPayloadType, this.#rtxSequence, this.#sender.rtxSsrc);
			out.header.extension = true;
		}
		this.#track(this.#transport.sendRtp(out.payload, out.header));
	}

	#freshExtensions(): { id: number; payload: Buffer }[] {
		return this.#inside.headerExtensions.flatMap(({ id, uri }) => {
			switch (uri) {
				case RTP_EXTENSION_URI.sdesMid:
					return this.#inside.mid === undefined ? [] : [{ id, payload: serializeSdesMid(this.#inside.mid) }];
				case RTP_EXTENSION_URI.absSendTime:
					return [{ id, payload: serializeAbsSendTime(ntpTime()) }];
				case RTP_EXTENSION_URI.transportWideCC:
					this.#transport.transportSequenceNumber = (this.#transport.transportSequenceNumber + 1) & 0xffff;
					return [{ id, payload: serializeTransportWideCC(this.#transport.transportSequenceNumber) }];
				default:
					return [];
			}
		});
	}

	#onRtcp(packet: RtcpPacket): void {
		if (packet.type !== RTCP_TRANSPORT_FEEDBACK && packet.type !== RTCP_PAYLOAD_FEEDBACK) {
			return;
		}
		const { feedback } = packet;
		if (packet.type === RTCP_PAYLOAD_FEEDBACK) {
			if (feedback.count === FORMAT_PICTURE_LOSS || feedback.count === FORMAT_FULL_INTRA) {
				this.#events.onPictureLost();
			}
		} else if (feedback.count === FORMAT_NACK && 'lost' in feedback) {
			this.#resender.request(lostSequences(feedback));
		} else if (feedback.count === FORMAT_TRANSPORT_WIDE && 'packetChunks' in feedback) {
			this.lost += readTransportFeedback(feedback).filter((report) => report.arrivedAtMs === undefined).length;
		}
	}
}
