/**
 * A raw connection to a server under test: sends whatever it is told to, right or wrong, and holds all that comes to the rules
 * that hold for every connection. The suite's one door to `ws` as a client.
 */
import { WebSocket } from 'ws';
import { TurbocastError } from '../protocol/errors.js';
import { SUBPROTOCOL, TOKEN_PROTOCOL_PREFIX } from '../protocol/limits.js';
import { FRAME_META, parseServerMessage, type FrameMeta, type ServerMessage, type ServerMessages, type ServerMessageType } from '../protocol/messages.js';
import { parseVideoUnit, type VideoUnit } from '../protocol/video-unit.js';
import { Mailbox } from './mailbox.js';
import { ensure, quote, Violation } from './verdict.js';

export type Closed = { readonly code: number; readonly reason: string };

export type ConnectionOptions = {
	readonly url: string;
	readonly token: string | undefined;
	/** Instead of the sub-protocol of this version. */
	readonly protocols?: readonly string[];
	readonly origin?: string;
	/** For how long an answer is waited for. */
	readonly patienceMs: number;
	/** Whether a broken rule ends what is waited for: it is the verdict, whatever comes after it. */
	readonly isStrict?: boolean;
};

/** The handshake was refused in plain HTTP. */
export class Refused extends Error {
	readonly status: number;

	constructor(status: number) {
		super(`the handshake was refused with HTTP ${status}`);
		this.status = status;
	}
}

/** A picture over the socket, and its record. */
export type Picture = { readonly unit: VideoUnit; readonly meta: FrameMeta };

/** Messages that repeat the `event_id` of what they answer. */
type Answer = 'event.accepted' | 'session.paused' | 'session.resumed' | 'session.forked' | 'session.shared' | 'webrtc.answer' | 'video.opened' | 'pong' | 'pacing.updated' | 'control.granted';

export class Connection {
	/** Everything received and understood, in order. */
	readonly received: ServerMessage[] = [];
	readonly #socket: WebSocket;
	readonly #patienceMs: number;
	readonly #isStrict: boolean;
	readonly #closed: Promise<Closed>;
	readonly #inbox = new Mailbox<ServerMessage>();
	/** Few: a case opens the video for some pictures. */
	readonly #pictures = new Mailbox<Picture>();
	readonly #violations: string[] = [];
	#hasAskedForVideo = false;
	/** Waits for its record. */
	#unit: VideoUnit | undefined;
	#nextEvent = 1;
	#isLeft = false;

