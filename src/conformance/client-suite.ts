/**
 * Plays a script to a client under test and says what it did wrong. The client connects once and starts a session; the script then
 * loses its connections, turns it away and takes its session from it, as networks and servers do.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { TurbocastError } from '../protocol/errors.js';
import { REALTIME_PATH, SUBPROTOCOL } from '../protocol/limits.js';
import { errorMessage, type ClientMessages } from '../protocol/messages.js';
import type { Transport } from '../transport/transport.js';
import { ClientConnection } from './client-connection.js';
import { Mailbox } from './mailbox.js';
import { RESUME_GRACE_MS, ScriptedSession, TOKEN } from './scripted-session.js';
import { ensure, ensureEqual, Inapplicable, type Result, skip } from './verdict.js';

export type ClientSuiteOptions = {
	/** 0 takes any free one. */
	readonly port: number;
	/** For how long the client is waited for. */
	readonly patienceMs: number;
	/** Answers its offers. */
	readonly transport: Pick<Transport, 'accept'>;
	/** The client may connect to this address now. */
	readonly onListening: (url: string) => void;
	readonly signal: AbortSignal;
};

const GREETING_DELAY_MS = 400;
const PONG_PATIENCE_MS = 5000;
/** For how long the server is gone, and the most attempts that a client makes meanwhile. */
const OUTAGE_MS = 5000;
const MOST_ATTEMPTS = 12;
/** A client that doubles its delays may wait about as long again as the server was gone, and with chance in them longer still. */
const LONGEST_DELAY_MS = 2 * OUTAGE_MS;
const RETRY_AFTER_MS = 2500;
/** Timers of clients are not exact. */
const TOLERANCE_MS = 50;
/** Longer than any sensible first delay. */
const SILENCE_MS = 4000;

/** Everything that a scene needs. */
class Stage {
	readonly session: ScriptedSession;
	readonly patienceMs: number;
	readonly connections: ClientConnection[] = [];
	/** Times of handshakes, whether or not they were refused. */
	readonly attempts: number[] = [];
	isRefusing = false;
	hasOffered = false;
	readonly #arrivals = new Mailbox<ClientConnection>();
	readonly #http: Server;

	constructor(options: Pick<ClientSuiteOptions, 'transport' | 'patienceMs'>, http: Server) {
		this.session = new ScriptedSession(options.transport);
		this.patienceMs = options.patienceMs;
		this.#http = http;
		const sockets = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false, handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false) });
		http.on('upgrade', (request, socket, head) => {
			this.attempts.push(performance.now());
			if (this.isRefusing) {
				socket.destroy();
				return;
			}
			sockets.handleUpgrade(request, socket, head, (accepted) => {
				const connection = new ClientConnection(accepted);
				this.connections.push(connection);
				this.#arrivals.put(connection);
			});
		});
	}

	/** The next connection of the client, not greeted yet. */
	arrival(withinMs = this.patienceMs): Promise<ClientConnection> {
		return this.#arrivals.first(() => true, 'a connection of the client', withinMs);
	}

	get present(): ClientConnection {
		return this.connections.at(-1) ?? skip('the client never connected');
	}

	/** Greets the next connection, which is to bring the session back. */
	async comeBack(withinMs: number): Promise<ClientMessages['session.start']> {
		const connection = await this.arrival(withinMs);
		this.session.greet(connection);
		const start = await connection.next('session.start', this.patienceMs);
		ensureEqual(start.resume_token, TOKEN, 'resume_token of session.start after a connection was lost');
		return start;
	}

	async close(): Promise<void> {
		await this.session.close();
		this.connections.forEach((connection) => connection.drop());
		this.#http.close();
	}
}

type Scene = { readonly name: string; readonly section: string; readonly run: (stage: Stage) => Promise<void> };

const RULES = 'The protocol, version 1';
const COMING_BACK = 'Coming back';

