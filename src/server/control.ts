/** The control socket, and the one door to `ws` on the server: takes connections, parses, limits, dispatches, and says why before it closes. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer, type RawData } from 'ws';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_MESSAGE_BYTES, REALTIME_PATH, SUBPROTOCOL } from '../protocol/limits.js';
import { errorMessage, eventIdOf, parseClientMessage, type ClientMessage, type ServerMessage } from '../protocol/messages.js';
import { draining } from './admission.js';
import { protocolTokenOf, type Grant } from './auth.js';
import { errorEnvelope, errorHeaders } from './http-error.js';
import { isAllowedOrigin } from './origin.js';
import { RateLimit } from './rate-limit.js';
import { Member } from './member.js';
import type { SessionParts, Visitor } from './session-parts.js';
import { RESUME_TOKEN_PREFIX } from './session-id.js';
import { MOST_UNSENT_BYTES } from '../transport/socket-viewer.js';
import { Session } from './session.js';
import type { CountedState } from './session-state.js';

/** A client that leaves this much unread is gone or asleep: a minute of every message that a session sends. */
const MAX_UNREAD_BYTES = 256 * 1024;
/** Video that may wait beside the messages: what its viewer allows, and the one frame with which it goes beyond. */
const MAX_UNREAD_VIDEO_BYTES = 4 * MOST_UNSENT_BYTES;
/** An over-long message up to this size is still read, so that the client, busy sending it, can hear why it is refused. */
const MAX_READ_BYTES = 16 * MAX_MESSAGE_BYTES;
/** Time that a shutdown leaves clients to answer its close frame. */
const CLOSING_HANDSHAKE_MS = 500;
/** What is left of a shutdown when running sessions are told again. */
const DRAIN_WARNINGS_MS = [60_000, 30_000, 10_000];
const DEFAULT_HEARTBEAT_MS = 5000;
/** Silent intervals after which a socket is given up. */
const MOST_SILENT_INTERVALS = 3;

/** What our codes are called where `ws` itself must close: RFC 6455 section 7.4.1. */
const reasonOf = (closeCode: number | undefined): TurbocastError =>
	closeCode === 1009
		? new TurbocastError('message_too_big', `A message may have at most ${MAX_MESSAGE_BYTES} bytes; send less at once.`)
		: new TurbocastError('invalid_message', 'The connection does not follow the WebSocket protocol (RFC 6455).');

/** `ws` closes by itself what breaks its rules, before it raises the error; this says why first. */
class ControlSocket extends WebSocket {
	/** Called before a close that nobody asked for; cleared once somebody has. */
	beforeClose: ((error: TurbocastError) => void) | undefined;

	override close(code?: number, reason?: string | Buffer): void {
		const tell = this.beforeClose;
		this.beforeClose = undefined;
		// 1005: the answer to a close frame of the client.
		if (tell !== undefined && code !== undefined && code !== 1005 && code >= 1002) {
			tell(reasonOf(code));
		}
		super.close(code, reason);
	}
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Parses a frame to JSON. Throws `invalid_message`. */
const parseFrame = (data: RawData, isBinary: boolean): unknown => {
	if (isBinary) {
		throw new TurbocastError('invalid_message', 'Messages are JSON text; send a text frame instead of a binary one.');
	}
	let text: string;
	try {
		text = utf8.decode(data as Buffer);
	} catch (error) {
		throw new TurbocastError('invalid_message', 'The message is not valid UTF-8 text.', { cause: error });
	}
	try {
		return JSON.parse(text) as unknown;
	} catch (error) {
		throw new TurbocastError('invalid_message', 'The message is not valid JSON.', { cause: error });
	}
};

/** Of a connection that is told why it may not stay. */
const NOBODY: Visitor = { grant: { keyId: undefined, sessionId: undefined, mayControl: false, maxSessionMs: 0 }, address: '' };

class Connection {
	#session: Session;
	readonly #member: Member;
	readonly #socket: ControlSocket;
	readonly #parts: SessionParts;
	readonly #messages: RateLimit;
	readonly #mistakes: RateLimit;
	/** Resolves when the socket is gone. */
	readonly closed: Promise<void>;
	#silentIntervals = 0;
	#isClosing = false;

