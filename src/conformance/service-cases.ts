/** Cases of what stands around sessions: video negotiation, credentials, HTTP. */
import { CLIENT_SECRETS_PATH } from '../protocol/client-secrets.js';
import { ERRORS, isErrorCode } from '../protocol/errors.js';
import { CLIENT_MESSAGE_TYPES, SERVER_MESSAGE_TYPES } from '../protocol/messages.js';
import type { Connection } from './connection.js';
import { casesOf, ensureRefused, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, quote, skip } from './verdict.js';

/** What Chromium offers for one video track to receive and a data channel, shortened to one format of each codec (RFC 9429). */
const offerSdp = (sessionVersion: number): string => [
	'v=0', `o=- 4611731400430051336 ${sessionVersion} IN IP4 127.0.0.1`, 's=-', 't=0 0', 'a=group:BUNDLE 0 1', 'a=msid-semantic: WMS',
	...[
		['m=video 9 UDP/TLS/RTP/SAVPF 96 97', 'a=mid:0', 'a=recvonly', 'a=rtcp-mux', 'a=rtcp-rsize', 'a=rtpmap:96 VP8/90000', 'a=rtcp-fb:96 nack', 'a=rtcp-fb:96 nack pli', 'a=rtpmap:97 H264/90000',
			'a=rtcp-fb:97 nack', 'a=rtcp-fb:97 nack pli', 'a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f'],
		['m=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'a=mid:1', 'a=sctp-port:5000', 'a=max-message-size:262144'],
	].flatMap(([media = '', ...lines]) => [
		media, 'c=IN IP4 0.0.0.0', 'a=ice-ufrag:cOnF', 'a=ice-pwd:c0nf0rmancec0nf0rmance00', 'a=ice-options:trickle',
		`a=fingerprint:sha-256 ${Array.from({ length: 32 }, (_, index) => index.toString(16).padStart(2, '0').toUpperCase()).join(':')}`, 'a=setup:actpass', ...lines,
	]), '',
].join('\r\n');

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

/** Half a second at 16 frames a second. */
const SOME_PICTURES = 8;
const AFTER_CLOSE_MS = 1000;

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

const ensureEnvelope = (body: unknown, status: number): void => {
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
		'an unknown field of the request is invalid_request': async (subject) => {
			const { status, body } = await askForSecret(subject, { constraints: { max_session: 1 } });
			ensureEqual(status, 400, 'the status');
			ensureEnvelope(body, status);
		},
	}),
	...casesOf('Video over the control socket', {
		'video.open brings pictures from a key frame on, each followed by its record, until video.close': async (subject) => {
			const { connection } = await subject.start();
			const { codec } = await connection.answer('video.opened', connection.ask({ type: 'video.open', codecs: ['h264', 'vp8'] }));
			let before: number | undefined;
			for (let count = 0; count < SOME_PICTURES; count += 1) {
				const { unit, meta } = await connection.nextPicture();
				ensure(count > 0 || unit.format !== undefined, 'the first picture is no key frame');
				ensure(unit.format === undefined || unit.format.codecString.startsWith(codec === 'h264' ? 'avc1.' : 'vp8'), `a key frame of ${codec} has the codec string ${quote(unit.format?.codecString)}`);
				ensureEqual(meta.keyframe, unit.format !== undefined, `keyframe of frame ${meta.frame_id}`);
				ensure(before === undefined || meta.frame_id > before, `frame ${meta.frame_id} came after frame ${before ?? ''}`);
				before = meta.frame_id;
				connection.send({ type: 'video.ack', frame_id: unit.frameId });
			}
			connection.send({ type: 'video.close' });
			await connection.assertAlive();
			connection.forget();
			const more = await connection.nextPicture(AFTER_CLOSE_MS).then(() => true, () => false);
			ensure(!more, 'pictures went on after video.close');
		},
		'a codec that there is none of is refused': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'video.open', codecs: ['of_tomorrow'] }, 'invalid_request');
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