	private constructor(socket: WebSocket, patienceMs: number, isStrict: boolean) {
		this.#socket = socket;
		this.#patienceMs = patienceMs;
		this.#isStrict = isStrict;
		socket.on('message', (data: Buffer, isBinary) => this.#receive(data, isBinary));
		socket.on('error', () => undefined);
		this.#closed = new Promise((resolve) => {
			socket.on('close', (code, reason) => {
				if (!this.#isLeft && this.received.at(-1)?.type !== 'session.ended') {
					this.#violate(`the server closed the connection with ${code} without session.ended before it`);
				}
				this.#inbox.close(`the connection was closed with ${code}${this.#lastWords()}`);
				this.#pictures.close(`the connection was closed with ${code}`);
				resolve({ code, reason: reason.toString() });
			});
		});
	}

	/** Resolves with the connection once it is open, before anything was said. Rejects with `Refused`. */
	static open({ url, token, protocols = [SUBPROTOCOL], origin, patienceMs, isStrict = false }: ConnectionOptions): Promise<Connection> {
		const offered = token === undefined ? [...protocols] : [...protocols, `${TOKEN_PROTOCOL_PREFIX}${token}`];
		const socket = new WebSocket(url, offered, { handshakeTimeout: patienceMs, ...(origin === undefined ? {} : { origin }) });
		const connection = new Connection(socket, patienceMs, isStrict);
		return new Promise((resolve, reject) => {
			socket.on('open', () => resolve(connection));
			socket.on('error', reject);
			socket.on('unexpected-response', (_request, response) => {
				response.destroy();
				reject(new Refused(response.statusCode ?? 0));
			});
		});
	}

	get protocol(): string {
		return this.#socket.protocol;
	}

	/** An id that no message of this connection has had. */
	newEventId(): string {
		return `c${this.#nextEvent++}`;
	}

	send(message: object): void {
		this.#hasAskedForVideo ||= (message as { readonly type?: unknown }).type === 'video.open';
		this.#socket.send(JSON.stringify(message));
	}

	/** A frame as it is. */
	sendFrame(data: string | Uint8Array, isBinary: boolean): void {
		this.#socket.send(data, { binary: isBinary });
	}

	/** With an id of its own, which is returned. */
	ask(message: object): string {
		const eventId = this.newEventId();
		this.send({ ...message, event_id: eventId });
		return eventId;
	}

	/** The first message that matches and was not given out yet. Throws a `Violation` naming `what` when none comes in time. */
	first(matches: (message: ServerMessage) => boolean, what: string, withinMs = this.#patienceMs): Promise<ServerMessage> {
		return this.#inbox.first(matches, what, withinMs);
	}

	async next<T extends ServerMessageType>(type: T, where: (message: ServerMessages[T]) => boolean = () => true, withinMs = this.#patienceMs): Promise<ServerMessages[T]> {
		return await this.first((message) => message.type === type && where(message as ServerMessages[T]), type, withinMs) as ServerMessages[T];
	}

	/** The next picture over the socket with its record. Throws a `Violation` when none comes in time. */
	nextPicture(withinMs = this.#patienceMs): Promise<Picture> {
		return this.#pictures.first(() => true, 'a picture with its frame.meta', withinMs);
	}

	/** The message that answers this event: of that type, or an `error`, which is a `Violation`. */
	async answer<T extends Answer>(type: T, eventId: string): Promise<ServerMessages[T]> {
		const message = await this.first((each) => (each.type === type || each.type === 'error') && each.event_id === eventId, `${type} for ${eventId}`);
		if (message.type === 'error') {
			throw new Violation(`${type} was expected, and error ${message.code} came: ${message.message}`);
		}
		return message as ServerMessages[T];
	}

	/** What was received up to now is no longer given out. */
	forget(): void {
		this.#inbox.forget();
		this.#pictures.forget();
	}

	/** Throws a `Violation` unless the connection answers. */
	async assertAlive(): Promise<void> {
		await this.answer('pong', this.ask({ type: 'ping' }));
	}

	/** How the server closes it. Throws a `Violation` when it does not in time. */
	async closed(withinMs = this.#patienceMs): Promise<Closed> {
		let timer: NodeJS.Timeout | undefined;
		try {
			return await Promise.race([this.#closed, new Promise<never>((_resolve, reject) => {
				timer = setTimeout(() => reject(new Violation(`the connection was not closed in ${withinMs / 1000} s${this.#lastWords()}`)), withinMs);
			})]);
		} finally {
			clearTimeout(timer);
		}
	}

	/** The network is gone: no close frame, no word. */
	async drop(): Promise<void> {
		this.#isLeft = true;
		this.#socket.terminate();
		await this.#closed;
	}

	/** Ends the session, or leaves it, so that its place is free. */
	async leave(withinMs: number): Promise<void> {
		this.#isLeft = true;
		if (this.#socket.readyState === WebSocket.OPEN) {
			this.send({ type: 'session.stop' });
		}
		await this.closed(withinMs).catch(() => this.drop());
	}

	/** Throws the first rule that the server broke on this connection. */
	assertRules(): void {
		const [first] = this.#violations;
		ensure(first === undefined, first ?? '');
	}

	#violate(rule: string): void {
		this.#violations.push(rule);
		if (this.#isStrict) {
			this.#inbox.close(rule);
			this.#pictures.close(rule);
		}
	}

	#lastWords(): string {
		const last = this.received.at(-1);
		return last === undefined ? '; nothing came' : `; the last message was ${quote(last)}`;
	}

	#receive(data: Buffer, isBinary: boolean): void {
		let message: ServerMessage | undefined;
		try {
			if (isBinary) {
				return this.#receivePicture(data);
			}
			const json = JSON.parse(data.toString('utf8')) as { readonly type?: unknown };
			if (json.type === 'frame.meta') {
				return this.#receiveRecord(FRAME_META.parse(json));
			}
			message = parseServerMessage(json);
		} catch (error) {
			this.#violate(`the server sent ${quote(data.toString('utf8').slice(0, 200))}, which is not a message of the protocol: ${error instanceof Error ? error.message : String(error)}`);
			return;
		}
		if (message === undefined) {
			return; // A server may be newer.
		}
		if (this.received.length === 0 && message.type !== 'session.created' && message.type !== 'error') {
			this.#violate(`the first message was ${message.type} instead of session.created`);
		}
		if (this.received.at(-1)?.type === 'session.ended') {
			this.#violate(`${message.type} came after session.ended`);
		}
		this.received.push(message);
		this.#inbox.put(message);
	}

	#receivePicture(data: Buffer): void {
		if (!this.#hasAskedForVideo) {
			throw new TurbocastError('invalid_message', 'a binary frame came, and no video was asked for');
		}
		const unit = parseVideoUnit(data);
		if (this.#unit !== undefined) {
			this.#violate(`no frame.meta followed the picture of frame ${this.#unit.frameId}`);
		}
		this.#unit = unit;
	}

	#receiveRecord(meta: FrameMeta): void {
		const unit = this.#unit;
		this.#unit = undefined;
		if (unit === undefined || unit.frameId !== meta.frame_id % 2 ** 32 || unit.rtpTimestamp !== meta.rtp_timestamp) {
			this.#violate(`the frame.meta of frame ${meta.frame_id} does not follow its picture`);
			return;
		}
		this.#pictures.put({ unit, meta });
	}
}
