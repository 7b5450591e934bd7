/** One viewer over one peer connection: state, frames out, records out, key-frame requests in. */
import { randomUUID } from 'node:crypto';
import type { RTCDataChannel, RTCPeerConnection, RTCRtpSender } from 'werift';
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { TELEMETRY_LABEL } from '../protocol/limits.js';
import type { FrameMeta } from '../protocol/messages.js';
import { answerOffer } from './answer.js';
import { passOverRepeatedVerify } from './hello-repair.js';
import { iceServersOf } from './ice-servers.js';
import { followNomination } from './nomination.js';
import { isUsableCandidate, MAX_CANDIDATES, readOffer, type Offer } from './offer.js';
import { fragmentOf, offerAgain, readFragment } from './sdp-fragment.js';
import type { IceCandidate, IceServerAddress, OfferedViewer, RestartOffer, ViewerState } from './transport.js';
import { watchWay, type WayWatchOptions } from './way-watch.js';
import { VideoSender } from './webrtc-sender.js';

/** From answer to connected. ICE gives up earlier when every pair has failed; a peer that never says anything is ended here. */
const CONNECT_TIMEOUT_MS = 30_000;
/** A connection that was up and whose every pair has failed waits for an ICE restart: the network of the peer may have changed. */
const RESTART_WAIT_MS = 10_000;
/** Some 600 kB: the operating system has stopped taking packets, so a frame sent now would be shown late or never. */
const MOST_WAITING_PACKETS = 512;
/** Records are worth nothing once the frame is shown: more than a second of them waiting means nobody reads. */
const MOST_TELEMETRY_BYTES = 16_384;

/** By the time that a full way has emptied to this, frames of the lower rate are under way. */
const MOST_BACKLOG_FOR_KEYFRAME_MS = 100;

const texts = new WeakMap<FrameMeta, string>();

/** Written once, however many viewers get the record. */
const textOf = (meta: FrameMeta): string => {
	const known = texts.get(meta) ?? JSON.stringify(meta);
	texts.set(meta, known);
	return known;
};

export type ViewerParts = {
	readonly connection: RTCPeerConnection;
	readonly sender: RTCRtpSender;
	readonly codec: VideoCodec;
	/** What it was negotiated with; `undefined` when it was offered from here. */
	readonly offer: Pick<Offer, 'peer' | 'usernameFragment' | 'mid' | 'mids' | 'hasCandidates'> | undefined;
	/** What was answered to the offer from here. */
	readonly answerSdp?: string;
	/** Those of the configuration. */
	readonly iceServers: readonly IceServerAddress[];
	readonly way: Pick<WayWatchOptions, 'silenceMs' | 'ownAddresses'>;
	/** Key frames are asked for at most this often. */
	readonly frameIntervalMs: number;
	/** The most that the video ever takes. */
	readonly mostBps: number;
	readonly random: () => number;
	readonly log: Log;
	readonly clock: Clock;
	readonly onClosed: (viewer: WebRtcViewer) => void;
};

export class WebRtcViewer implements OfferedViewer {
	readonly id = randomUUID();
	readonly codec: VideoCodec;
	readonly #parts: ViewerParts;
	readonly #video: VideoSender;
	readonly #stateListeners = new Set<(state: ViewerState) => void>();
	readonly #keyframeListeners = new Set<() => void>();
	/** Ends the wait for a connection, or for a restart. */
	#waiting = new AbortController();
	readonly #life = new AbortController();
	#answerSdp: string | undefined;
	#remoteFragment: string | undefined;
	/** Of the peer, such as can be tried. */
	#hasCandidates = true;
	#isRestarting = false;
	#state: ViewerState = { kind: 'connecting' };
	#telemetry: RTCDataChannel | undefined;
	#needsKeyframe = true;
	#keyframeAskedAtMs = Number.NEGATIVE_INFINITY;
	/** Somebody needed a key frame before anybody listened. */
	#isKeyframeOwed = false;
	/** One is needed, and would only make a full way fuller: asked for when it has emptied. */
	#isKeyframePostponed = false;
	#candidates = 0;
	#closing: Promise<void> | undefined;

