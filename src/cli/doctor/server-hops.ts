/** The way to a server, hop by hop, as a client goes it. Each hop has a time; what hangs is told as not reached. */
import { get as httpGet, type IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import { Connection, Refused } from '../../conformance/connection.js';
import { fine, judgeClock, judgeMedia, judgeTurn, wrong, type Finding } from '../../protocol/diagnoses.js';
import { TurbocastError } from '../../protocol/errors.js';
import { REALTIME_PATH } from '../../protocol/limits.js';
import type { ServerMessages } from '../../protocol/messages.js';
import { ownAddresses } from '../../transport/own-addresses.js';
import { candidateAddresses, Probe } from '../../transport/probe.js';
import { tryTurn } from '../../transport/turn-probe.js';

export type ServerExamination = {
	/** Of the server: http or https. */
	readonly url: URL;
	readonly token: string | undefined;
	/** Of the page in whose place the doctor speaks, if any. */
	readonly origin: string | undefined;
	/** A session is started, which takes a place, until its first picture came. */
	readonly wantsPicture: boolean;
	/** For one hop. */
	readonly patienceMs: number;
	/** Milliseconds since 1970. */
	readonly wallMs: () => number;
};

type Reached = { readonly address: string; readonly status: number; readonly body: string; readonly skewMs: number | undefined; readonly uncertaintyMs: number };

/** The error that ends the way, as a sentence without its end. */
const reasonOf = (error: unknown): string => {
	const { code, message } = error as NodeJS.ErrnoException;
	switch (code) {
		case 'ENOTFOUND': case 'EAI_AGAIN':
			return 'its name is not known to the DNS';
		case 'ECONNREFUSED':
			return 'nothing listens on that port';
		case 'EHOSTUNREACH': case 'ENETUNREACH':
			return 'no network leads there';
		case 'ETIMEDOUT':
			return 'nothing came back in time, as behind a firewall';
		default:
			return message.replace(/\.$/u, '');
	}
};

const MOST_BODY_BYTES = 65_536;

const reach = (url: URL, { patienceMs, wallMs }: ServerExamination): Promise<Reached> => new Promise((resolve, reject) => {
	const startedMs = wallMs();
	const signal = AbortSignal.timeout(patienceMs);
	const request = (url.protocol === 'https:' ? httpsGet : httpGet)(url, { signal, agent: false }, (response: IncomingMessage) => {
		const endedMs = wallMs();
		const address = response.socket.remoteAddress ?? url.hostname;
		const dateMs = Date.parse(response.headers.date ?? '');
		let body = '';
		response.setEncoding('utf8').on('data', (text: string) => {
			body = (body + text).slice(0, MOST_BODY_BYTES);
		});
		response.on('error', reject);
		response.on('end', () => resolve({
			address: address.replace(/^::ffff:/u, ''), status: response.statusCode ?? 0, body,
			// An HTTP date leaves the fraction of its second out.
			skewMs: Number.isNaN(dateMs) ? undefined : dateMs + 500 - (startedMs + endedMs) / 2,
			uncertaintyMs: 500 + (endedMs - startedMs) / 2,
		}));
	});
	request.on('error', (error) => reject(signal.aborted ? Object.assign(new Error('nothing came back in time'), { code: 'ETIMEDOUT' }) : error));
});

const judgeHealth = ({ status, body }: Reached, url: URL): Finding => {
	let told: { readonly status?: unknown; readonly error?: { readonly message?: unknown } } = {};
	try {
		told = JSON.parse(body) as typeof told;
	} catch {
		// No JSON: not ours.
	}
	if (status === 200 && told.status === 'ok') {
		return fine('server', `The server at ${url.origin} answers.`);
	}
	return status === 503 && typeof told.error?.message === 'string'
		? wrong('server_ill', { why: told.error.message })
		: wrong('server_other', { url: url.origin, why: `/healthz was answered with HTTP ${status}` });
};

type Greeting = ServerMessages['session.created'];

const judgeRefusal = (error: unknown, socketUrl: string, origin: string | undefined): Finding => {
	if (error instanceof Refused && error.status === 403) {
		return wrong('origin_refused', { origin: origin ?? 'no origin' });
	}
	return wrong('upgrade_blocked', { url: socketUrl, why: error instanceof Refused ? `it was answered with HTTP ${error.status}` : reasonOf(error) });
};

const judgeError = ({ code, message }: ServerMessages['error']): Finding => {
	switch (code) {
		case 'unauthorized': case 'token_expired': case 'session_not_found':
			return wrong('key_refused', { why: message });
		case 'forbidden':
			return wrong('key_refused', { why: message });
		default:
			return wrong('not_admitted', { why: message });
	}
};

/** The first word of the server: a greeting, or why there is none. */
const greet = async (connection: Connection): Promise<Greeting | Finding> => {
	try {
		const first = await connection.first(({ type }) => type === 'session.created' || type === 'error', 'session.created');
		return first.type === 'error' ? judgeError(first) : first as Greeting;
	} catch (error) {
		return wrong('not_admitted', { why: `${reasonOf(error)}.` });
	}
};

/** From the first hop to the last, as far as the way goes. */
export async function* examineServer(examination: ServerExamination): AsyncGenerator<Finding, void> {
	const { url, token, origin, patienceMs } = examination;
	let reached: Reached;
	try {
		reached = await reach(new URL('/healthz', url), examination);
	} catch (error) {
		yield wrong('server_unreached', { url: url.origin, why: reasonOf(error) });
		return;
	}
	const health = judgeHealth(reached, url);
	yield health;
	if (health.diagnosis === 'server_other') {
		return;
	}
	if (reached.skewMs !== undefined) {
		yield judgeClock(reached.skewMs, reached.uncertaintyMs);
	}
	const socketUrl = new URL(REALTIME_PATH, url.href.replace(/^http/u, 'ws')).href;
	let connection: Connection;
	try {
		connection = await Connection.open({ url: socketUrl, token, patienceMs, ...(origin === undefined ? {} : { origin }) });
	} catch (error) {
		yield judgeRefusal(error, socketUrl, origin);
		return;
	}
	try {
		const greeting = await greet(connection);
		if ('hop' in greeting) {
			yield greeting;
			return;
		}
		yield fine('admission', `The server lets ${token === undefined ? 'us' : 'the key'} in${origin === undefined ? '' : `, and pages of ${origin}`}.`);
		const media = yield* examineMedia(connection, greeting, reached.address, examination);
		if (media !== undefined) {
			await media[Symbol.asyncDispose]();
		}
	} finally {
		await connection.leave(1000);
	}
}

async function* examineMedia(connection: Connection, { ice_servers: iceServers }: Greeting, reached: string, { patienceMs, wantsPicture }: ServerExamination): AsyncGenerator<Finding, Probe | undefined> {
	const turn = judgeTurn(iceServers, (url, username, credential) => tryTurn(url, username, credential, patienceMs));
	// Of no use here: whether it relays is asked of each by itself.
	const probe = await Probe.open(iceServers.map((server) => ({ ...server, urls: server.urls.filter((each) => each.startsWith('stun')) })).filter(({ urls }) => urls.length > 0));
	const eventId = connection.ask({ type: 'webrtc.offer', sdp: probe.offer });
	let answer: string;
	try {
		const message = await connection.first((each) => each.type === 'webrtc.answer' || (each.type === 'error' && each.event_id === eventId), 'webrtc.answer');
		if (message.type === 'error') {
			yield message.code === 'unsupported_media' ? wrong('codec_missing', { why: message.message }) : wrong('not_admitted', { why: message.message });
			return probe;
		}
		answer = (message as ServerMessages['webrtc.answer']).sdp;
	} catch (error) {
		yield wrong('not_admitted', { why: `The offer of video was not answered (${TurbocastError.from(error).message}).` });
		return probe;
	}
	yield fine('codec', `Both sides have ${/^a=rtpmap:\d+ H264\//imu.test(answer) ? 'H.264' : 'VP8'}.`);
	await probe.answer(answer);
	const pair = await probe.connected(patienceMs);
	yield* await turn;
	yield judgeMedia({ pair, reached, announced: candidateAddresses(answer), own: ownAddresses() });
	if (wantsPicture && pair !== undefined) {
		connection.ask({ type: 'session.start', prompt: 'a cat jumps' });
		yield await probe.hasPackets(3 * patienceMs)
			? fine('picture', 'A session was started, and its picture came.')
			: wrong('picture_missing', { why: connection.received.filter((message) => message.type === 'error').at(-1)?.message ?? 'the server said nothing.' });
	}
	return probe;
}
