/** A viewer made of werift: offers like a browser, takes packets apart, and can lose some on purpose. */
import { dePacketizeRtpPackets, RTCPeerConnection, RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters, useAbsSendTime, useSdesMid, useTransportWideCC, type RTCDataChannel, type RtpPacket } from 'werift';
import { sendArrivalFeedback } from '../../client/node/arrival-feedback.js';
import type { VideoCodec } from '../../src/base/frame.js';
import { TELEMETRY_LABEL } from '../../src/protocol/limits.js';
import { PLAYOUT_DELAY_URI } from '../../src/transport/rtp-writer.js';
import type { Transport, Viewer } from '../../src/transport/transport.js';

const feedback = [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }, { type: 'ccm', parameter: 'fir' }, { type: 'goog-remb' }, { type: 'transport-cc' }];

const CODECS: { readonly [codec in VideoCodec]: RTCRtpCodecParameters[] } = {
	h264: [
		new RTCRtpCodecParameters({ mimeType: 'video/H264', clockRate: 90_000, payloadType: 102, rtcpFeedback: feedback, parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' }),
		new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 103, parameters: 'apt=102' }),
	],
	vp8: [
		new RTCRtpCodecParameters({ mimeType: 'video/VP8', clockRate: 90_000, payloadType: 96, rtcpFeedback: feedback }),
		new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 97, parameters: 'apt=96' }),
	],
};

export type ReceivedUnit = { readonly rtpTimestamp: number; readonly data: Buffer };

export class Receiver implements AsyncDisposable {
	readonly connection: RTCPeerConnection;
	readonly telemetry: RTCDataChannel;
	readonly records: string[] = [];
	readonly packets: RtpPacket[] = [];
	/** Whole access units in order of arrival of their last packet. */
	readonly units: ReceivedUnit[] = [];
	readonly #codec: VideoCodec;
	readonly #waiting = new Map<number, RtpPacket[]>();
	/** By sequence number: a lost packet may be sent again more than once. Half of them back each is forgotten. */
	readonly #isSeen = new Uint8Array(0x10000);
	readonly #checks = new Set<() => void>();
	mediaSsrc = 0;

