/** The video connection of a browser. */
import { TurbocastError } from '../src/protocol/errors.js';
import { TELEMETRY_LABEL } from '../src/protocol/limits.js';
import { FRAME_META, type ServerMessages } from '../src/protocol/messages.js';
import { IceRestart } from './ice-restart.js';
import type { Candidate, IceServers, VideoConnection, VideoEvents } from './platform.js';

const candidateOf = (candidate: RTCIceCandidate | null): Candidate =>
	candidate === null || candidate.candidate === ''
		? null
		: { candidate: candidate.candidate, sdp_mid: candidate.sdpMid, sdp_mline_index: candidate.sdpMLineIndex, username_fragment: candidate.usernameFragment };

/** https://wicg.github.io/netinfo/, in some browsers. */
const networkInformation = (): (EventTarget & { readonly type?: string }) | undefined =>
	(navigator as Navigator & { readonly connection?: EventTarget & { readonly type?: string } }).connection;

export class VideoReceiver implements VideoConnection {
	readonly receiver: RTCRtpReceiver;
	readonly track: MediaStreamTrack;
	readonly #connection: RTCPeerConnection;
	readonly #events: VideoEvents;
	readonly #restart: IceRestart;
	#network = networkInformation()?.type;
	/** Candidates of the server that came before its answer. */
	#early: ServerMessages['webrtc.candidate']['candidate'][] | undefined = [];

	constructor(iceServers: IceServers, events: VideoEvents) {
		this.#events = events;
		const connection = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle' });
		this.#connection = connection;
		const { receiver } = connection.addTransceiver('video', { direction: 'recvonly' });
		// The server paces; a buffer on this side would only add delay.
		if ('jitterBufferTarget' in receiver) {
			receiver.jitterBufferTarget = 0;
		}
		this.receiver = receiver;
		this.track = receiver.track;
		// Late records are worth nothing: unordered, never repeated.
		const telemetry = connection.createDataChannel(TELEMETRY_LABEL, { ordered: false, maxRetransmits: 0 });
		telemetry.addEventListener('message', ({ data }) => this.#readMeta(data));
		connection.addEventListener('icecandidate', ({ candidate }) => events.onCandidate(candidateOf(candidate)));
		const restart = new IceRestart({
			untilHeard: (withinMs) => events.untilHeard(withinMs),
			restart: () => {
				connection.restartIce();
				return this.offer();
			},
			isUp: () => connection.connectionState === 'connected',
			onFailed: () => events.onFailed(),
		});
		this.#restart = restart;
		connection.addEventListener('connectionstatechange', () => {
			switch (connection.connectionState) {
				case 'connected':
					restart.connected();
					return events.onConnected();
				case 'disconnected':
					events.onDisturbed();
					return restart.troubled();
				case 'failed':
					return restart.failed();
				default:
			}
		});
		globalThis.addEventListener('online', this.#onNetwork);
		networkInformation()?.addEventListener('change', this.#onNetwork);
	}

	/** Of Chromium on phones: the way out is another one before anything is noticed on the old one. Rates, which it tells too, are no reason. */
	readonly #onNetwork = ({ type }: Event): void => {
		const network = networkInformation()?.type;
		if (type === 'online' || network !== this.#network) {
			this.#restart.troubled();
		}
		this.#network = network;
	};

	/** Makes the offer and hands it over. */
	async offer(): Promise<void> {
		await this.#connection.setLocalDescription();
		const sdp = this.#connection.localDescription?.sdp;
		if (sdp === undefined) {
			throw new TurbocastError('transport_failed', 'This browser made no offer for a video connection.');
		}
		this.#events.onOffer(sdp);
	}

	async answer(sdp: string): Promise<void> {
		await this.#connection.setRemoteDescription({ type: 'answer', sdp });
		const early = this.#early ?? [];
		this.#early = undefined;
		await Promise.all(early.map((candidate) => this.addCandidate(candidate)));
	}

	async addCandidate(candidate: ServerMessages['webrtc.candidate']['candidate']): Promise<void> {
		if (this.#early !== undefined) {
			this.#early.push(candidate);
			return;
		}
		await this.#connection.addIceCandidate(candidate === null ? null : {
			candidate: candidate.candidate, sdpMid: candidate.sdp_mid ?? null, sdpMLineIndex: candidate.sdp_mline_index ?? null,
			usernameFragment: candidate.username_fragment ?? null,
		});
	}

	getStats(): Promise<RTCStatsReport> {
		return this.#connection.getStats();
	}

	async hasPicture(): Promise<boolean> {
		const report = await this.#connection.getStats();
		return [...report.values() as IterableIterator<RTCInboundRtpStreamStats>].some((entry) => entry.type === 'inbound-rtp' && (entry.framesDecoded ?? 0) > 0);
	}

	/** Idempotent. */
	close(): void {
		this.#restart.close();
		globalThis.removeEventListener('online', this.#onNetwork);
		networkInformation()?.removeEventListener('change', this.#onNetwork);
		this.#connection.close();
	}

	#readMeta(data: unknown): void {
		try {
			this.#events.onFrameMeta(FRAME_META.parse(JSON.parse(String(data))));
		} catch (error) {
			console.warn('turbocast: a telemetry record was not understood.', error);
		}
	}
}
