/** One viewer over one peer connection: state, frames out, records out, key-frame requests in. */
import { randomUUID } from 'node:crypto';
import type { RTCDataChannel, RTCPeerConnection, RTCRtpSender } from 'werift';
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { TELEMETRY_LABEL } from '../protocol/limits.js';
import type { FrameMeta } from '../protocol/messages.js';
import { isUsableCandidate, MAX_CANDIDATES } from './offer.js';
import type { IceCandidate, Viewer, ViewerState } from './transport.js';
import { VideoSender } from './webrtc-sender.js';

/** From answer to connected. ICE gives up earlier when every pair has failed; a peer that never says anything is ended here. */
const CONNECT_TIMEOUT_MS = 30_000;
/** Some 600 kB: the operating system has stopped taking packets, so a frame sent now would be shown late or never. */
const MOST_WAITING_PACKETS = 512;
/** Records are worth nothing once the frame is shown: more than a second of them waiting means nobody reads. */
const MOST_TELEMETRY_BYTES = 16_384;

export type ViewerParts = {
	readonly connection: RTCPeerConnection;
	readonly sender: RTCRtpSender;
	readonly codec: VideoCodec;
	/** Key frames are asked for at most this often. */
	readonly frameIntervalMs: number;
	readonly log: Log;
	readonly clock: Clock;
	readonly onClosed: (viewer: WebRtcViewer) => void;
};

export class WebRtcViewer implements Viewer {
	readonly id = randomUUID();
	readonly codec: VideoCodec;
	readonly #parts: ViewerParts;
	readonly #video: VideoSender;
	readonly #stateListeners = new Set<(state: ViewerState) => void>();
	readonly #keyframeListeners = new Set<() => void>();
	readonly #connecting = new AbortController();
	#state: ViewerState = { kind: 'connecting' };
	#telemetry: RTCDataChannel | undefined;
	#needsKeyframe = true;
	#keyframeAskedAtMs = Number.NEGATIVE_INFINITY;
	/** Somebody needed a key frame before anybody listened. */
	#isKeyframeOwed = false;
	#candidates = 0;
	#closing: Promise<void> | undefined;

	constructor(parts: ViewerParts) {
		this.#parts = parts;
		this.codec = parts.codec;
		this.#video = new VideoSender(parts.sender, parts.codec, parts.clock, { onPictureLost: () => this.#askForKeyframe() });
		parts.connection.connectionStateChange.subscribe((state) => this.#onConnectionState(state));
		// A browser that closes its connection says so in DTLS; the library's connection state would follow 30 s later.
		parts.sender.dtlsTransport.onStateChange.subscribe((state) => {
			if (state === 'closed') {
				void this.close('the viewer closed the connection');
			}
		});
		parts.connection.onDataChannel.subscribe((channel) => this.#onDataChannel(channel));
		parts.clock.sleep(CONNECT_TIMEOUT_MS, this.#connecting.signal).then(
			() => this.close(`no connection within ${CONNECT_TIMEOUT_MS / 1000} s`),
			() => undefined,
		);
	}

	get state(): ViewerState {
		return this.#state;
	}

	/** So far: sent for the first time, sent again, and reported lost by the receiver. */
	get packets(): { readonly sent: number; readonly resent: number; readonly lost: number } {
		return { sent: this.#video.packets, resent: this.#video.resent, lost: this.#video.lost };
	}

	onState(listener: (state: ViewerState) => void): () => void {
		this.#stateListeners.add(listener);
		return () => this.#stateListeners.delete(listener);
	}

	onKeyframeNeeded(listener: () => void): () => void {
		this.#keyframeListeners.add(listener);
		if (this.#isKeyframeOwed) {
			this.#isKeyframeOwed = false;
			listener();
		}
		return () => this.#keyframeListeners.delete(listener);
	}

	send(chunk: EncodedChunk): 'sent' | 'dropped' {
		if (chunk.codec !== this.codec) {
			throw new TurbocastError('internal', `This viewer takes ${this.codec}, not ${chunk.codec}.`);
		}
		const isSendable = this.#state.kind === 'connected' && this.#video.waitingPackets < MOST_WAITING_PACKETS && (chunk.isKeyframe || !this.#needsKeyframe);
		this.#needsKeyframe = !isSendable;
		if (!isSendable) {
			return 'dropped';
		}
		this.#video.send(chunk);
		return 'sent';
	}

	sendMeta(meta: FrameMeta): void {
		const channel = this.#telemetry;
		if (channel?.readyState === 'open' && channel.bufferedAmount < MOST_TELEMETRY_BYTES) {
			channel.send(JSON.stringify(meta));
		}
	}

	async addCandidate(candidate: IceCandidate | null): Promise<void> {
		if (this.#closing !== undefined) {
			return;
		}
		// Some browsers end the candidates with an empty string instead of null.
		if (candidate === null || candidate.candidate === '') {
			await this.#apply(null);
			return;
		}
		this.#candidates += 1;
		if (this.#candidates > MAX_CANDIDATES || !isUsableCandidate(candidate.candidate)) {
			return;
		}
		await this.#apply({
			candidate: candidate.candidate,
			...(typeof candidate.sdp_mid === 'string' ? { sdpMid: candidate.sdp_mid } : {}),
			...(typeof candidate.sdp_mline_index === 'number' ? { sdpMLineIndex: candidate.sdp_mline_index } : {}),
			...(typeof candidate.username_fragment === 'string' ? { usernameFragment: candidate.username_fragment } : {}),
		});
	}

	async #apply(candidate: Parameters<RTCPeerConnection['addIceCandidate']>[0]): Promise<void> {
		try {
			await this.#parts.connection.addIceCandidate(candidate);
		} catch (error) {
			throw new TurbocastError('invalid_request', `The candidate does not fit the offer (${error instanceof Error ? error.message : String(error)}); send it as onicecandidate gave it.`, { param: 'candidate', cause: error });
		}
	}