	/** `session`: one that is there already, to watch it. */
	constructor(socket: ControlSocket, parts: SessionParts, visitor: Visitor, session?: Session) {
		const { config, clock } = parts;
		this.#socket = socket;
		this.#parts = parts;
		this.#messages = new RateLimit(config.messagesPerSecond, 1000, clock.nowMs());
		this.#mistakes = new RateLimit(config.badMessagesPerMinute, 60_000, clock.nowMs());
		this.#member = new Member(parts, {
			send: (message) => this.#send(message),
			close: (closeCode, reason) => this.#close(closeCode, reason),
			video: {
				sendBytes: (bytes) => this.#sendVideo(bytes),
				sendMeta: (meta) => this.#sendVideo(JSON.stringify(meta)),
				unsentBytes: () => this.#socket.bufferedAmount,
			},
		}, visitor);
		this.#session = session ?? new Session(parts, this.#member);
		socket.beforeClose = (error) => void this.session.leave(this.#member, 'failed', error);
		socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
		socket.on('pong', () => {
			this.#silentIntervals = 0;
		});
		socket.on('error', (error) => parts.log.debug({ err: error }, 'A control socket failed.'));
		this.closed = new Promise((resolve) => {
			socket.on('close', () => {
				this.#isClosing = true;
				void this.session.leave(this.#member, 'disconnected');
				resolve();
			});
		});
	}

	get session(): Session {
		return this.#session;
	}

	/** Called at every heartbeat: a socket whose other end has vanished without a word is given up. */
	beat(): void {
		if (this.#silentIntervals >= MOST_SILENT_INTERVALS) {
			this.#socket.terminate();
			return;
		}
		this.#silentIntervals += 1;
		this.#socket.ping();
	}

	/** Comes to watch the session that it was made for. */
	join(): void {
		this.session.join(this.#member);
	}

	/** For good, whatever the client does. */
	terminate(): void {
		this.#socket.terminate();
	}

	#receive(data: RawData, isBinary: boolean): void {
		if (this.#isClosing) {
			return;
		}
		const size = (data as Buffer).byteLength;
		if (size > MAX_MESSAGE_BYTES) {
			void this.session.leave(this.#member, 'failed', new TurbocastError('message_too_big', `A message may have at most ${MAX_MESSAGE_BYTES} bytes, not ${size}; send less at once.`));
			return;
		}
		let eventId: string | undefined;
		const refuse = (error: unknown): void => this.#refuse(TurbocastError.from(error), eventId);
		try {
			const retryAfterMs = this.#messages.take(this.#parts.clock.nowMs());
			if (retryAfterMs > 0) {
				throw new TurbocastError('rate_limited', `At most ${this.#parts.config.messagesPerSecond} messages a second; this one was not heard.`, { retryAfterMs });
			}
			const value = parseFrame(data, isBinary);
			eventId = eventIdOf(value);
			this.#handle(parseClientMessage(value)).catch(refuse);
		} catch (error) {
			refuse(error);
		}
	}

	/** A start that names a session which is still there goes on with that one; everything else is for the session of this connection. */
	async #handle(message: ClientMessage): Promise<void> {
		const { grant } = this.#member.visitor;
		if (message.type !== 'session.start' || message.resume_token === undefined || this.#session.isRunning || grant.sessionId !== undefined || !grant.mayControl) {
			return this.#session.handle(message, this.#member);
		}
		const found = this.#parts.sessions.findByToken(message.resume_token);
		if (found !== undefined && found !== this.#session) {
			await this.#parts.auth.assertStillHolds(found.visitor.grant);
			if (found.hasEnded || this.#session.isRunning) {
				// Meanwhile it has ended, or another message has begun this one.
				return this.#handle(message);
			}
			this.#session.abandon();
			this.#session = found;
			return found.takeOver(this.#member, message);
		}
		if (found === undefined && message.prompt === undefined && message.prompts === undefined) {
			throw new TurbocastError('session_not_found', 'The session of this token has ended; start another one with a prompt.', { param: 'resume_token' });
		}
		return this.#session.handle(message, this.#member);
	}

	/** Answers with the error; whoever makes too many mistakes is closed. */
	#refuse(error: TurbocastError, eventId: string | undefined): void {
		if (error.code === 'internal') {
			this.#parts.log.error({ err: error }, 'A message could not be handled.');
		}
		this.#parts.metrics.errors.add(1, { code: error.code });
		this.#send(errorMessage(error, eventId));
		// Being told to come back later is no mistake of the client.
		const isMistake = error.entry.httpStatus < 500;
		if (error.code === 'draining' && !this.session.isRunning) {
			// Closed, so that it comes to another server through whatever stands in front.
			void this.session.leave(this.#member, 'draining', error);
		}
		if (isMistake && this.#mistakes.take(this.#parts.clock.nowMs()) > 0) {
			void this.session.leave(this.#member, 'failed', new TurbocastError('rate_limited', `More than ${this.#parts.config.badMessagesPerMinute} mistakes in a minute; read the errors, then connect again.`, { retryAfterMs: 60_000 }));
		}
	}

	#send(message: ServerMessage): void {
		if (this.#socket.readyState !== WebSocket.OPEN) {
			return;
		}
		if (this.#socket.bufferedAmount > MAX_UNREAD_BYTES + MAX_UNREAD_VIDEO_BYTES) {
			this.#parts.log.warn({}, 'A client does not read its messages; its connection is given up.');
			this.#socket.terminate();
			return;
		}
		this.#socket.send(JSON.stringify(message));
	}

	/** How much of it may wait, its viewer decides. */
	#sendVideo(data: Uint8Array | string): void {
		if (this.#socket.readyState === WebSocket.OPEN) {
			this.#socket.send(data);
		}
	}

	#close(closeCode: number, reason: string): void {
		this.#isClosing = true;
		this.#socket.beforeClose = undefined;
		this.#socket.close(closeCode, reason);
	}
}

