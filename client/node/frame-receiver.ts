/** The video connection of Node, by werift: offers like a browser, takes the packets apart. The one door to that package here. */
import { networkInterfaces } from 'node:os';
import {
	dePacketizeRtpPackets, RTCPeerConnection, RTCRtpCodecParameters, useAbsSendTime, useSdesMid, useTransportWideCC, type MediaStreamTrack, type RTCDataChannel, type RTCRtpReceiver, type RtpPacket,
} from 'werift';
import { TurbocastError } from '../../src/protocol/errors.js';
import { TELEMETRY_LABEL } from '../../src/protocol/limits.js';
import { FRAME_META } from '../../src/protocol/messages.js';
import { IceRestart } from '../ice-restart.js';
import type { Candidate, IceServers, VideoConnection, VideoEvents } from '../platform.js';
import { AccessUnits, type NodeCodec } from './access-units.js';
import { sendArrivalFeedback } from './arrival-feedback.js';
import type { EncodedFrame } from './video-frame.js';

export type ReceivedUnit = Pick<EncodedFrame, 'codec' | 'data' | 'isKeyframe' | 'rtpTimestamp'>;

/** A browser repeats its request as often while pictures are missing. */
const KEYFRAME_INTERVAL_MS = 300;

const feedback = [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }, { type: 'ccm', parameter: 'fir' }, { type: 'transport-cc' }];

/** In the order of preference: the server takes the first that it has. Constrained baseline, packetization mode 1 (RFC 6184 section 8.1). */
const codecs = (): RTCRtpCodecParameters[] => [
	new RTCRtpCodecParameters({ mimeType: 'video/H264', clockRate: 90_000, payloadType: 102, rtcpFeedback: feedback, parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' }),
	new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 103, parameters: 'apt=102' }),
	new RTCRtpCodecParameters({ mimeType: 'video/VP8', clockRate: 90_000, payloadType: 96, rtcpFeedback: feedback }),
	new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 97, parameters: 'apt=96' }),
];

/** On a machine without a network the loopback address is the only way to a server. */
const loopbackIfAlone = (): string[] =>
	Object.values(networkInterfaces()).some((addresses) => addresses?.some((address) => !address.internal)) ? [] : ['127.0.0.1'];

export class FrameReceiver implements VideoConnection {
	readonly #connection: RTCPeerConnection;
	readonly #events: VideoEvents;
	readonly #onUnit: (unit: ReceivedUnit) => void;
	#receiver: RTCRtpReceiver | undefined;
	#mediaSsrc: number | undefined;
	#keyframeAskedAtMs = Number.NEGATIVE_INFINITY;
	#hasUnit = false;
	#isClosed = false;
	readonly #restart: IceRestart;
	/** The `o=` line of the first offer: the library gives each offer another session id, against RFC 9429 section 5.2.2. */
	#origin: string | undefined;
	#isRestarting = false;

