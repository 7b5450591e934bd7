/** Cases of the connection itself: handshake, greeting, what is no message, and what ends it. */
import { MAX_EVENT_ID_LENGTH, MAX_SDP_LENGTH, SUBPROTOCOL } from '../protocol/limits.js';
import type { ErrorCode } from '../protocol/errors.js';
import { Refused, type Connection } from './connection.js';
import { casesOf, ensureRefused, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, skip } from './verdict.js';

const refusedWith = async (connecting: Promise<Connection>): Promise<number> =>
	connecting.then(() => 101, (error: unknown) => {
		if (error instanceof Refused) {
			return error.status;
		}
		throw error;
	});

/** Sends the frame, and expects `code` without an `event_id`, on a connection that goes on. */
const ensureFrameRefused = async (connection: Connection, frame: string | Uint8Array, code: ErrorCode | readonly ErrorCode[], isBinary = false): Promise<void> => {
	connection.sendFrame(frame, isBinary);
	const error = await connection.next('error');
	ensure([code].flat().includes(error.code), `the answer to ${isBinary ? 'a binary frame' : JSON.stringify(frame.toString().slice(0, 60))} is ${error.code} instead of ${[code].flat().join(' or ')}`);
	await connection.assertAlive();
};

/** Most mistakes that are made to see whether a server minds. */
const MANY_MISTAKES = 300;
/** More at once than a server should listen to. */
const MANY_MESSAGES = 1000;

/** An error that names the mistake, then `session.ended`, then the close. */
const ensureEnded = async (connection: Connection, code: ErrorCode, closeCode: number): Promise<void> => {
	await connection.next('error', (error) => error.code === code);
	await connection.next('session.ended');
	ensureEqual((await connection.closed()).code, closeCode, 'the close code');
};

const awaitTimeout = async (subject: Subject, name: 'start_timeout_ms' | 'idle_timeout_ms', fields: object | undefined): Promise<void> => {
	const { connection, created } = await subject.open();
	const timeoutMs = created.limits[name];
	if (timeoutMs > subject.patienceMs) {
		return skip(`limits.${name} of this server is ${timeoutMs / 1000} s, longer than this run waits`);
	}
	if (fields !== undefined) {
		await subject.untilReady(connection, connection.ask({ type: 'session.start', ...fields }));
	}
	await connection.next('error', ({ code }) => code === name.replace('_ms', ''), timeoutMs + subject.patienceMs);
	await connection.next('session.ended');
	ensureEqual((await connection.closed()).code, 4408, 'the close code');
};

