/** Cases of what stands around sessions: video negotiation, credentials, HTTP. */
import { CLIENT_SECRETS_PATH } from '../protocol/client-secrets.js';
import { ERRORS, isErrorCode } from '../protocol/errors.js';
import { CLIENT_MESSAGE_TYPES, SERVER_MESSAGE_TYPES } from '../protocol/messages.js';
import type { Connection } from './connection.js';
import { offerSdp } from './offer-sdp.js';
import { casesOf, ensureRefused, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, quote, skip } from './verdict.js';

const offer = async (connection: Connection, sessionVersion = 2): Promise<string> =>
	(await connection.answer('webrtc.answer', connection.ask({ type: 'webrtc.offer', sdp: offerSdp(sessionVersion) }))).sdp;

const ensureVideoAnswer = async (connection: Connection, sdp: string): Promise<void> => {
	const [, video = '', application = ''] = sdp.split(/^m=/mu);
	ensure(/^video [1-9]/u.test(video), 'the answer refuses the video (its port is 0)');
	ensure(/^a=(sendonly|sendrecv)\r?$/mu.test(video), 'the answer does not send the video');
	ensure(/^a=fingerprint:/mu.test(sdp) && /^a=ice-ufrag:/mu.test(sdp), 'the answer has no fingerprint or no ice-ufrag');
	ensure(/^application [1-9]/u.test(application), 'the answer refuses the data channel (its port is 0)');
	if (!/^a=candidate:/mu.test(sdp)) {
		await connection.next('webrtc.candidate');
	}
};

/** Of the warnings before an end, as docs/protocol.md has them. */
const LAST_WARNING_S = 10;

/** Opens a connection that is to be turned away. */
const ensureTurnedAway = async (subject: Subject, token: string | null, codes: readonly string[]): Promise<void> => {
	const connection = await subject.connect({ token });
	const first = await connection.first(({ type }) => type === 'session.created' || type === 'error', 'an error');
	if (first.type === 'session.created') {
		return skip('this server asks nobody for a credential');
	}
	ensure(first.type === 'error' && codes.includes(first.code), `the first message is ${quote(first)} instead of error ${codes.join(' or ')}`);
	await connection.next('session.ended');
	ensureEqual((await connection.closed()).code, ERRORS[first.code].closeCode, 'the close code');
};

const get = async (subject: Subject, path: string): Promise<{ readonly status: number; readonly body: unknown }> => {
	const { token } = subject;
	const response = await fetch(new URL(path, subject.httpUrl), { signal: AbortSignal.timeout(subject.patienceMs), ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }) });
	const text = await response.text();
	try {
		return { status: response.status, body: JSON.parse(text) as unknown };
	} catch {
		return { status: response.status, body: text };
	}
};

export const ensureEnvelope = (body: unknown, status: number): void => {
	const error = (body as { error?: { code?: unknown; message?: unknown } } | null)?.error;
	ensure(isErrorCode(error?.code) && typeof error.message === 'string', `the body is ${quote(body)} instead of an error`);
	ensureEqual(ERRORS[error.code].httpStatus, status, `the status of ${error.code}`);
};