	close(reason: string): Promise<void> {
		this.#closing ??= this.#close(reason);
		return this.#closing;
	}

	async #close(reason: string): Promise<void> {
		this.#connecting.abort();
		this.#setState({ kind: 'closed', reason });
		this.#stateListeners.clear();
		this.#keyframeListeners.clear();
		this.#video.close();
		const { log, connection, onClosed } = this.#parts;
		log.info({ viewer: this.id, reason, packets: this.#video.packets, lost: this.#video.lost, resent: this.#video.resent }, 'viewer closed');
		await connection.close().catch((error: unknown) => log.debug({ viewer: this.id, error: String(error) }, 'closing a connection failed'));
		onClosed(this);
	}

	#onConnectionState(state: RTCPeerConnection['connectionState']): void {
		if (this.#closing !== undefined) {
			return;
		}
		switch (state) {
			case 'connected':
				this.#connecting.abort();
				this.#needsKeyframe = true;
				this.#setState({ kind: 'connected' });
				this.#askForKeyframe();
				break;
			case 'disconnected':
				this.#setState({ kind: 'disconnected' });
				break;
			case 'failed':
				void this.close(this.#state.kind === 'connecting' ? 'no network path to the viewer was found' : 'the connection was lost');
				break;
			case 'closed':
				void this.close('the viewer closed the connection');
				break;
			case 'new':
			case 'connecting':
				break;
		}
	}

	#onDataChannel(channel: RTCDataChannel): void {
		if (channel.label === TELEMETRY_LABEL && this.#telemetry === undefined) {
			this.#telemetry = channel;
		} else {
			channel.close();
		}
	}

	#setState(state: ViewerState): void {
		this.#state = state;
		for (const listener of [...this.#stateListeners]) {
			listener(state);
		}
	}

	/** A browser repeats its request every few hundred milliseconds, and one loss makes several: the first within a frame counts. */
	#askForKeyframe(): void {
		const nowMs = this.#parts.clock.nowMs();
		if (this.#closing !== undefined || nowMs - this.#keyframeAskedAtMs < this.#parts.frameIntervalMs) {
			return;
		}
		this.#keyframeAskedAtMs = nowMs;
		this.#isKeyframeOwed = this.#keyframeListeners.size === 0;
		for (const listener of [...this.#keyframeListeners]) {
			listener();
		}
	}
}
