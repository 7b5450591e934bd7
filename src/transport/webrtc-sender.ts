/**
 * One video track out: payloads to encrypted RTP packets, retransmission, what the receiver says back, and what it says of the way.
 * Reaches into private fields of werift's `RTCRtpSender` and transports where its public face has a defect or is slow; all such places are in this file, but for those of `nomination.ts`, `hello-repair.ts`, `way-watch.ts` and `udp-way.ts`.
 */
import type { RTCDtlsTransport, RTCRtpSender, RtcpPacket } from 'werift';
import type { EncodedChunk } from '../base/frame.js';
import { ntpMs, ntpTimestamp } from '../base/ntp.js';
import type { Clock } from '../base/time.js';
import { BandwidthEstimator } from './bandwidth.js';
import { packetise, type Payload } from './packetise.js';
import { Resender, type KeptPacket } from './resend.js';
import { lostSequences, readTransportFeedback } from './rtcp-repair.js';
import { RtpWriter, type HeaderFields } from './rtp-writer.js';
import { createSrtpWriter, SRTP_PROFILE, type PlainPacket, type SrtpWriter } from './srtp-writer.js';
import { SENT, sendTogether, waitingInSocket } from './udp-way.js';

const RTCP_RECEIVER_REPORT = 201;
const RTCP_TRANSPORT_FEEDBACK = 205;
const RTCP_PAYLOAD_FEEDBACK = 206;
/** Formats of the last two (RFC 4585 sections 6.2.1 and 6.3.1, RFC 5104 section 4.3.1, the transport-wide draft, and that of REMB). */
const FORMAT_NACK = 1;
const FORMAT_TRANSPORT_WIDE = 15;
const FORMAT_PICTURE_LOSS = 1;
const FORMAT_FULL_INTRA = 4;
const FORMAT_APPLICATION = 15;

/** Of what a way carries: the rest are headers, tags, the odd repeat, and room for pictures that came out larger than asked for, each of which would keep the next waiting. */
const VIDEO_SHARE = 0.9;
/** IPv4 and UDP, which the network counts too. */
const NETWORK_HEADER_BYTES = 28;
/** An estimate this far above the highest rate of the video is no limit. */
const ENOUGH = 1.3;

/** The fields of werift's sender that are private but needed. */
type SenderInside = {
	readonly headerExtensions: readonly { readonly id: number; readonly uri: string }[];
	readonly mid?: string;
	readonly rtxPayloadType?: number;
	/** Seconds. */
	readonly rtt?: number;
	readonly senderBWE: { rtpPacketSent: (info: unknown) => void; receiveTWCC: (feedback: unknown) => void };
	/** What the next sender report says (RFC 3550 section 6.4.1). */
	ntpTimestamp: bigint;
	rtpTimestamp: number;
	packetCount: number;
	octetCount: number;
	/** Starts the reports; does nothing when they run. */
	readonly runRtcp: () => Promise<void>;
};

type TransportInside = {
	readonly srtp?: {
		readonly localContext: { readonly srtpSessionKey: Buffer; readonly srtpSessionSalt: Buffer; readonly srtpSessionAuthTag: Buffer };
	};
};

type Kept = KeptPacket & { readonly payload: Buffer; readonly marker: boolean; readonly timestamp: number; readonly rollover: number };

/** What exists once the handshake is done. */
type Keyed = { readonly srtp: SrtpWriter; readonly media: RtpWriter; readonly repeats: RtpWriter | undefined };

export type SenderEvents = {
	/** The receiver cannot show anything until a key frame comes. */
	readonly onPictureLost: () => void;
};

