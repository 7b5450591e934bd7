/** One connection of a client under test, as the scripted server sees it: what it said, held to the rules for all it may say. */
import type { WebSocket } from 'ws';
import { MAX_MESSAGE_BYTES } from '../protocol/limits.js';
import { parseClientMessage, type ClientMessage, type ClientMessages, type ClientMessageType, type ServerMessage } from '../protocol/messages.js';
import { Mailbox } from './mailbox.js';
import { quote } from './verdict.js';

/** Before `session.start` there is nothing to steer. */
const MAY_COME_BEFORE_START: ReadonlySet<ClientMessageType> = new Set(['session.start', 'session.stop', 'webrtc.offer', 'webrtc.candidate', 'video.open', 'video.ack', 'video.keyframe', 'video.close', 'ping', 'control.request', 'control.grant', 'control.release'] as const);

export class ClientConnection {
	readonly openedAtMs = performance.now();
	/** What it says goes on to here, too. */
	onMessage: (message: ClientMessage) => void = () => undefined;
	/** Rules that it broke. */
	readonly violations: string[] = [];
	/** The id of each message that had one. */
	readonly eventIds = new Map<string, ClientMessageType>();
	readonly closed: Promise<number>;
	readonly #socket: WebSocket;
	readonly #inbox = new Mailbox<ClientMessage>();
	#received = 0;
	#isGreeted = false;
	#isStarted = false;

	constructor(socket: WebSocket) {
		this.#socket = socket;
		socket.on('message', (data: Buffer, isBinary) => this.#receive(data, isBinary));
		socket.on('error', () => undefined);
		this.closed = new Promise((resolve) => {
			socket.on('close', (code) => {
				this.#inbox.close(`the client closed the connection with ${code}`);
				resolve(code);
			});
		});
	}

	/** How many frames it has sent. */
	get received(): number {
		return this.#received;
	}

	/** Any object: the script says things that are not of this version, too. */
	send(message: ServerMessage | { readonly type: `${string}.of_tomorrow` }): void {
		this.#isGreeted ||= message.type === 'session.created';
		if (this.#socket.readyState === this.#socket.OPEN) {
			this.#socket.send(JSON.stringify({ ...message, of_tomorrow: { new: true } }));
		}
	}

	async next<T extends ClientMessageType>(type: T, withinMs: number): Promise<ClientMessages[T]> {
		return await this.#inbox.first((message) => message.type === type, type, withinMs) as ClientMessages[T];
	}

	/** Resolves when it has answered a ping of RFC 6455, section 5.5.2. */
	ponged(): Promise<void> {
		this.#socket.ping();
		return new Promise((resolve) => this.#socket.once('pong', () => resolve()));
	}

	close(code: number, reason: string): void {
		this.#socket.close(code, reason);
	}

	/** As a network that is gone. */
	drop(): void {
		this.#socket.terminate();
	}

	#receive(data: Buffer, isBinary: boolean): void {
		this.#received += 1;
		if (!this.#isGreeted) {
			this.violations.push('a message came before session.created was sent');
		}
		if (data.byteLength > MAX_MESSAGE_BYTES) {
			this.violations.push(`a message has ${data.byteLength} bytes; limits.max_message_bytes is ${MAX_MESSAGE_BYTES}`);
		}
		let message: ClientMessage;
		try {
			if (isBinary) {
				throw new Error('it is a binary frame');
			}
			message = parseClientMessage(JSON.parse(data.toString('utf8')));
		} catch (error) {
			this.violations.push(`${quote(data.toString('utf8').slice(0, 200))} is not a message of the protocol: ${error instanceof Error ? error.message : String(error)}`);
			return;
		}
		const { type, event_id: eventId } = message;
		if (!this.#isStarted && !MAY_COME_BEFORE_START.has(type)) {
			this.violations.push(`${type} came before session.start`);
		}
		this.#isStarted ||= type === 'session.start';
		if (eventId !== undefined) {
			if (this.eventIds.has(eventId)) {
				this.violations.push(`two messages of one connection have the event_id ${quote(eventId)}`);
			}
			this.eventIds.set(eventId, type);
		}
		this.#inbox.put(message);
		this.onMessage(message);
	}
}