export type Control = {
	readonly connections: () => number;
	readonly sessionStates: () => CountedState[];
	/** The listener of the HTTP server's `upgrade` event. */
	readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
	/**
	 * Tells every session that runs how long it has, now and again when little is left, until the signal aborts; ends every connection that
	 * has none. The shutdown itself is the caller's.
	 */
	readonly warnOfEnd: (withinMs: number, signal: AbortSignal) => void;
	/** Ends every session with `draining`, then every socket. Idempotent. */
	readonly close: () => Promise<void>;
};

/** A refusal in plain HTTP: the handshake is not done, so there is no socket to close yet. */
const refuseUpgrade = (socket: Duplex, error: TurbocastError): void => {
	const body = errorEnvelope(error);
	const headers = { ...errorHeaders(error), 'connection': 'close', 'content-length': String(Buffer.byteLength(body)) };
	const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
	socket.end(`HTTP/1.1 ${error.entry.httpStatus} ${error.code}\r\n${lines}\r\n${body}`);
};

/** Why a handshake is refused, if it is. */
const refusal = (request: IncomingMessage, parts: SessionParts): TurbocastError | undefined => {
	const path = (request.url ?? '').split('?', 1)[0] ?? '';
	if (path !== REALTIME_PATH) {
		return new TurbocastError('not_found', `WebSockets are spoken at ${REALTIME_PATH} only.`);
	}
	if (!isAllowedOrigin(request, parts.config.allowedOrigins)) {
		return new TurbocastError('forbidden', 'Pages of this origin may not open sessions here; the operator allows it with server.allowed_origins.');
	}
	const offered = request.headers['sec-websocket-protocol']?.split(/\s*,\s*/u).map((name) => name.trim());
	if (offered !== undefined && !offered.includes(SUBPROTOCOL)) {
		return new TurbocastError('unsupported_protocol', `The sub-protocol spoken here is ${SUBPROTOCOL}; offer it, or none.`);
	}
	return undefined;
};

/**
 * A resume token is a credential as good as that with which its session began: a client secret that is used up does not stand in the way, a server
 * key that was revoked does.
 */
