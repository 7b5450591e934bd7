/** WebRTC by werift: answers offers and makes some of its own; makes viewers. */
import { RTCPeerConnection, RTCRtpCodecParameters, useAbsSendTime, useSdesMid, useTransportWideCC, RTCRtpHeaderExtensionParameters } from 'werift';
import type { VideoCodec } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { answerOffer } from './answer.js';
import { iceServersOf } from './ice-servers.js';
import { readAnswer, readOffer } from './offer.js';
import { loopbackIfAlone, ownAddresses } from './own-addresses.js';
import { repairCompoundParsing } from './rtcp-repair.js';
import type { IceServerAddress, OutgoingOffer, Transport, ViewerOffer } from './transport.js';
import { DEFAULT_SILENCE_MS } from './way-watch.js';
import { WebRtcViewer, type ViewerParts } from './webrtc-viewer.js';
import { openSegmentation } from './segmentation.js';
import type { SegmentSender } from './segment-sender.js';
import { CAPTURE_TIME_URI, PLAYOUT_DELAY_URI } from './rtp-writer.js';
import { sendAtOnce, type TogetherOptions } from './udp-way.js';

export type WebRtcOptions = {
	/** UDP ports to receive on, both included; any free ones when left out. */
	readonly portRange?: readonly [number, number] | undefined;
	/** Addresses at which viewers reach this host besides those of its interfaces: that of a NAT in front of it, or 127.0.0.1. */
	readonly announceAddresses?: readonly string[];
	/** STUN and TURN servers that this side uses too. */
	readonly iceServers?: readonly IceServerAddress[];
	/** Key frames are asked for at most once a frame. */
	readonly fps: number;
	/** The most that the video of one viewer ever takes, bits a second. Default 4 million. */
	readonly mostBps?: number;
	readonly log: Log;
	readonly clock: Clock;
	/** 0 (included) to 1 (excluded). Default `Math.random`. */
	readonly random?: () => number;
	/** Whether the packets of a picture are sent together where the machine can. Default true. */
	readonly segmentation?: boolean;
	/** For how long nothing may come from whoever was offered the video, before the way to it counts as gone. */
	readonly silenceMs?: number;
	/** Those of this machine, whenever they are asked for. */
	readonly ownAddresses?: () => readonly string[];
	/** Told each connection when its offer has been answered and before anything passes: a simulated link can be put in between. */
	readonly onConnection?: (connection: RTCPeerConnection) => void;
};

/** A STUN server that is silent must not delay the answer by more than this. */
const STUN_GATHER_TIMEOUT_SECONDS = 1;
const DEFAULT_MOST_BPS = 4_000_000;
const ANSWER_TIMEOUT_MS = 10_000;
/** Largest message that a viewer may send on a data channel; nothing is expected. */
const MAX_DATA_MESSAGE_BYTES = 16_384;

/** Formats by codec; the offer's numbers and parameters replace these. `readOffer` has left one codec in it. */
const CODECS: { readonly [codec in VideoCodec]: RTCRtpCodecParameters[] } = {
	h264: [
		new RTCRtpCodecParameters({ mimeType: 'video/H264', clockRate: 90_000, payloadType: 96 }),
		new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 97, parameters: 'apt=96' }),
	],
	vp8: [
		new RTCRtpCodecParameters({ mimeType: 'video/VP8', clockRate: 90_000, payloadType: 96 }),
		new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 97, parameters: 'apt=96' }),
	],
};

const FEEDBACK = [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }, { type: 'ccm', parameter: 'fir' }, { type: 'goog-remb' }, { type: 'transport-cc' }];

/** What is offered, best first: what is encoded is constrained baseline in packetization mode 1 (RFC 6184 section 8.1). */
const OFFERED: RTCRtpCodecParameters[] = [
	new RTCRtpCodecParameters({ mimeType: 'video/H264', clockRate: 90_000, payloadType: 96, rtcpFeedback: FEEDBACK, parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' }),
	new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 97, parameters: 'apt=96' }),
	new RTCRtpCodecParameters({ mimeType: 'video/VP8', clockRate: 90_000, payloadType: 98, rtcpFeedback: FEEDBACK }),
	new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: 99, parameters: 'apt=98' }),
];

const openConnection = (codecs: RTCRtpCodecParameters[], options: WebRtcOptions): RTCPeerConnection =>
	new RTCPeerConnection({
		codecs: { audio: [], video: codecs },
		headerExtensions: {
			audio: [],
			video: [useSdesMid(), useAbsSendTime(), useTransportWideCC(), ...[PLAYOUT_DELAY_URI, CAPTURE_TIME_URI].map((uri) => new RTCRtpHeaderExtensionParameters({ uri }))],
		},
		iceServers: iceServersOf(options.iceServers ?? []),
		iceStunGatherTimeout: STUN_GATHER_TIMEOUT_SECONDS,
		iceAdditionalHostAddresses: [...(options.announceAddresses ?? []), ...loopbackIfAlone()],
		// The library's passive TCP failed in 3 of 7 attempts where it was measured.
		iceUseTcp: false,
		bundlePolicy: 'max-bundle',
		maxMessageSize: MAX_DATA_MESSAGE_BYTES,
		...(options.portRange === undefined ? {} : { icePortRange: [options.portRange[0], options.portRange[1]] }),
	});

