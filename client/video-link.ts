/** The video connections of one session, one after the other: one that fails is made anew, a few times. */
import { TurbocastError } from '../src/protocol/errors.js';
import type { ClientMessage, FrameMeta } from '../src/protocol/messages.js';
import type { Candidate, IceServers, VideoConnection, VideoSink } from './platform.js';

/** In a row: then no other attempt will do either. */
const MOST_FAILURES = 4;

export type VideoLinkEvents = {
	readonly send: (message: ClientMessage) => void;
	readonly onConnected: () => void;
	readonly onFrameMeta: (meta: FrameMeta) => void;
	/** No attempt came to anything. */
	readonly onFailed: (error: TurbocastError) => void;
};

export class VideoLink {
	readonly #sink: VideoSink;
	readonly #events: VideoLinkEvents;
	#connection: VideoConnection | undefined;
	#iceServers: IceServers = [];
	#failures = 0;
	/** While there is no control socket, an offer would reach nobody. */
	#isOpen = false;

	constructor(sink: VideoSink, events: VideoLinkEvents) {
		this.#sink = sink;
		this.#events = events;
	}

	/** Over a control socket that has just been greeted. */
	open(iceServers: IceServers): void {
		this.#isOpen = true;
		this.#iceServers = iceServers;
		this.#offer();
	}

	/** The control socket is gone: what still comes is welcome, but nothing can be made anew. */
	suspend(): void {
		this.#isOpen = false;
	}

	answer(sdp: string): void {
		this.#connection?.answer(sdp).catch((error: unknown) => this.#failed(error));
	}

	addCandidate(candidate: Candidate): void {
		// One candidate of several: the others may still do.
		this.#connection?.addCandidate(candidate).catch((error: unknown) => console.warn('turbocast: a candidate was refused.', error));
	}

	async stats(): Promise<RTCStatsReport | undefined> {
		return this.#connection?.getStats();
	}

	/** Idempotent. */
	close(): void {
		this.#isOpen = false;
		this.#connection?.close();
		this.#sink.close();
	}

	#offer(): void {
		this.#connection?.close();
		const whenPresent = <A extends unknown[]>(action: (...args: A) => void) => (...args: A): void => {
			if (connection === this.#connection) {
				action(...args);
			}
		};
		const connection: VideoConnection = this.#sink.open(this.#iceServers, {
			onOffer: whenPresent((sdp) => this.#events.send({ type: 'webrtc.offer', sdp })),
			onCandidate: whenPresent((candidate) => this.#events.send({ type: 'webrtc.candidate', candidate })),
			onConnected: whenPresent(() => {
				this.#failures = 0;
				this.#events.onConnected();
			}),
			onFailed: whenPresent((error) => this.#failed(error)),
			onFrameMeta: (meta) => this.#events.onFrameMeta(meta),
		});
		this.#connection = connection;
		connection.offer().catch(whenPresent((error: unknown) => this.#failed(error)));
	}

	#failed(cause: unknown): void {
		if (!this.#isOpen) {
			return;
		}
		this.#failures += 1;
		if (this.#failures < MOST_FAILURES) {
			this.#offer();
		} else {
			this.#events.onFailed(new TurbocastError('transport_failed', 'The video connection could not be made; a firewall may block UDP between this machine and the server.', { cause }));
		}
	}
}