export type SenderOptions = {
	readonly clock: Clock;
	/** The most that the video ever takes. */
	readonly mostBps: number;
	/** 0 (included) to 1 (excluded), for the numbers that streams begin at. */
	readonly random: () => number;
	readonly events: SenderEvents;
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

/** Before the handshake: offers, or takes, only what `srtp-writer.ts` writes. The library has AES-GCM too, and rather. */
const limitProfiles = (transport: RTCDtlsTransport): void => {
	(transport as unknown as { srtpProfiles: number[] }).srtpProfiles = [SRTP_PROFILE];
};

/** One sequence of numbers (RFC 3550 section 5.1) and how often it has wrapped (RFC 3711 section 3.3.1, which wants it to begin in the lower half). */
class Numbering {
	#next: number;
	#rollover = 0;

	constructor(random: () => number) {
		this.#next = Math.floor(random() * 0x8000);
	}

	take(): { sequence: number; rollover: number } {
		const taken = { sequence: this.#next, rollover: this.#rollover };
		this.#next = (this.#next + 1) & 0xffff;
		this.#rollover += this.#next === 0 ? 1 : 0;
		return taken;
	}
}

export class VideoSender {
	readonly #sender: RTCRtpSender;
	readonly #inside: SenderInside;
	readonly #transport: RTCDtlsTransport;
	readonly #clock: Clock;
	readonly #resender: Resender<Kept>;
	readonly #bandwidth: BandwidthEstimator;
	readonly #events: SenderEvents;
	readonly #stopListening: () => void;
	readonly #numbers: Numbering;
	readonly #repeatNumbers: Numbering;
	#keyed: Keyed | undefined;
	#burst = 0;
	#waiting = 0;
	packets = 0;
	/** As reported by transport-wide feedback. */
	lost = 0;

	constructor(sender: RTCRtpSender, { clock, mostBps, random, events }: SenderOptions) {
		this.#sender = sender;
		this.#inside = sender as unknown as SenderInside;
		this.#transport = sender.dtlsTransport;
		this.#clock = clock;
		this.#events = events;
		this.#numbers = new Numbering(random);
		this.#repeatNumbers = new Numbering(random);
		this.#bandwidth = new BandwidthEstimator({ enoughBps: mostBps * ENOUGH });
		disableBuiltInResend(sender);
		disableBuiltInEstimator(sender);
		limitProfiles(this.#transport);
		this.#resender = new Resender({
			clock,
			send: (kept) => this.#resend(kept),
			onLost: () => events.onPictureLost(),
			roundTripMs: () => (this.#inside.rtt === undefined ? undefined : this.#inside.rtt * 1000),
			loss: () => this.#bandwidth.loss,
			isWayFull: () => this.#bandwidth.bps(clock.nowMs()) !== undefined,
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
		return this.#waiting + waitingInSocket(this.#transport.iceTransport.connection);
	}

	/** What the way carries of video; `undefined`: no limit is known. */
	get bandwidthBps(): number | undefined {
		const bps = this.#bandwidth.bps(this.#clock.nowMs());
		return bps === undefined ? undefined : bps * VIDEO_SHARE * (1 - this.#bandwidth.loss);
	}

	/** How long what was sent will still take to arrive, beyond the usual. */
	get backlogMs(): number {
		return this.#bandwidth.backlogMs(this.#clock.nowMs());
	}

	send(chunk: EncodedChunk): void {
		const keyed = this.#keys();
		if (keyed === undefined) {
			return;
		}
		const nowMs = this.#clock.nowMs();
		const payloads = packetise(chunk);
		const capturedAt = ntpTimestamp(ntpMs(chunk.capturedAtMs ?? nowMs));
		this.#burst += 1;
		this.#reportOn(chunk, payloads, capturedAt);
		const sentAtNtpMs = ntpMs(nowMs);
		const plain: PlainPacket[] = [];
		let last = 0;
		for (const { data, marker } of payloads) {
			const { sequence, rollover } = this.#numbers.take();
			const fields = { marker, sequence, timestamp: chunk.rtpTimestamp, transportSequence: this.#nextTransportSequence(keyed), sentAtNtpMs, capturedAt: plain.length === 0 ? capturedAt : undefined };
			plain.push(this.#headed(keyed, keyed.media, this.#sender.ssrc, data, rollover, fields, nowMs));
			this.#resender.remember({ sequence, rollover, bytes: data.length, payload: data, marker, timestamp: chunk.rtpTimestamp }, keyed.media.isNumbered ? fields.transportSequence : undefined);
			last = sequence;
		}
		this.packets += payloads.length;
		this.#protectAndSend(keyed, plain);
		if (keyed.repeats !== undefined && plain.length > 0) {
			this.#resender.pictureSent(last);
		}
	}

	close(): void {
		this.#stopListening();
	}

	/** A repeat is a packet of its own: a fresh transport-wide number and time, and the retransmission stream where there is one (RFC 4588 section 4). */
	#resend({ payload, marker, timestamp, sequence, rollover }: Kept): number | undefined {
		const keyed = this.#keys();
		if (keyed === undefined) {
			return undefined;
		}
		const nowMs = this.#clock.nowMs();
		const transportSequence = this.#nextTransportSequence(keyed);
		const fields = { marker, timestamp, transportSequence, sentAtNtpMs: ntpMs(nowMs), capturedAt: undefined };
		if (keyed.repeats === undefined) {
			this.#protectAndSend(keyed, [this.#headed(keyed, keyed.media, this.#sender.ssrc, payload, rollover, { ...fields, sequence }, nowMs)]);
		} else {
			const original = Buffer.allocUnsafe(2 + payload.length);
			original.writeUInt16BE(sequence);
			original.set(payload, 2);
			const number = this.#repeatNumbers.take();
			this.#protectAndSend(keyed, [this.#headed(keyed, keyed.repeats, this.#sender.rtxSsrc, original, number.rollover, { ...fields, sequence: number.sequence }, nowMs)]);
		}
		return keyed.media.isNumbered ? transportSequence : undefined;
	}

	/** Counted in the transport, for all streams of it. */
	#nextTransportSequence({ media }: Keyed): number {
		const transport = this.#transport;
		if (media.isNumbered) {
			transport.transportSequenceNumber = (transport.transportSequenceNumber + 1) & 0xffff;
		}
		return transport.transportSequenceNumber;
	}

	/** A packet with its header, and room for what encryption writes. */
	#headed({ srtp }: Keyed, writer: RtpWriter, ssrc: number, payload: Buffer, rollover: number, fields: HeaderFields, nowMs: number): PlainPacket {
		const headerBytes = writer.headerBytes(fields);
		const packet = Buffer.allocUnsafe(headerBytes + payload.length + srtp.tagBytes);
		writer.write(packet, fields);
		if (writer.isNumbered) {
			this.#bandwidth.packetSent(fields.transportSequence, packet.length + NETWORK_HEADER_BYTES, this.#burst, nowMs);
		}
		return { ssrc, sequence: fields.sequence, rollover, packet, headerBytes, payload };
	}

	/** First all are encrypted, then all are sent: a call of the system between two would make both slower. */
	#protectAndSend({ srtp }: Keyed, plain: readonly PlainPacket[]): void {
		srtp.write(plain);
		const { connection } = this.#transport.iceTransport;
		const packets = plain.map(({ packet }) => packet);
		for (const packet of packets.slice(sendTogether(connection, packets))) {
			const sending = connection.send(packet);
			if (sending !== SENT) {
				this.#waiting += 1;
				sending.then(this.#taken, this.#taken);
			}
		}
	}

	readonly #taken = (): void => {
		this.#waiting -= 1;
	};

	/** Undefined until the handshake has given keys. */
	#keys(): Keyed | undefined {
		if (this.#keyed !== undefined) {
			return this.#keyed;
		}
		const { srtp } = this.#transport as unknown as TransportInside;
		const payloadType = this.#sender.codec?.payloadType;
		if (srtp === undefined || payloadType === undefined || this.#transport.state !== 'connected') {
			return undefined;
		}
		const { srtpSessionKey, srtpSessionSalt, srtpSessionAuthTag } = srtp.localContext;
		const { mid, headerExtensions: extensions, rtxPayloadType } = this.#inside;
		this.#keyed = {
			srtp: createSrtpWriter({ key: srtpSessionKey, salt: srtpSessionSalt, authentication: srtpSessionAuthTag }),
			media: new RtpWriter({ ssrc: this.#sender.ssrc, payloadType, mid, extensions }),
			repeats: rtxPayloadType === undefined ? undefined : new RtpWriter({ ssrc: this.#sender.rtxSsrc, payloadType: rtxPayloadType, mid, extensions }),
		};
		return this.#keyed;
	}

	/** What sender reports say: the moment of the last picture on both clocks, and how much was sent. The library sends them. */
	#reportOn({ rtpTimestamp }: EncodedChunk, payloads: readonly Payload[], capturedAt: bigint): void {
		const inside = this.#inside;
		inside.ntpTimestamp = capturedAt;
		inside.rtpTimestamp = rtpTimestamp;
		inside.packetCount = (inside.packetCount + payloads.length) >>> 0;
		inside.octetCount = payloads.reduce((sum, { data }) => sum + data.length, inside.octetCount) >>> 0;
		void inside.runRtcp();
	}

	#onRtcp(packet: RtcpPacket): void {
		const nowMs = this.#clock.nowMs();
		if (packet.type === RTCP_RECEIVER_REPORT) {
			const report = packet.reports.find(({ ssrc }) => ssrc === this.#sender.ssrc);
			if (report !== undefined) {
				this.#bandwidth.onReceiverReport(report.fractionLost / 256, nowMs);
			}
		} else if (packet.type === RTCP_PAYLOAD_FEEDBACK) {
			const { feedback } = packet;
			if (feedback.count === FORMAT_PICTURE_LOSS || feedback.count === FORMAT_FULL_INTRA) {
				this.#events.onPictureLost();
			} else if (feedback.count === FORMAT_APPLICATION && 'bitrate' in feedback) {
				this.#bandwidth.onReceiverEstimate(Number(feedback.bitrate), nowMs);
			}
		} else if (packet.type === RTCP_TRANSPORT_FEEDBACK) {
			const { feedback } = packet;
			if (feedback.count === FORMAT_NACK && 'lost' in feedback) {
				this.#resender.request(lostSequences(feedback));
			} else if (feedback.count === FORMAT_TRANSPORT_WIDE && 'packetChunks' in feedback) {
				const reports = readTransportFeedback(feedback);
				this.lost += reports.filter(({ arrivedAtMs }) => arrivedAtMs === undefined).length;
				this.#bandwidth.onTransportFeedback(reports, nowMs);
				this.#resender.reported(reports);
			}
		}
	}
}
