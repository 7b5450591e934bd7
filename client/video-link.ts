/**
 * The video of one session, by the best way that works: WebRTC, or the control socket where UDP does not come through. While WebRTC is not up
 * within two seconds the socket carries the picture; WebRTC is tried again at growing intervals, and takes over once it has a picture.
 */
import { TurbocastError } from '../src/protocol/errors.js';
import type { ClientMessage, FrameMeta } from '../src/protocol/messages.js';
import type { VideoUnit } from '../src/protocol/video-unit.js';
import type { Candidate, IceServers, SocketVideo, VideoConnection, VideoSink } from './platform.js';
import { FAILED, LOST, NO_WEBRTC, noWebCodecs, SLOW, WANTED, type TransportChoice, type TransportState, type VideoTransport } from './video-transport.js';

/** In a row, with nothing else to fall back to: then no other attempt will do either. */
const MOST_FAILURES = 4;
/** WebRTC connects in 0.5 to 1.2 seconds where it does; a picture is to be there 3.5 seconds after opening. */
const PATIENCE_MS = 2000;
/** WebRTC is tried again after this, then after twice as long, and so on. */
const FIRST_CLIMB_MS = 10_000;
const LONGEST_CLIMB_MS = 300_000;
/** A connection that held for so long was no accident: the next climb begins with the first interval. */
const STEADY_MS = 60_000;
const PICTURE_POLL_MS = 50;
/** `event_id` of `video.open`. */
const OPENING = 'video';

export type VideoLinkEvents = {
	readonly send: (message: ClientMessage) => void;
	readonly onConnected: () => void;
	/** Nothing comes for now. */
	readonly onDisturbed: () => void;
	readonly onFrameMeta: (meta: FrameMeta) => void;
	readonly onTransport: (state: TransportState) => void;
	/** No attempt came to anything. */
	readonly onFailed: (error: TurbocastError) => void;
};

/** `isUp`: its packets can come through. */
type Attempt = { readonly connection: VideoConnection; isUp: boolean };
type Fallback = { readonly transport: Exclude<VideoTransport, 'webrtc'>; readonly video: SocketVideo; readonly reason: string };

export class VideoLink {
	readonly #sink: VideoSink;
	readonly #events: VideoLinkEvents;
	readonly #choice: TransportChoice;
	readonly #hasWebRtc: boolean;
	#iceServers: IceServers = [];
	/** The newest, and the one before it as long as its picture is shown. */
	#attempt: Attempt | undefined;
	#shown: Attempt | undefined;
	#fallback: Fallback | undefined;
	/** Statistics of the attempt that was given up for the socket: it may be closed by the time that somebody asks. */
	#given: Promise<RTCStatsReport> | undefined;
	#isOpeningFallback = false;
	#canFallBack: boolean;
	#state: TransportState = { transport: undefined, reason: undefined };
	#failures = 0;
	#climbs = 0;
	#steadySinceMs = 0;
	#patience: ReturnType<typeof setTimeout> | undefined;
	#climb: ReturnType<typeof setTimeout> | undefined;
	/** Wait for the next word of the server. */
	readonly #listeners = new Set<() => void>();
	/** While there is no control socket, an offer would reach nobody. */
	#isOpen = false;
	/** Over the present control socket. */
	#hasOffered = false;
	#isClosed = false;