	constructor(parts: ViewerParts) {
		this.#parts = parts;
		this.codec = parts.codec;
		this.#remoteFragment = parts.offer?.usernameFragment;
		this.#hasCandidates = parts.offer?.hasCandidates ?? true;
		this.#answerSdp = parts.answerSdp;
		const { clock, mostBps, random } = parts;
		this.#video = new VideoSender(parts.sender, { clock, mostBps, random, events: { onPictureLost: () => this.#askForKeyframe() } });
		followNomination(parts.sender.dtlsTransport.iceTransport);
		passOverRepeatedVerify(parts.sender.dtlsTransport);
		parts.connection.connectionStateChange.subscribe((state) => this.#onConnectionState(state));
		// A browser that closes its connection says so in DTLS; the library's connection state would follow 30 s later.
		parts.sender.dtlsTransport.onStateChange.subscribe((state) => {
			if (state === 'closed') {
				void this.close('the viewer closed the connection');
			}
		});
		parts.connection.onDataChannel.subscribe((channel) => this.#onDataChannel(channel));
		this.#closeAfter(CONNECT_TIMEOUT_MS, `no connection within ${CONNECT_TIMEOUT_MS / 1000} s`);
		if (parts.answerSdp !== undefined) {
			// Of the others, the peer restarts ICE, and notices by itself.
			watchWay(parts.sender.dtlsTransport.iceTransport, {
				...parts.way, clock, signal: this.#life.signal,
				onLost: (reason) => this.#onWay('disconnected', reason), onFound: () => this.#onWay('connected'),
			});
		}
	}

	/** Unless it is connected before. */
	#closeAfter(waitMs: number, reason: string): void {
		this.#waiting.abort();
		this.#waiting = new AbortController();
		this.#parts.clock.sleep(waitMs, this.#waiting.signal).then(() => this.close(reason), () => undefined);
	}

	get state(): ViewerState {
		return this.#state;
	}

	/** So far: sent for the first time, sent again, and reported lost by the receiver. */
	get packets(): { readonly sent: number; readonly resent: number; readonly lost: number } {
		return { sent: this.#video.packets, resent: this.#video.resent, lost: this.#video.lost };
	}

	get bandwidthBps(): number | undefined {
		return this.#video.bandwidthBps;
	}

	get backlogMs(): number {
		return this.#video.backlogMs;
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
		if (this.#isKeyframePostponed && this.backlogMs < MOST_BACKLOG_FOR_KEYFRAME_MS) {
			this.#askForKeyframe();
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
			channel.send(textOf(meta));
		}
	}

	async addCandidate(candidate: IceCandidate | null): Promise<void> {
		if (this.#closing !== undefined) {
			return;
		}
		// Some browsers end the candidates with an empty string instead of null.
		if (candidate === null || candidate.candidate === '') {
			// The library would give up at once where it has nothing to try, though the peer may reach this side.
			if (this.#hasCandidates) {
				await this.#apply(null);
			}
			return;
		}
		this.#candidates += 1;
		const isOfBefore = typeof candidate.username_fragment === 'string' && this.#remoteFragment !== undefined && candidate.username_fragment !== this.#remoteFragment;
		if (this.#candidates > MAX_CANDIDATES || isOfBefore || !isUsableCandidate(candidate.candidate)) {
			return;
		}
		this.#hasCandidates = true;
		await this.#apply({
			candidate: candidate.candidate,
			...this.#sectionOf(candidate),
			...(typeof candidate.username_fragment === 'string' ? { usernameFragment: candidate.username_fragment } : {}),
		});
	}

	continues(offerSdp: string): boolean {
		const { offer } = this.#parts;
		if (offer === undefined || this.#state.kind === 'connecting' || this.#state.kind === 'closed') {
			return false;
		}
		const { peer, codec } = readOffer(offerSdp);
		return peer === offer.peer && codec === this.codec;
	}

	async restart(offerSdp: string): Promise<string> {
		const { connection, log } = this.#parts;
		if (this.#closing !== undefined) {
			throw new TurbocastError('invalid_state', 'This video connection is closed; offer another one.');
		}
		const offer = readOffer(offerSdp);
		if (!this.continues(offerSdp)) {
			throw new TurbocastError('invalid_sdp', 'The offer is not one of the connection that it would restart.', { param: 'sdp' });
		}
		this.#isRestarting = true;
		const answerSdp = await answerOffer(connection, offer.sdp).catch((error: unknown) => {
			this.#isRestarting = false;
			throw error;
		});
		if (offer.usernameFragment === this.#remoteFragment) {
			// The ICE session of before: nothing changes.
			this.#isRestarting = false;
			return answerSdp;
		}
		this.#remoteFragment = offer.usernameFragment;
		this.#hasCandidates = offer.hasCandidates;
		this.#candidates = 0;
		log.info({ viewer: this.id }, 'viewer restarts ICE');
		this.#awaitRestart();
		void this.#check();
		return answerSdp;
	}