export const OPENING_CASES: readonly ServerCase[] = [
	...casesOf('The protocol, version 1', {
		'session.created is the first message of every connection': async (subject) => {
			const { connection, created } = await subject.open();
			ensureEqual(created.protocol_version, '1', 'protocol_version');
			ensureEqual(connection.received[0]?.type, 'session.created', 'the first message');
			ensure(created.model.steps.includes(created.model.default_steps), 'model.default_steps is not one of model.steps');
			ensure(created.model.transitions.length > 0, 'model.transitions is empty');
		},
		'two connections have two sessions': async (subject) => {
			const [one, other] = [await subject.open(), await subject.open()];
			ensure(one.created.session_id !== other.created.session_id, 'both have the same session_id');
			ensure(one.created.resume_token === undefined || one.created.resume_token !== other.created.resume_token, 'both have the same resume_token');
		},
		'the sub-protocol is taken when it is offered, and offering none is fine': async (subject) => {
			ensureEqual((await subject.connect()).protocol, SUBPROTOCOL, 'the sub-protocol of the answer');
			if (subject.token === undefined) {
				const connection = await subject.connect({ protocols: [] });
				await connection.next('session.created');
			}
		},
		'an unknown sub-protocol is refused with HTTP 406': async (subject) => {
			ensureEqual(await refusedWith(subject.connect({ protocols: ['chat.v7'] })), 406, 'the status');
		},
		'pages of other origins are refused with HTTP 403': async (subject) => {
			const status = await refusedWith(subject.connect({ origin: 'https://stranger.example' }));
			if (status === 101) {
				return skip('this server allows all origins');
			}
			ensureEqual(status, 403, 'the status');
		},
		'what is not JSON, not UTF-8, binary or no object is invalid_message, and the connection goes on': async (subject) => {
			const { connection } = await subject.open();
			await ensureFrameRefused(connection, '{"type": "ping"', 'invalid_message');
			await ensureFrameRefused(connection, '', 'invalid_message');
			await ensureFrameRefused(connection, '[]', 'invalid_message');
			await ensureFrameRefused(connection, 'null', 'invalid_message');
			await ensureFrameRefused(connection, '"ping"', 'invalid_message');
			await ensureFrameRefused(connection, new Uint8Array([0x7b, 0x7d]), 'invalid_message', true);
			await ensureFrameRefused(connection, new Uint8Array([0x22, 0xc3, 0x28, 0x22]), 'invalid_message');
		},
		'an unknown type is refused with the event_id, and the connection goes on': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'session.of_tomorrow' }, 'invalid_message');
			await ensureRefused(connection, { type: 'toString' }, 'invalid_message');
			await ensureFrameRefused(connection, '{"event_id": "x"}', ['invalid_message', 'invalid_request']);
			await connection.assertAlive();
		},
		'unknown fields are ignored': async (subject) => {
			const { connection } = await subject.open();
			await connection.answer('pong', connection.ask({ type: 'ping', of_tomorrow: { deep: [1] } }));
		},
		'a message that is too long is refused, and ends the connection with 1009': async (subject) => {
			const { connection, created } = await subject.open();
			connection.send({ type: 'ping', filler: 'x'.repeat(created.limits.max_message_bytes) });
			await ensureEnded(connection, 'message_too_big', 1009);
		},
		'a message as long as is allowed is taken': async (subject) => {
			const { connection, created } = await subject.open();
			const message = { type: 'ping', event_id: 'long', filler: '' };
			connection.send({ ...message, filler: 'x'.repeat(created.limits.max_message_bytes - JSON.stringify(message).length) });
			await connection.answer('pong', 'long');
		},
	}),
	...casesOf('`ping`', {
		'pong repeats event_id and ts_ms, and the clock of the server never goes back': async (subject) => {
			const { connection } = await subject.open();
			let serverMs = 0;
			for (const tsMs of [0, 1.5, 123_456_789.25]) {
				const pong = await connection.answer('pong', connection.ask({ type: 'ping', ts_ms: tsMs }));
				ensureEqual(pong.ts_ms, tsMs, 'ts_ms');
				ensure(pong.server_ms >= serverMs, 'server_ms went back');
				serverMs = pong.server_ms;
			}
		},
	}),
	...casesOf('Limits', {
		'an event_id has 1 to 128 characters': async (subject) => {
			const { connection } = await subject.open();
			const longest = 'e'.repeat(MAX_EVENT_ID_LENGTH);
			connection.send({ type: 'ping', event_id: longest });
			await connection.answer('pong', longest);
			await ensureRefused(connection, { type: 'ping', event_id: `${longest}e` }, 'invalid_request', 'event_id');
			await ensureRefused(connection, { type: 'ping', event_id: '' }, 'invalid_request', 'event_id');
			await ensureRefused(connection, { type: 'ping', event_id: 7 }, 'invalid_request', 'event_id');
		},
		'an SDP that is too long is invalid_sdp': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'webrtc.offer', sdp: 'v'.repeat(MAX_SDP_LENGTH + 1) }, 'invalid_sdp', 'sdp');
		},
		'too many messages a second are rate_limited with retry_after_ms': async (subject) => {
			const { connection } = await subject.open();
			for (let index = 0; index < MANY_MESSAGES; index += 1) {
				connection.send({ type: 'ping' });
			}
			let refused: number | undefined;
			for (let answers = 0; answers < MANY_MESSAGES && refused === undefined; answers += 1) {
				const answer = await connection.first(({ type }) => type === 'pong' || type === 'error', 'an answer');
				if (answer.type === 'error') {
					ensureEqual(answer.code, 'rate_limited', 'the code');
					refused = answer.retry_after_ms;
					ensure(refused !== undefined && refused > 0, 'retry_after_ms is missing');
				}
			}
			if (refused === undefined) {
				skip(`this server listened to ${MANY_MESSAGES} messages at once`);
			}
		},
		'repeated mistakes end the connection with 4429': async (subject) => {
			const { connection } = await subject.open();
			for (let mistakes = 0; mistakes < MANY_MISTAKES; mistakes += 1) {
				connection.send({ type: 'session.of_tomorrow' });
				const { code } = await connection.next('error');
				if (code === 'rate_limited') {
					await connection.next('session.ended', undefined, subject.patienceMs);
					ensureEqual((await connection.closed()).code, 4429, 'the close code');
					return;
				}
			}
			skip(`this server forgave ${MANY_MISTAKES} mistakes`);
		},
		'a connection that starts nothing ends with start_timeout': (subject) => awaitTimeout(subject, 'start_timeout_ms', undefined),
		'a session that nobody watches ends with idle_timeout': (subject) => awaitTimeout(subject, 'idle_timeout_ms', { prompt: 'a cat' }),
	}),
];