	constructor(sink: VideoSink, choice: TransportChoice, hasWebRtc: boolean, events: VideoLinkEvents) {
		this.#sink = sink;
		this.#choice = choice;
		this.#hasWebRtc = hasWebRtc && (choice === 'auto' || choice === 'webrtc');
		this.#canFallBack = choice !== 'webrtc';
		this.#events = events;
		globalThis.addEventListener?.('online', this.#onOnline);
	}

	/** How the picture comes at present. */
	get state(): TransportState {
		return this.#state;
	}

	/** Over a control socket that has just been greeted. */
	open(iceServers: IceServers): void {
		this.#isOpen = true;
		this.#hasOffered = false;
		this.#iceServers = iceServers;
		if (this.#fallback !== undefined) {
			this.#ask(this.#fallback.video);
			this.#planClimb();
		} else if (this.#hasWebRtc) {
			this.#offer();
		} else {
			this.#fallBack(this.#choice === 'auto' ? NO_WEBRTC : WANTED);
		}
	}

	/** The control socket is gone: what still comes is welcome, but nothing can be made anew. */
	suspend(): void {
		this.#isOpen = false;
		this.#rest();
	}

	answer(sdp: string): void {
		this.#attempt?.connection.answer(sdp).catch((error: unknown) => this.#failed(error));
	}

	addCandidate(candidate: Candidate): void {
		// One candidate of several: the others may still do.
		this.#attempt?.connection.addCandidate(candidate).catch((error: unknown) => console.warn('turbocast: a candidate was refused.', error));
	}

	/** The server has opened the video over the socket. */
	opened(): void {
		this.#events.onConnected();
	}

	/** An answer to some message; if to `video.open`, this server has no video over the socket. */
	refused(eventId: string, error: TurbocastError): void {
		if (eventId === OPENING && this.#fallback !== undefined) {
			this.#fallback.video.close();
			this.#fallback = undefined;
			this.#canFallBack = false;
			if (this.#attempt?.isUp === true) {
				return;
			}
			if (this.#hasWebRtc && !this.#hasOffered) {
				// The socket of the offer before is gone, and its answer with it.
				this.#offer();
			} else if (!this.#hasWebRtc || this.#failures > 0) {
				this.#events.onFailed(error);
			}
		}
	}

	/** The server said something, whatever it was. */
	heard(): void {
		this.#listeners.forEach((listener) => listener());
	}

	/** A picture came over the socket. */
	unit(unit: VideoUnit): void {
		this.#events.send({ type: 'video.ack', frame_id: unit.frameId });
		this.#fallback?.video.unit(unit);
	}

	/** Of a frame that came over the socket. */
	socketMeta(meta: FrameMeta): void {
		if (this.#fallback !== undefined && this.#state.transport !== 'webrtc') {
			this.#events.onFrameMeta(meta);
		}
	}

	async stats(): Promise<RTCStatsReport | undefined> {
		return (this.#shown ?? this.#attempt)?.connection.getStats();
	}

	/** As `stats`, or those of the attempt that the socket had to stand in for. */
	async report(): Promise<RTCStatsReport | undefined> {
		const present = await this.stats();
		const isAnswered = [...present?.values() ?? [] as Iterable<RTCStats>].some(({ type }) => type === 'remote-candidate');
		return isAnswered ? present : await this.#given?.catch(() => undefined) ?? present;
	}

	/** Idempotent. */
	close(): void {
		this.#isOpen = false;
		this.#isClosed = true;
		this.#rest();
		globalThis.removeEventListener?.('online', this.#onOnline);
		this.#attempt?.connection.close();
		this.#shown?.connection.close();
		this.#fallback?.video.close();
		this.#sink.close();
	}

	#rest(): void {
		clearTimeout(this.#patience);
		clearTimeout(this.#climb);
		this.#patience = undefined;
		this.#climb = undefined;
	}

	#offer(): void {
		this.#hasOffered = true;
		if (this.#attempt !== this.#shown) {
			this.#attempt?.connection.close();
		}
		const whenPresent = <A extends unknown[]>(action: (...args: A) => void) => (...args: A): void => {
			if (connection === this.#attempt?.connection) {
				action(...args);
			}
		};
		const connection: VideoConnection = this.#sink.open(this.#iceServers, {
			onOffer: whenPresent((sdp) => this.#events.send({ type: 'webrtc.offer', sdp })),
			onCandidate: whenPresent((candidate) => this.#events.send({ type: 'webrtc.candidate', candidate })),
			onConnected: whenPresent(() => this.#connected()),
			onDisturbed: whenPresent(() => this.#disturbed()),
			onFailed: whenPresent((error) => this.#failed(error)),
			untilHeard: (withinMs) => this.#untilHeard(withinMs),
			onFrameMeta: (meta) => {
				// While the one goes over to the other, both bring the same.
				if (connection === (this.#shown ?? this.#attempt)?.connection && (this.#state.transport === 'webrtc' || this.#fallback === undefined)) {
					this.#events.onFrameMeta(meta);
				}
			},
		});
		this.#attempt = { connection, isUp: false };
		if (this.#state.transport === undefined) {
			this.#sink.use(connection);
		}
		this.#wait(SLOW);
		connection.offer().catch(whenPresent((error: unknown) => this.#failed(error)));
	}

	#untilHeard(withinMs: number): Promise<boolean> {
		return new Promise((resolve) => {
			const end = (isHeard: boolean): void => {
				clearTimeout(timer);
				this.#listeners.delete(listener);
				resolve(isHeard);
			};
			const listener = (): void => end(true);
			const timer = setTimeout(() => end(false), withinMs);
			this.#listeners.add(listener);
		});
	}

	/** Gives WebRTC a while, then lets the socket carry the picture. */
	#wait(reason: string): void {
		if (this.#canFallBack && this.#fallback === undefined) {
			this.#patience ??= setTimeout(() => {
				this.#patience = undefined;
				this.#fallBack(reason);
			}, PATIENCE_MS);
		}
	}

	#connected(): void {
		const attempt = this.#attempt;
		if (attempt === undefined) {
			return;
		}
		attempt.isUp = true;
		this.#failures = 0;
		clearTimeout(this.#patience);
		this.#patience = undefined;
		this.#events.onConnected();
		if (attempt !== this.#shown || this.#fallback !== undefined) {
			void this.#takeOver(attempt);
		}
	}

	/** Once it has a picture, that is shown, and whatever carried it before is closed. */
	async #takeOver(attempt: Attempt): Promise<void> {
		while (this.#state.transport !== undefined && !this.#isClosed && attempt === this.#attempt && !(await attempt.connection.hasPicture().catch(() => false))) {
			await new Promise((resolve) => setTimeout(resolve, PICTURE_POLL_MS));
		}
		if (this.#isClosed || attempt !== this.#attempt || !attempt.isUp) {
			return;
		}
		const before = this.#shown;
		this.#shown = attempt;
		this.#sink.use(attempt.connection);
		if (before !== attempt) {
			before?.connection.close();
		}
		if (this.#fallback !== undefined) {
			this.#fallback.video.close();
			this.#fallback = undefined;
			this.#events.send({ type: 'video.close' });
		}
		clearTimeout(this.#climb);
		this.#climb = undefined;
		this.#steadySinceMs = performance.now();
		this.#enter({ transport: 'webrtc', reason: undefined });
	}

	#disturbed(): void {
		if (this.#attempt !== undefined) {
			this.#attempt.isUp = false;
		}
		this.#events.onDisturbed();
		this.#wait(LOST);
	}

	#failed(cause: unknown): void {
		const attempt = this.#attempt;
		if (!this.#isOpen || attempt === undefined) {
			return;
		}
		attempt.isUp = false;
		this.#failures += 1;
		if (this.#fallback !== undefined) {
			this.#given = attempt.connection.getStats();
			this.#given.catch(() => undefined).finally(() => attempt.connection.close());
			this.#attempt = undefined;
			this.#planClimb();
		} else if (this.#canFallBack && (attempt !== this.#shown || this.#failures > 1)) {
			this.#fallBack(FAILED);
		} else if (this.#failures < MOST_FAILURES) {
			this.#offer();
		} else {
			this.#events.onFailed(new TurbocastError('transport_failed', 'The video connection could not be made; a firewall may block UDP between this machine and the server.', { cause }));
		}
	}

	/** Lets the socket carry the picture, by the best way that this place can show it. */
	#fallBack(reason: string, after?: VideoTransport): void {
		if (this.#isOpeningFallback || this.#fallback !== undefined || !this.#isOpen) {
			return;
		}
		this.#isOpeningFallback = true;
		this.#given = this.#attempt?.connection.getStats() ?? this.#given;
		this.#given?.catch(() => undefined);
		const ways = (['websocket', 'fmp4'] as const).filter((way) => (this.#choice === 'auto' || this.#choice === way) && after !== way);
		const open = async (): Promise<void> => {
			for (const transport of ways) {
				const video = await this.#sink.openSocketVideo(transport, {
					onPicture: () => this.#fallenBack(video),
					onKeyframeNeeded: () => this.#events.send({ type: 'video.keyframe' }),
					onFailed: (error) => this.#fallbackFailed(transport, error),
				});
				if (video !== undefined) {
					return this.#opened({ transport, video, reason: transport === 'fmp4' && this.#choice === 'auto' ? `${reason} ${noWebCodecs()}` : reason });
				}
			}
			this.#canFallBack = false;
			if (this.#attempt === undefined || !this.#attempt.isUp && this.#failures > 0) {
				this.#events.onFailed(new TurbocastError('transport_failed', `${reason} Nothing else shows this video here: a browser needs WebRTC, WebCodecs (on https) or Media Source Extensions with H.264.`));
			}
		};
		open().catch((error: unknown) => this.#events.onFailed(TurbocastError.from(error, 'transport_failed'))).finally(() => {
			this.#isOpeningFallback = false;
		});
	}

	#opened(fallback: Fallback): void {
		// WebRTC may have come meanwhile.
		if (this.#isClosed || !this.#isOpen || this.#attempt?.isUp === true) {
			fallback.video.close();
			return;
		}
		this.#fallback = fallback;
		this.#ask(fallback.video);
		if (this.#state.transport === undefined) {
			this.#sink.use(fallback.video);
		}
		this.#planClimb();
	}