/** In this order: each begins where the one before ended. */
const SCENES: readonly Scene[] = [
	{ name: 'waits for session.created before it says anything', section: RULES, run: async (stage) => {
		const connection = await stage.arrival();
		await sleep(GREETING_DELAY_MS);
		// Its answer comes behind all that it said before, however busy this machine is. Whether it answers is a scene of its own.
		await Promise.race([connection.ponged(), sleep(PONG_PATIENCE_MS)]);
		ensureEqual(connection.received, 0, 'the number of messages before session.created');
		stage.session.greet(connection);
	} },
	{ name: 'ignores unknown types and fields, and starts a session', section: RULES, run: async (stage) => {
		stage.present.send({ type: 'session.of_tomorrow' });
		const start = await stage.present.next('session.start', stage.patienceMs);
		ensure(start.prompt !== undefined || start.prompts !== undefined, 'session.start has no prompt');
		stage.present.send({ type: 'generation.of_tomorrow' });
	} },
	{ name: 'answers pings of the WebSocket', section: RULES, run: async (stage) => {
		ensure(await Promise.race([stage.present.ponged().then(() => true), sleep(PONG_PATIENCE_MS, false)]), `no pong came in ${PONG_PATIENCE_MS / 1000} s`);
	} },
	{ name: 'offers to receive the video', section: '`webrtc.offer`', run: async (stage) => {
		const offer = await stage.present.next('webrtc.offer', Math.min(stage.patienceMs, PONG_PATIENCE_MS)).catch(() => skip('the client asked for no video'));
		stage.hasOffered = true;
		const media = [...offer.sdp.matchAll(/^m=(\w+)/gmu)].map(([, kind]) => kind);
		ensure(media.includes('video') && media.includes('application'), `the offer has ${media.join(' and ')} instead of video and a data channel`);
	} },
	{ name: 'comes back within the grace, with the last token that it was told', section: COMING_BACK, run: async (stage) => {
		stage.present.drop();
		await stage.comeBack(Math.min(RESUME_GRACE_MS, stage.patienceMs));
	} },
	{ name: 'offers again when it is back', section: COMING_BACK, run: async (stage) => {
		if (!stage.hasOffered) {
			return skip('the client asked for no video before');
		}
		await stage.present.next('webrtc.offer', stage.patienceMs);
	} },
	{ name: 'tries again less and less often while the server is gone', section: COMING_BACK, run: async (stage) => {
		stage.isRefusing = true;
		const goneAtMs = performance.now();
		stage.present.drop();
		await sleep(OUTAGE_MS);
		stage.isRefusing = false;
		const attempts = stage.attempts.filter((atMs) => atMs >= goneAtMs);
		ensure(attempts.length > 0, `the client did not try in ${OUTAGE_MS / 1000} s`);
		ensure(attempts.length <= MOST_ATTEMPTS, `the client tried ${attempts.length} times in ${OUTAGE_MS / 1000} s`);
		const gaps = attempts.map((atMs, index) => atMs - (attempts[index - 1] ?? goneAtMs));
		ensure(attempts.length < 3 || (gaps.at(-1) ?? 0) > (gaps[0] ?? 0), `the client waited ${gaps.map((gap) => Math.round(gap)).join(', ')} ms between its attempts, never longer`);
		await stage.comeBack(LONGEST_DELAY_MS + stage.patienceMs);
	} },
	{ name: 'waits for retry_after_ms when it is told to', section: '`error`', run: async (stage) => {
		stage.present.drop();
		const connection = await stage.arrival();
		connection.send(errorMessage(new TurbocastError('capacity_exhausted', 'The script has no place at the moment.', { retryAfterMs: RETRY_AFTER_MS })));
		connection.send({ ...stage.session.ended, reason: 'failed' });
		const toldAtMs = performance.now();
		connection.close(1013, 'failed');
		await stage.comeBack(RETRY_AFTER_MS + stage.patienceMs);
		const waitedMs = (stage.attempts.at(-1) ?? 0) - toldAtMs;
		ensure(waitedMs >= RETRY_AFTER_MS - TOLERANCE_MS, `the client came back after ${Math.round(waitedMs)} ms; retry_after_ms was ${RETRY_AFTER_MS}`);
	} },
	{ name: 'does not fight for a session that another connection took over', section: COMING_BACK, run: async (stage) => {
		stage.present.send(errorMessage(new TurbocastError('session_taken_over', 'The script took the session over.')));
		stage.present.send({ ...stage.session.ended, reason: 'taken_over' });
		stage.present.close(4409, 'taken_over');
		const came = await stage.arrival(SILENCE_MS).then(() => true, () => false);
		ensure(!came, 'the client connected again');
	} },
	{ name: 'sends right messages only, and steers nothing before it has started', section: 'Client to server', run: (stage) => {
		const [violation] = stage.connections.flatMap(({ violations }) => violations);
		ensure(violation === undefined, violation ?? '');
		return Promise.resolve();
	} },
	{ name: 'gives no event_id to two messages, but for one that it sends again', section: 'Client to server', run: (stage) => {
		const types = new Map<string, string>();
		for (const [id, type] of stage.connections.flatMap(({ eventIds }) => [...eventIds])) {
			ensureEqual(type, types.get(id) ?? type, `the type of a second message with event_id ${id}`);
			types.set(id, type);
		}
		return types.size === 0 ? skip('the client gave no event_id') : Promise.resolve();
	} },
];

const play = async (stage: Stage, { name, section, run }: Scene, isLost: boolean): Promise<Result> => {
	const startedAtMs = performance.now();
	const result = (verdict: Result['verdict'], reason?: string): Result => ({ name, section, verdict, reason, tookMs: Math.round(performance.now() - startedAtMs) });
	if (isLost) {
		return result('skipped', 'the client has no connection any more');
	}
	try {
		await run(stage);
		return result('pass');
	} catch (error) {
		return result(error instanceof Inapplicable ? 'skipped' : 'fail', error instanceof Error ? error.message : String(error));
	}
};

/** Scenes that look back on what was said, whatever became of the connection. */
const LOOKS_BACK = 'Client to server';

/** Results as they come. Throws the reason of the signal. */
export const runClientSuite = async function* (options: ClientSuiteOptions): AsyncGenerator<Result, void> {
	const http = createServer((_request, response) => response.writeHead(426).end());
	await new Promise<void>((resolve, reject) => {
		http.once('error', (error) => reject(new TurbocastError('port_in_use', `Port ${options.port} cannot be listened on; give another with --port.`, { cause: error })));
		http.listen(options.port, '127.0.0.1', resolve);
	});
	const stage = new Stage(options, http);
	options.onListening(`ws://127.0.0.1:${(http.address() as AddressInfo).port}${REALTIME_PATH}`);
	let isLost = false;
	try {
		for (const scene of SCENES) {
			options.signal.throwIfAborted();
			const result = await play(stage, scene, isLost && scene.section !== LOOKS_BACK);
			isLost ||= result.verdict === 'fail' && (stage.connections.length === 0 || await Promise.race([stage.present.closed.then(() => true), sleep(0, false)]));
			yield result;
		}
	} finally {
		await stage.close();
	}
};