	async renew(iceServers: readonly IceServerAddress[]): Promise<RestartOffer> {
		const { connection, log, iceServers: own } = this.#parts;
		const answerSdp = this.#answerSdp;
		if (this.#closing !== undefined || answerSdp === undefined) {
			throw new TurbocastError('invalid_state', 'This video connection is closed, or its peer restarts it.');
		}
		log.info({ viewer: this.id }, 'ICE is restarted');
		this.#isRestarting = true;
		this.#awaitRestart();
		const offer = await connection.createOffer({ iceRestart: true });
		// Only now: servers count for what is gathered from the restart on.
		connection.setConfiguration({ iceServers: iceServersOf([...own, ...iceServers]) });
		await connection.setLocalDescription(offer);
		return {
			fragment: fragmentOf(connection.localDescription?.sdp ?? ''),
			answered: async (fragment) => {
				// What is not of ICE stays as it was answered (RFC 9725 section 4.3.3).
				const sdp = offerAgain(answerSdp, readFragment(fragment));
				try {
					await connection.setRemoteDescription({ type: 'answer', sdp });
				} catch (error) {
					throw new TurbocastError('invalid_sdp', `The answer to the restart does not fit (${error instanceof Error ? error.message : String(error)}).`, { cause: error });
				}
				this.#answerSdp = sdp;
				await this.#check();
				if (this.#state.kind !== 'connected') {
					await this.close('no network path was found after a restart');
				}
			},
		};
	}

	#awaitRestart(): void {
		this.#setState({ kind: 'disconnected' });
		this.#closeAfter(CONNECT_TIMEOUT_MS, `no connection within ${CONNECT_TIMEOUT_MS / 1000} s of a restart`);
	}

	/** The library begins the checks of a first negotiation only, and says at once that a second one is connected. */
	#check(): Promise<void> {
		const checked = (state: 'connected' | 'failed') => (): void => {
			this.#isRestarting = false;
			this.#onConnectionState(state);
		};
		return this.#parts.sender.dtlsTransport.iceTransport.start().then(checked('connected'), checked('failed'));
	}

	#onWay(state: 'connected' | 'disconnected', reason?: string): void {
		if (this.#isRestarting || this.#state.kind === state || this.#parts.connection.connectionState !== 'connected') {
			return;
		}
		if (reason !== undefined) {
			this.#parts.log.info({ viewer: this.id, reason }, 'the way to a viewer is gone');
		}
		this.#onConnectionState(state);
	}

	async #apply(candidate: Parameters<RTCPeerConnection['addIceCandidate']>[0]): Promise<void> {
		try {
			await this.#parts.connection.addIceCandidate(candidate);
		} catch (error) {
			throw new TurbocastError('invalid_request', `The candidate does not fit the offer (${error instanceof Error ? error.message : String(error)}); send it as onicecandidate gave it.`, { param: 'candidate', cause: error });
		}
	}

	/** Sections of one bundle share a way; that of the video is never refused. */
	#sectionOf({ sdp_mid: mid, sdp_mline_index: index }: IceCandidate): { sdpMid?: string; sdpMLineIndex?: number } {
		const { mid: videoMid, mids = [] } = this.#parts.offer ?? {};
		if (videoMid !== undefined && (typeof mid === 'string' ? mids.includes(mid) : typeof index === 'number' && index < mids.length)) {
			return { sdpMid: videoMid };
		}
		return { ...(typeof mid === 'string' ? { sdpMid: mid } : {}), ...(typeof index === 'number' ? { sdpMLineIndex: index } : {}) };
	}

	close(reason: string): Promise<void> {
		this.#closing ??= this.#close(reason);
		return this.#closing;
	}

	async #close(reason: string): Promise<void> {
		this.#waiting.abort();
		this.#life.abort(new TurbocastError('invalid_state', reason));
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
		if (this.#closing !== undefined || (this.#isRestarting && state !== 'closed')) {
			return;
		}
		switch (state) {
			case 'connected':
				this.#waiting.abort();
				this.#needsKeyframe = true;
				this.#setState({ kind: 'connected' });
				// What was asked for before, and what is thought to be under way, went another way.
				this.#askForKeyframe({ isFresh: true });
				break;
			case 'disconnected':
				this.#setState({ kind: 'disconnected' });
				break;
			case 'failed':
				if (this.#state.kind === 'connecting') {
					void this.close('no network path to the viewer was found');
				} else {
					this.#setState({ kind: 'disconnected' });
					this.#closeAfter(RESTART_WAIT_MS, 'the connection was lost');
				}
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
	#askForKeyframe({ isFresh = false } = {}): void {
		const nowMs = this.#parts.clock.nowMs();
		this.#isKeyframePostponed = !isFresh && this.backlogMs >= MOST_BACKLOG_FOR_KEYFRAME_MS;
		if (this.#isKeyframePostponed || this.#closing !== undefined || (!isFresh && nowMs - this.#keyframeAskedAtMs < this.#parts.frameIntervalMs)) {
			return;
		}
		this.#keyframeAskedAtMs = nowMs;
		this.#isKeyframeOwed = this.#keyframeListeners.size === 0;
		for (const listener of [...this.#keyframeListeners]) {
			listener();
		}
	}
}
