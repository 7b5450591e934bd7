/** The control socket: typed messages out, checked messages in, and why it closed. */
import { TurbocastError, ERROR_CODES, ERRORS } from '../src/protocol/errors.js';
import { SUBPROTOCOL } from '../src/protocol/limits.js';
import { parseServerMessage, type ClientMessage, type ServerMessage } from '../src/protocol/messages.js';

export type ControlSocketEvents = {
	readonly onMessage: (message: ServerMessage) => void;
	/** Once, whoever closed it. */
	readonly onClose: (error: TurbocastError | undefined) => void;
};

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

export class ControlSocket {
	readonly #socket: WebSocket;

	constructor(url: string, events: ControlSocketEvents) {
		this.#socket = new WebSocket(url, SUBPROTOCOL);
		let wasOpen = false;
		this.#socket.addEventListener('open', () => {
			wasOpen = true;
		});
		this.#socket.addEventListener('message', ({ data }) => {
			let message: ServerMessage | undefined;
			try {
				message = parseServerMessage(JSON.parse(String(data)));
			} catch (error) {
				console.warn('turbocast: a message of the server was not understood.', error);
			}
			if (message !== undefined) {
				events.onMessage(message);
			}
		});
		this.#socket.addEventListener('close', (event) => events.onClose(errorOfClose(event, wasOpen)));
	}

	/** Throws `transport_failed` when the socket is not open. */
	send(message: ClientMessage): void {
		if (this.#socket.readyState !== WebSocket.OPEN) {
			throw new TurbocastError('transport_failed', 'The connection to the server is not open; connect again.');
		}
		this.#socket.send(JSON.stringify(message));
	}

	/** Idempotent. */
	close(): void {
		this.#socket.close(1000);
	}
}