const grantOf = async (request: IncomingMessage, { auth, sessions, model }: SessionParts): Promise<Grant> => {
	const token = protocolTokenOf(request);
	if (token?.startsWith(RESUME_TOKEN_PREFIX) !== true) {
		return auth.grant(request, model.id);
	}
	const session = sessions.findByToken(token);
	if (session !== undefined) {
		const { grant } = session.visitor;
		await auth.assertStillHolds(grant);
		return grant;
	}
	// Where nobody is asked for a credential, this one does no harm.
	return auth.grant(request, model.id).catch(() => {
		throw new TurbocastError('session_not_found', 'The session of this token has ended; connect with a key or a client secret, and start another one.');
	});
};

export const createControl = (parts: SessionParts): Control => {
	const { config } = parts;
	const open = new Set<Connection>();
	const sockets = new WebSocketServer({
		noServer: true, clientTracking: false, perMessageDeflate: false,
		WebSocket: ControlSocket,
		maxPayload: MAX_READ_BYTES,
		// We look ourselves, so that text that is not UTF-8 is answered and the connection goes on.
		skipUTF8Validation: true,
		handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
	});
	const heartbeat = setInterval(() => open.forEach((connection) => connection.beat()), config.heartbeatMs ?? DEFAULT_HEARTBEAT_MS);
	heartbeat.unref();

	/** After the handshake, because a browser's script cannot see why a handshake failed. */
	const turnAway = (socket: ControlSocket, error: TurbocastError): void => void new Connection(socket, parts, NOBODY).session.end('failed', error);

	const welcome = (socket: ControlSocket, visitor: Visitor): void => {
		const { sessionId, keyId } = visitor.grant;
		let session: Session | undefined;
		try {
			session = sessionId === undefined ? undefined : parts.sessions.find(sessionId, keyId);
			session?.assertMayJoin();
		} catch (error) {
			turnAway(socket, TurbocastError.from(error));
			return;
		}
		const connection = new Connection(socket, parts, visitor, session);
		open.add(connection);
		const leave = parts.connections.add(visitor.address);
		socket.on('close', () => {
			open.delete(connection);
			leave();
		});
		if (session === undefined) {
			connection.session.greet();
		} else {
			connection.join();
		}
	};

	let closing: Promise<void> | undefined;
	const close = async (): Promise<void> => {
		await Promise.all(parts.sessions.all.map((session) => session.end('draining', draining())));
		clearInterval(heartbeat);
		await Promise.race([Promise.all([...open].map((connection) => connection.closed)), parts.clock.sleep(CLOSING_HANDSHAKE_MS)]);
		open.forEach((connection) => connection.terminate());
		sockets.close();
	};

	const warn = (secondsLeft: number): void => {
		for (const session of parts.sessions.all) {
			if (session.isRunning) {
				session.warnOfEnd('draining', secondsLeft);
			} else {
				void session.end('draining', draining());
			}
		}
	};

	return {
		connections: () => open.size,
		sessionStates: () => parts.sessions.all.map((session) => session.countedState),
		warnOfEnd: (withinMs, signal) => {
			const endsAtMs = parts.clock.nowMs() + withinMs;
			for (const leftMs of [withinMs, ...DRAIN_WARNINGS_MS.filter((ms) => ms < withinMs)]) {
				parts.clock.sleep(endsAtMs - leftMs - parts.clock.nowMs(), signal).then(() => warn(Math.round(leftMs / 1000)), () => undefined);
			}
		},
		upgrade: (request, socket, head) => {
			const address = parts.addressOf(request);
			socket.on('error', (error) => parts.log.debug({ err: error }, 'A connection broke during its handshake.'));
			const error = refusal(request, parts);
			if (error !== undefined) {
				refuseUpgrade(socket, error);
				return;
			}
			try {
				// Before the credential is looked at: being turned away uses up no client secret.
				parts.connections.assertRoom(address);
			} catch (full) {
				sockets.handleUpgrade(request, socket, head, (opened) => turnAway(opened, TurbocastError.from(full)));
				return;
			}
			grantOf(request, parts).then(
				(grant) => sockets.handleUpgrade(request, socket, head, (opened) => welcome(opened, { grant, address })),
				(reason: unknown) => sockets.handleUpgrade(request, socket, head, (opened) => turnAway(opened, TurbocastError.from(reason))),
			);
		},
		close: () => (closing ??= close()),
	};
};