const askForSecret = async (subject: Subject, body: object): Promise<{ readonly status: number; readonly body: unknown }> => {
	const { token } = subject;
	if (token?.startsWith('sk_') !== true) {
		return skip('give a server key with --token to have client secrets tried');
	}
	const response = await fetch(new URL(CLIENT_SECRETS_PATH, subject.httpUrl), {
		method: 'POST', headers: { 'authorization': `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(subject.patienceMs),
	});
	return { status: response.status, body: await response.json() };
};

const secret = async (subject: Subject, body: object): Promise<string> => {
	const { status, body: answer } = await askForSecret(subject, body);
	ensureEqual(status, 200, 'the status');
	const { value } = answer as { value?: unknown };
	ensure(typeof value === 'string' && value.startsWith('ek_'), `value is ${quote(value)} instead of a secret`);
	return value;
};

/** A document for machines; its own title of a message is its `name`. */
const namesIn = (document: unknown): string[] =>
	Object.values((document as { components?: { messages?: { [key: string]: { name?: string } } } } | null)?.components?.messages ?? {}).map(({ name }) => name ?? '');

export const SERVICE_CASES: readonly ServerCase[] = [
	...casesOf('`webrtc.offer`', {
		'an offer is answered before a session is started, with video, data channel and candidates': async (subject) => {
			const { connection } = await subject.open();
			await ensureVideoAnswer(connection, await offer(connection));
		},
		'a later offer is answered, too': async (subject) => {
			const { connection } = await subject.open();
			await offer(connection);
			await ensureVideoAnswer(connection, await offer(connection, 3));
		},
		'candidates and their end are taken without a word': async (subject) => {
			const { connection } = await subject.open();
			await offer(connection);
			connection.send({ type: 'webrtc.candidate', candidate: { candidate: 'candidate:1 1 udp 2122260223 127.0.0.1 9 typ host', sdp_mid: '0', sdp_mline_index: 0, username_fragment: 'cOnF' } });
			connection.send({ type: 'webrtc.candidate', candidate: { candidate: '', sdp_mid: '0', sdp_mline_index: 0 } });
			connection.send({ type: 'webrtc.candidate', candidate: null });
			await connection.assertAlive();
			ensure(!connection.received.some(({ type }) => type === 'error'), 'a candidate was answered with an error');
		},
		'what is no offer is invalid_sdp, and the next offer is answered': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'webrtc.offer', sdp: 'v=0\r\nthis is no offer' }, 'invalid_sdp');
			await ensureVideoAnswer(connection, await offer(connection));
		},
	}),
	...casesOf('Keys and client secrets', {
		'where there are keys, no credential is unauthorized': (subject) => ensureTurnedAway(subject, null, ['unauthorized']),
		'where there are keys, a wrong credential is unauthorized': (subject) => ensureTurnedAway(subject, 'sk_00000000000000000000000000000000', ['unauthorized']),
		'a client secret opens as many connections as it is for': async (subject) => {
			const token = await secret(subject, { constraints: { max_sessions: 1 } });
			await (await subject.connect({ token })).next('session.created');
			await ensureTurnedAway(subject, token, ['unauthorized']);
		},
		'a client secret for watching starts nothing': async (subject) => {
			const token = await secret(subject, { permissions: { actions: ['view'] } });
			const { connection } = await subject.open(token);
			await ensureRefused(connection, { type: 'session.start', prompt: 'a cat' }, 'forbidden');
		},
		'a client secret for pages of one origin is forbidden to whoever names none': async (subject) =>
			ensureTurnedAway(subject, await secret(subject, { permissions: { origins: ['https://video.example'] } }), ['forbidden']),
		'a client secret for a session of some seconds tells so, warns, and ends it': async (subject) => {
			const { connection, created } = await subject.open(await secret(subject, { constraints: { max_session_seconds: LAST_WARNING_S + 1 } }));
			ensureEqual(created.limits.max_session_ms, (LAST_WARNING_S + 1) * 1000, 'limits.max_session_ms');
			await subject.untilReady(connection, connection.ask({ type: 'session.start', prompt: 'a cat' }));
			const { reason, seconds_left: secondsLeft } = await connection.next('session.expiring');
			ensureEqual([reason, secondsLeft], ['max_duration', LAST_WARNING_S], 'reason and seconds_left of session.expiring');
			const withinMs = LAST_WARNING_S * 1000 + subject.patienceMs;
			await connection.next('error', ({ code }) => code === 'max_duration', withinMs);
			ensureEqual((await connection.next('session.ended')).reason, 'max_duration', 'reason of session.ended');
			ensureEqual((await connection.closed()).code, ERRORS.max_duration.closeCode, 'the close code');
		},
		'an unknown field of the request is invalid_request': async (subject) => {
			const { status, body } = await askForSecret(subject, { constraints: { max_session: 1 } });
			ensureEqual(status, 400, 'the status');
			ensureEnvelope(body, status);
		},
	}),
	...casesOf('HTTP', {
		'health, readiness and models are answered': async (subject) => {
			ensureEqual((await get(subject, '/healthz')).status, 200, 'the status of /healthz');
			ensure([200, 503].includes((await get(subject, '/readyz')).status), 'the status of /readyz is neither 200 nor 503');
			const { status, body } = await get(subject, '/v1/models');
			if (status === 401 || status === 403) {
				ensureEnvelope(body, status);
				return;
			}
			ensureEqual(status, 200, 'the status of /v1/models');
			const { model } = (await subject.open()).created;
			ensure(((body as { data?: { id?: string }[] }).data ?? []).some(({ id }) => id === model.id), `/v1/models does not have ${model.id}`);
		},
		'an unknown address is not_found': async (subject) => {
			const { status, body } = await get(subject, '/v1/of/nobody');
			ensureEqual(status, 404, 'the status');
			ensureEnvelope(body, status);
		},
		'asyncapi.json names every message of this version': async (subject) => {
			const { status, body } = await get(subject, '/asyncapi.json');
			ensureEqual(status, 200, 'the status');
			const names = namesIn(body);
			const missing = [...CLIENT_MESSAGE_TYPES, ...SERVER_MESSAGE_TYPES, 'frame.meta'].filter((type) => !names.includes(type));
			ensureEqual(missing, [], 'what asyncapi.json leaves out');
		},
		'openapi.json describes the API': async (subject) => {
			const { status, body } = await get(subject, '/openapi.json');
			ensureEqual(status, 200, 'the status');
			ensure(Object.hasOwn((body as { paths?: object } | null)?.paths ?? {}, '/v1/models'), 'openapi.json has no /v1/models');
		},
	}),
];