/** Rejects with `error` when `work` takes longer than `limitMs`. */
const within = async <T>(work: Promise<T>, limitMs: number, clock: Clock, error: () => Error): Promise<T> => {
	const stop = new AbortController();
	const late = clock.sleep(limitMs, stop.signal).then(() => {
		throw error();
	});
	late.catch(() => undefined);
	try {
		return await Promise.race([work, late]);
	} finally {
		stop.abort();
	}
};

export const createWebRtcTransport = (options: WebRtcOptions): Transport => {
	repairCompoundParsing();
	const { log, clock, random = Math.random, mostBps = DEFAULT_MOST_BPS, segmentation = true } = options;
	const viewers = new Set<WebRtcViewer>();
	/** Of viewers that are gone. */
	const gone = { sent: 0, resent: 0, lost: 0 };
	let isClosed = false;
	let sender: SegmentSender | undefined;
	if (segmentation) {
		void openSegmentation(clock).then((found) => {
			sender = found.kind === 'used' ? found.sender : undefined;
			log.info({ segmentation: found.kind, ...(found.kind === 'used' ? {} : { why: found.why }) }, 'UDP segmentation tried.');
		});
	}
	const together: TogetherOptions = {
		sender: () => sender,
		onRefused: (errno) => log.warn({ errno }, 'The network device takes no UDP packets together; they are sent one by one.'),
	};

	/** What is to be done to a connection before anything passes. */
	const prepare = (connection: RTCPeerConnection): void => {
		for (const { connection: ice } of connection.iceTransports) {
			sendAtOnce(ice, together);
		}
		options.onConnection?.(connection);
	};

	const addViewer = async (parts: Pick<ViewerParts, 'connection' | 'sender' | 'codec' | 'offer' | 'answerSdp'>): Promise<WebRtcViewer> => {
		const viewer = new WebRtcViewer({
			...parts, frameIntervalMs: 1000 / options.fps, mostBps, random, log, clock, iceServers: options.iceServers ?? [],
			way: { silenceMs: options.silenceMs ?? DEFAULT_SILENCE_MS, ownAddresses: options.ownAddresses ?? ownAddresses },
			onClosed: (closed) => {
				viewers.delete(closed);
				gone.sent += closed.packets.sent;
				gone.resent += closed.packets.resent;
				gone.lost += closed.packets.lost;
			},
		});
		viewers.add(viewer);
		if (isClosed) {
			await viewer.close('the server is shutting down');
		}
		return viewer;
	};

	const gathered = <T>(work: Promise<T>): Promise<T> => {
		work.catch(() => undefined);
		return within(work, ANSWER_TIMEOUT_MS, clock, () =>
			new TurbocastError('transport_failed', 'Gathering network addresses took too long; check the STUN and TURN servers of the configuration.'));
	};

	const assertOpen = (): void => {
		if (isClosed) {
			throw new TurbocastError('draining', 'The server is shutting down; offer again later.');
		}
	};

	const offer = async (iceServers: readonly IceServerAddress[]): Promise<OutgoingOffer> => {
		assertOpen();
		const connection = openConnection(OFFERED, { ...options, iceServers: [...(options.iceServers ?? []), ...iceServers] });
		const { sender } = connection.addTransceiver('video', { direction: 'sendonly' });
		let wasAnswered = false;
		const close = async (): Promise<void> => {
			if (!wasAnswered) {
				await connection.close().catch(() => undefined);
			}
		};
		try {
			await gathered(connection.createOffer().then((description) => connection.setLocalDescription(description)));
		} catch (error) {
			await close();
			throw error;
		}
		return {
			offerSdp: connection.localDescription?.sdp ?? '',
			answered: async (answerSdp) => {
				const answer = readAnswer(answerSdp);
				try {
					await connection.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
				} catch (error) {
					throw new TurbocastError('invalid_sdp', `The answer does not fit the offer (${error instanceof Error ? error.message : String(error)}).`, { param: 'sdp', cause: error });
				}
				wasAnswered = true;
				prepare(connection);
				return addViewer({ connection, sender, codec: answer.codec, offer: undefined, answerSdp: answer.sdp });
			},
			close,
		};
	};

	const accept = async (offerSdp: string): Promise<ViewerOffer> => {
		assertOpen();
		const read = readOffer(offerSdp);
		const connection = openConnection(CODECS[read.codec], options);
		const { sender } = connection.addTransceiver('video', { direction: 'sendonly' });
		try {
			const answerSdp = await gathered(answerOffer(connection, read.sdp));
			prepare(connection);
			const viewer = await addViewer({ connection, sender, codec: read.codec, offer: read });
			log.info({ viewer: viewer.id, codec: read.codec }, 'viewer answered');
			return { viewer, answerSdp };
		} catch (error) {
			await connection.close().catch(() => undefined);
			throw error;
		}
	};

	return {
		accept,
		offer,
		counts: () => {
			const total = { connected: 0, limited: 0, ...gone };
			for (const { state, packets, bandwidthBps } of viewers) {
				total.limited += state.kind === 'connected' && bandwidthBps !== undefined ? 1 : 0;
				total.connected += state.kind === 'connected' ? 1 : 0;
				total.sent += packets.sent;
				total.resent += packets.resent;
				total.lost += packets.lost;
			}
			return total;
		},
		close: async () => {
			isClosed = true;
			await Promise.all([...viewers].map((viewer) => viewer.close('the server is shutting down')));
		},
	};
};