	constructor(codec: VideoCodec) {
		this.#codec = codec;
		this.connection = new RTCPeerConnection({
			codecs: { audio: [], video: CODECS[codec] },
			headerExtensions: { audio: [], video: [useSdesMid(), useAbsSendTime(), useTransportWideCC(), new RTCRtpHeaderExtensionParameters({ uri: PLAYOUT_DELAY_URI })] },
			iceServers: [],
			iceUseIpv6: false,
			// Otherwise it offers a transport of its own to each section, and forgets to close those that the answer bundles away.
			bundlePolicy: 'max-bundle',
			iceAdditionalHostAddresses: ['127.0.0.1'],
		});
		sendArrivalFeedback(this.connection.addTransceiver('video', { direction: 'recvonly' }).receiver);
		this.telemetry = this.connection.createDataChannel(TELEMETRY_LABEL, { ordered: false, maxRetransmits: 0 });
		this.telemetry.onMessage.subscribe((message) => {
			this.records.push(message.toString());
			this.#check();
		});
		this.telemetry.stateChanged.subscribe(() => this.#check());
		this.connection.connectionStateChange.subscribe(() => this.#check());
		this.connection.onTrack.subscribe((track) => {
			track.onReceiveRtp.subscribe((packet) => this.#onPacket(packet));
		});
	}

	/** Offers, is answered, connects. */
	async connect(transport: Transport): Promise<Viewer> {
		const viewer = await this.offerTo(transport);
		await this.until(() => this.connection.connectionState === 'connected' && viewer.state.kind === 'connected', viewer);
		return viewer;
	}

	async offerTo(transport: Transport): Promise<Viewer> {
		const offer = await this.connection.createOffer();
		await this.connection.setLocalDescription(offer);
		const { viewer, answerSdp } = await transport.accept(this.connection.localDescription?.sdp ?? '');
		await this.connection.setRemoteDescription({ type: 'answer', sdp: answerSdp });
		return viewer;
	}

	/** Takes the video that somebody offers, as a WHIP endpoint does. */
	async answer(offerSdp: string): Promise<string> {
		await this.connection.setRemoteDescription({ type: 'offer', sdp: offerSdp });
		await this.connection.setLocalDescription(await this.connection.createAnswer());
		return this.connection.localDescription?.sdp ?? '';
	}

	/** The same for a new ICE session of such a connection: begins the checks, which the library leaves to us. */
	async answerRestart(offerSdp: string): Promise<string> {
		const answerSdp = await this.answer(offerSdp);
		this.connection.iceTransports.forEach((ice) => void ice.start().catch(() => undefined));
		return answerSdp;
	}

	/** Another offer of the same connection, for a new ICE session. The library gives it another session id, against RFC 9429 section 5.2.2. */
	async restartOffer(): Promise<string> {
		const [origin = ''] = /^o=.*$/mu.exec(this.connection.localDescription?.sdp ?? '') ?? [];
		await this.connection.setLocalDescription(await this.connection.createOffer({ iceRestart: true }));
		return (this.connection.localDescription?.sdp ?? '').replace(/^o=.*$/mu, origin);
	}

	/** After the answer to such an offer: begins the checks, which the library leaves to us. */
	async restarted(answerSdp: string): Promise<void> {
		await this.connection.setRemoteDescription({ type: 'answer', sdp: answerSdp });
		await Promise.all(this.connection.iceTransports.map((ice) => ice.start()));
	}

	/** Resolves when the condition holds; looked at with everything that arrives. */
	until(holds: () => boolean, viewer?: Viewer): Promise<void> {
		return new Promise((resolve) => {
			const check = (): void => {
				if (holds()) {
					this.#checks.delete(check);
					stop?.();
					resolve();
				}
			};
			const stop = viewer?.onState(check);
			this.#checks.add(check);
			check();
		});
	}

	/** Loses incoming media packets for which `isLost` says so, before anything sees them. */
	losePackets(isLost: (count: number) => boolean): void {
		let count = 0;
		for (const { connection } of this.connection.iceTransports) {
			const { onData } = connection;
			const execute = onData.execute.bind(onData);
			onData.execute = (data: Buffer) => {
				// RTP: version 2 and not one of the RTCP types (RFC 5761 section 4).
				const isMedia = ((data[0] ?? 0) & 0xc0) === 0x80 && !((data[1] ?? 0) >= 192 && (data[1] ?? 0) <= 223);
				if (isMedia && isLost(count++)) {
					return;
				}
				execute(data);
			};
		}
	}

	/** Asks twice for the cookie of the DTLS handshake, as is done for a ClientHello that was repeated. Resolves when it has. Before the offer. */
	repeatVerify(): Promise<void> {
		return new Promise((resolve) => {
			for (const { connection } of this.connection.iceTransports) {
				const send = connection.send.bind(connection);
				connection.send = async (data) => {
					await send(data);
					// A handshake record (RFC 6347 section 4.1) with a HelloVerifyRequest.
					if (data[0] === 22 && data[13] === 3) {
						await send(data);
						resolve();
					}
				};
			}
		});
	}

	#onPacket(packet: RtpPacket): void {
		this.mediaSsrc = packet.header.ssrc;
		this.packets.push(packet);
		const { timestamp, sequenceNumber } = packet.header;
		if (this.#isSeen[sequenceNumber] === 1) {
			return;
		}
		this.#isSeen[sequenceNumber] = 1;
		this.#isSeen[(sequenceNumber + 0x8000) & 0xffff] = 0;
		const list = this.#waiting.get(timestamp) ?? [];
		list.push(packet);
		list.sort((a, b) => ((a.header.sequenceNumber - b.header.sequenceNumber) << 16) >> 16);
		this.#waiting.set(timestamp, list);
		const first = list[0]?.header.sequenceNumber ?? 0;
		const isWhole = list.at(-1)?.header.marker === true && list.every((entry, index) => entry.header.sequenceNumber === ((first + index) & 0xffff));
		const isFirst = this.#codec === 'vp8' ? (list[0]?.payload[0] ?? 0) & 0x10 : !isLaterFragment(list[0]);
		if (isWhole && Boolean(isFirst)) {
			this.#waiting.delete(timestamp);
			const { data } = dePacketizeRtpPackets(this.#codec === 'h264' ? 'MPEG4/ISO/AVC' : 'VP8', list);
			this.units.push({ rtpTimestamp: timestamp, data });
			this.#check();
		}
	}

	#check(): void {
		for (const check of [...this.#checks]) {
			check();
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.connection.close();
	}
}

/** Whether an H.264 packet is the middle of a fragmented unit (RFC 6184 section 5.8). */
const isLaterFragment = (packet: RtpPacket | undefined): boolean =>
	packet !== undefined && ((packet.payload[0] ?? 0) & 0x1f) === 28 && ((packet.payload[1] ?? 0) & 0x80) === 0;