	#ask({ codecs }: SocketVideo): void {
		this.#events.send({ type: 'video.open', event_id: OPENING, codecs });
	}

	#fallenBack(video: SocketVideo | undefined): void {
		if (video !== undefined && this.#fallback?.video === video) {
			const { transport, reason } = this.#fallback;
			this.#sink.use(video);
			this.#shown?.connection.close();
			if (this.#attempt === this.#shown) {
				this.#attempt = undefined;
			}
			this.#shown = undefined;
			this.#enter({ transport, reason });
		}
	}

	#fallbackFailed(transport: VideoTransport, error: TurbocastError): void {
		const reason = this.#fallback?.reason ?? error.message;
		this.#fallback?.video.close();
		this.#fallback = undefined;
		this.#fallBack(`${reason} ${error.message}`, transport);
	}

	/** Tries WebRTC again, after a while that grows. */
	#planClimb(): void {
		if (!this.#hasWebRtc || this.#climb !== undefined) {
			return;
		}
		if (this.#steadySinceMs > 0 && performance.now() - this.#steadySinceMs > STEADY_MS) {
			this.#climbs = 0;
		}
		this.#steadySinceMs = 0;
		const delayMs = Math.min(LONGEST_CLIMB_MS, FIRST_CLIMB_MS * 2 ** this.#climbs);
		this.#climbs += 1;
		this.#climb = setTimeout(() => this.#tryClimb(), delayMs);
	}

	#tryClimb(): void {
		clearTimeout(this.#climb);
		this.#climb = undefined;
		if (this.#isOpen && this.#fallback !== undefined && this.#attempt?.isUp !== true) {
			this.#offer();
			// Whether or not it hears that it failed.
			this.#planClimb();
		}
	}

	/** Another network: UDP may come through there. */
	readonly #onOnline = (): void => this.#tryClimb();

	#enter(state: TransportState): void {
		this.#state = state;
		this.#events.onTransport(state);
	}
}
