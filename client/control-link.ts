/** The control sockets of one session, one after the other: connects, and connects again when one is lost and that can help. */
import type { TurbocastError } from '../src/protocol/errors.js';
import type { ClientMessage, FrameMeta, ServerMessage } from '../src/protocol/messages.js';
import type { VideoUnit } from '../src/protocol/video-unit.js';
import { ControlSocket, type SocketClass, type TokenSource } from './control-socket.js';
import type { ReconnectPolicy } from './reconnect.js';

export type ControlLinkOptions = {
	readonly url: string;
	readonly token: TokenSource | undefined;
	readonly Socket: SocketClass;
	readonly reconnect: ReconnectPolicy;
	/** Something came, before what it was is told. */
	readonly onHeard: () => void;
	readonly onMessage: (message: ServerMessage) => void;
	readonly onUnit: (unit: VideoUnit) => void;
	readonly onFrameMeta: (meta: FrameMeta) => void;
	/** The present socket is gone, and its error, if it was one. What to do is `lost` or `close`. */
	readonly onClose: (error: TurbocastError | undefined) => void;
	/** Another attempt follows, after `delayMs`. */
	readonly onWaiting: (waiting: { readonly attempt: number; readonly delayMs: number; readonly error: TurbocastError }) => void;
};

const isRefusal = (error: TurbocastError): boolean => error.code === 'unauthorized' || error.code === 'token_expired';

export class ControlLink {
	readonly #options: ControlLinkOptions;
	#socket: ControlSocket;
	#wasConnected = false;
	#isTokenFresh = false;
	#attempt = 0;
	#lostAtMs = 0;
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(options: ControlLinkOptions) {
		this.#options = options;
		this.#socket = this.#connect();
		globalThis.addEventListener?.('online', this.#onOnline);
	}

	/** Throws `transport_failed` when the socket is not open. */
	send(message: ClientMessage): void {
		this.#socket.send(message);
	}

	/** The server has greeted: what was wrong before is over. */
	greeted(): void {
		this.#wasConnected = true;
		this.#isTokenFresh = false;
		this.#attempt = 0;
	}

	/** Gives the present socket up and tries another, when that can help; false when it cannot. */
	lost(error: TurbocastError): boolean {
		this.#socket.close();
		if (isRefusal(error)) {
			// Client secrets run out. One that was made a moment ago and is refused as well will not do the third time, and a fixed one never.
			const canAsk = typeof this.#options.token === 'function' && !this.#isTokenFresh;
			if (canAsk) {
				this.#isTokenFresh = true;
				this.#socket = this.#connect();
			}
			return canAsk;
		}
		const nowMs = performance.now();
		if (this.#attempt === 0) {
			this.#lostAtMs = nowMs;
		}
		const attempt = this.#attempt;
		const delayMs = this.#options.reconnect({ attempt, sinceMs: nowMs - this.#lostAtMs, error, wasConnected: this.#wasConnected });
		if (delayMs === undefined) {
			return false;
		}
		this.#attempt += 1;
		this.#timer = setTimeout(() => this.#retry(), delayMs);
		this.#options.onWaiting({ attempt, delayMs, error });
		return true;
	}

	/** Idempotent. */
	close(): void {
		clearTimeout(this.#timer);
		globalThis.removeEventListener?.('online', this.#onOnline);
		this.#socket.close();
	}

	#connect(): ControlSocket {
		const { Socket, url, token, onHeard, onMessage, onUnit, onFrameMeta, onClose } = this.#options;
		const socket: ControlSocket = new ControlSocket(Socket, url, token, {
			onHeard: () => socket === this.#socket && onHeard(),
			onMessage: (message) => socket === this.#socket && onMessage(message),
			onUnit: (unit) => socket === this.#socket && onUnit(unit),
			onFrameMeta: (meta) => socket === this.#socket && onFrameMeta(meta),
			onClose: (error) => socket === this.#socket && onClose(error),
		});
		return socket;
	}

	#retry(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		this.#socket = this.#connect();
	}

	/** A network is back: no reason to wait longer, nor for an attempt that began without one. */
	readonly #onOnline = (): void => {
		if (this.#timer !== undefined) {
			this.#retry();
		} else if (this.#attempt > 0) {
			this.#socket.close();
			this.#retry();
		}
	};
}
