/** The control socket: typed messages out, checked messages in, and why it closed. */
import { TurbocastError, ERROR_CODES, ERRORS } from '../src/protocol/errors.js';
import { SUBPROTOCOL, TOKEN_PROTOCOL_PREFIX } from '../src/protocol/limits.js';
import { FRAME_META, parseServerMessage, type ClientMessage, type FrameMeta, type ServerMessage } from '../src/protocol/messages.js';
import { parseVideoUnit, type VideoUnit } from '../src/protocol/video-unit.js';

export type SocketClass = new (url: string, protocols: string[]) => WebSocket;

export type ControlSocketEvents = {
	/** Something came, before what it was is told. */
	readonly onHeard: () => void;
	readonly onMessage: (message: ServerMessage) => void;
	/** Video over this socket. */
	readonly onUnit: (unit: VideoUnit) => void;
	readonly onFrameMeta: (meta: FrameMeta) => void;
	/** Once, unless it was closed from this side: what comes of a socket that was given up is nothing to anybody. */
	readonly onClose: (error: TurbocastError | undefined) => void;
};

/**
 * A server key or client secret, or what gives one. It is asked anew for each connection, because a client secret is good for few
 * of them and for a short time only.
 */
export type TokenSource = string | (() => string | Promise<string>);

/** What a close without an `error` message before it means. */
const errorOfClose = (event: CloseEvent, wasOpen: boolean): TurbocastError | undefined => {
	if (event.code === 1000) {
		return undefined;
	}
	const code = event.code === 1011 ? 'internal' : ERROR_CODES.find((known) => ERRORS[known].closeCode === event.code);
	if (code !== undefined) {
		return new TurbocastError(code, `${ERRORS[code].summary}${event.reason === '' ? '' : ` (${event.reason})`}`);
	}
	return new TurbocastError('transport_failed', wasOpen
		? 'The connection to the server was lost; connect again.'
		: 'The server cannot be reached; check that it runs and that its address is right.');
};

const TELEMETRY: unknown = 'frame.meta';

/** Parses what came, and gives what to do with it: an error in that is the application's own. */
const read = (data: unknown, events: ControlSocketEvents): () => void => {
	try {
		if (data instanceof ArrayBuffer) {
			const unit = parseVideoUnit(new Uint8Array(data));
			return () => unit && events.onUnit(unit);
		}
		const value: unknown = JSON.parse(String(data));
		if ((value as { type?: unknown } | null)?.type === TELEMETRY) {
			const meta = FRAME_META.parse(value);
			return () => events.onFrameMeta(meta);
		}
		const message = parseServerMessage(value);
		return () => message && events.onMessage(message);
	} catch (error) {
		console.warn('turbocast: a message of the server was not understood.', error);
		return () => undefined;
	}
};

/** `WebSocket.OPEN` */
const OPEN = 1;
/** Handshakes of TCP, TLS and WebSocket, and the greeting. A browser would wait for minutes where packets vanish, and hardly try again. */
const GREETING_PATIENCE_MS = 10_000;

export class ControlSocket {
	readonly #url: string;
	readonly #Socket: SocketClass;
	readonly #events: ControlSocketEvents;
	/** `undefined` until the token is there. */
	#socket: WebSocket | undefined;
	#patience: ReturnType<typeof setTimeout> | undefined;
	#isClosed = false;

	constructor(Socket: SocketClass, url: string, token: TokenSource | undefined, events: ControlSocketEvents) {
		this.#url = url;
		this.#Socket = Socket;
		this.#events = events;
		if (typeof token === 'function') {
			void this.#openWith(token);
		} else {
			this.#open(token);
		}
	}

	async #openWith(token: () => string | Promise<string>): Promise<void> {
		try {
			const value = await token();
			if (!this.#isClosed) {
				this.#open(value);
			}
		} catch (error) {
			if (!this.#isClosed) {
				this.#events.onClose(TurbocastError.from(error, 'unauthorized'));
			}
		}
	}

	#open(token: string | undefined): void {
		const events = this.#events;
		// Not in the address, which lands in logs; a browser sets no headers here.
		const socket = new this.#Socket(this.#url, [SUBPROTOCOL, ...(token === undefined ? [] : [`${TOKEN_PROTOCOL_PREFIX}${token}`])]);
		socket.binaryType = 'arraybuffer';
		this.#socket = socket;
		let wasOpen = false;
		this.#patience = setTimeout(() => {
			this.close();
			events.onClose(new TurbocastError('transport_failed', `The server did not answer in ${GREETING_PATIENCE_MS / 1000} seconds; check that it runs and that its address is right.`));
		}, GREETING_PATIENCE_MS);
		socket.addEventListener('open', () => {
			wasOpen = true;
		});
		socket.addEventListener('message', ({ data }) => {
			clearTimeout(this.#patience);
			const act = read(data, events);
			if (!this.#isClosed) {
				events.onHeard();
				act();
			}
		});
		// A close follows, with all that may be told.
		socket.addEventListener('error', () => undefined);
		socket.addEventListener('close', (event) => {
			clearTimeout(this.#patience);
			if (!this.#isClosed) {
				events.onClose(errorOfClose(event, wasOpen));
			}
		});
	}

	/** Throws `transport_failed` when the socket is not open. */
	send(message: ClientMessage): void {
		if (this.#socket?.readyState !== OPEN) {
			throw new TurbocastError('transport_failed', 'The connection to the server is not open; connect again.');
		}
		this.#socket.send(JSON.stringify(message));
	}

	/** Idempotent. */
	close(): void {
		this.#isClosed = true;
		clearTimeout(this.#patience);
		this.#socket?.close(1000);
	}
}