	constructor(iceServers: IceServers, events: VideoEvents, onUnit: (unit: ReceivedUnit) => void) {
		this.#events = events;
		this.#onUnit = onUnit;
		const connection = new RTCPeerConnection({
			codecs: { audio: [], video: codecs() },
			headerExtensions: { audio: [], video: [useSdesMid(), useAbsSendTime(), useTransportWideCC()] },
			// Given even when empty: the library's default is a public server.
			iceServers: iceServers.flatMap(({ urls, username, credential }) =>
				urls.map((url) => ({ urls: url, ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }) }))),
			iceAdditionalHostAddresses: loopbackIfAlone(),
			iceUseIpv6: false,
			bundlePolicy: 'max-bundle',
		});
		this.#connection = connection;
		const transceiver = connection.addTransceiver('video', { direction: 'recvonly' });
		this.#receiver = transceiver.receiver;
		sendArrivalFeedback(transceiver.receiver);
		connection.onTrack.subscribe((track) => this.#follow(track));
		this.#readTelemetry(connection.createDataChannel(TELEMETRY_LABEL, { ordered: false, maxRetransmits: 0 }));
		connection.connectionStateChange.subscribe((state) => {
			// The library says at once that a second negotiation is connected.
			if (this.#isClosed || this.#isRestarting) {
				return;
			}
			if (state === 'connected') {
				this.#restart.connected();
				events.onConnected();
			} else if (state === 'disconnected') {
				events.onDisturbed();
				this.#restart.troubled();
			} else if (state === 'failed') {
				this.#restart.failed();
			} else if (state === 'closed') {
				events.onFailed();
			}
		});
		this.#restart = new IceRestart({
			untilHeard: (withinMs) => events.untilHeard(withinMs),
			restart: async () => {
				this.#isRestarting = true;
				await this.#offer(true);
			},
			isUp: () => !this.#isRestarting && connection.connectionState === 'connected',
			onFailed: () => events.onFailed(),
		});
	}

	offer(): Promise<void> {
		return this.#offer(false);
	}

	async #offer(iceRestart: boolean): Promise<void> {
		await this.#connection.setLocalDescription(await this.#connection.createOffer({ iceRestart }));
		const sdp = this.#connection.localDescription?.sdp;
		if (sdp === undefined) {
			throw new TurbocastError('transport_failed', 'No offer for a video connection could be made.');
		}
		// With all candidates of this side: gathering has ended by now.
		this.#origin ??= /^o=.*$/mu.exec(sdp)?.[0];
		this.#events.onOffer(sdp.replace(/^o=.*$/mu, this.#origin ?? ''));
	}

	async answer(sdp: string): Promise<void> {
		await this.#connection.setRemoteDescription({ type: 'answer', sdp });
		if (this.#isRestarting) {
			// The library begins the checks of a first negotiation only.
			await Promise.all(this.#connection.iceTransports.map((ice) => ice.start()));
			this.#isRestarting = false;
			this.#restart.connected();
			this.#events.onConnected();
		}
	}

	async addCandidate(candidate: Candidate): Promise<void> {
		if (candidate === null || candidate.candidate === '') {
			return;
		}
		await this.#connection.addIceCandidate({
			candidate: candidate.candidate,
			...(typeof candidate.sdp_mid === 'string' ? { sdpMid: candidate.sdp_mid } : {}),
			...(typeof candidate.sdp_mline_index === 'number' ? { sdpMLineIndex: candidate.sdp_mline_index } : {}),
		});
	}

	getStats(): Promise<RTCStatsReport> {
		return this.#connection.getStats();
	}

	hasPicture(): Promise<boolean> {
		return Promise.resolve(this.#hasUnit);
	}

	/** Asks for one, at most a few times a second. */
	requestKeyframe(): void {
		const nowMs = performance.now();
		if (this.#mediaSsrc === undefined || nowMs - this.#keyframeAskedAtMs < KEYFRAME_INTERVAL_MS) {
			return;
		}
		this.#keyframeAskedAtMs = nowMs;
		this.#receiver?.sendRtcpPLI(this.#mediaSsrc).catch(() => undefined);
	}

	close(): void {
		this.#isClosed = true;
		this.#restart.close();
		this.#connection.close().catch(() => undefined);
	}

	#follow(track: MediaStreamTrack): void {
		const units = new Map<NodeCodec, AccessUnits<RtpPacket>>();
		const unitsOf = (codec: NodeCodec): AccessUnits<RtpPacket> => {
			const known = units.get(codec) ?? new AccessUnits<RtpPacket>(codec, {
				onUnit: ({ rtpTimestamp, packets, isKeyframe }) => {
					const { data } = dePacketizeRtpPackets(codec === 'h264' ? 'MPEG4/ISO/AVC' : 'VP8', [...packets]);
					this.#hasUnit = true;
					this.#onUnit({ codec, data, isKeyframe, rtpTimestamp });
				},
				onLoss: () => this.requestKeyframe(),
			});
			units.set(codec, known);
			return known;
		};
		track.onReceiveRtp.subscribe((packet) => {
			this.#mediaSsrc = packet.header.ssrc;
			unitsOf(track.codec?.name.toLowerCase() === 'vp8' ? 'vp8' : 'h264').add(packet);
		});
	}

	#readTelemetry(channel: RTCDataChannel): void {
		channel.onMessage.subscribe((data) => {
			try {
				this.#events.onFrameMeta(FRAME_META.parse(JSON.parse(data.toString())));
			} catch (error) {
				console.warn('turbocast: a telemetry record was not understood.', error);
			}
		});
	}
}
