/** A server that spoils one answer is caught by the case that is about it. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { runServerSuite } from '../../src/conformance/server-suite.js';
import type { Result } from '../../src/conformance/verdict.js';
import { serve, type Served } from '../cli/served.js';
import { mangle, type Mangling, type Message } from './mangling-proxy.js';

let served: Served;
before(async () => {
	served = await serve({ TURBOCAST_LOG__LEVEL: 'warn' });
});
after(() => served[Symbol.asyncDispose]());

/** Room for a machine that is busy; a case that catches its mistake does not wait so long. */
const PATIENCE_MS = 60_000;

const run = async (url: string, only: string, patienceMs = PATIENCE_MS): Promise<Result[]> => {
	const results: Result[] = [];
	for await (const result of runServerSuite({ url, token: undefined, patienceMs, only, signal: AbortSignal.timeout(200_000) })) {
		results.push(result);
	}
	return results;
};

const spoilt = (type: string, change: (message: Message) => Message | undefined): Mangling => ({
	toClient: (message) => (message['type'] === type ? change(message) : message),
});

/** Where the mistake is that nothing comes, all of the patience is waited. */
const MISTAKES: readonly (readonly [mistake: string, caseName: string, says: RegExp, mangling: Mangling, patienceMs?: number])[] = [
	['a change is accepted without its event_id', 'a change is accepted for a chunk', /event.accepted did not come/u, spoilt('event.accepted', (message) => ({ ...message, event_id: undefined })), 20_000],
	['a change is applied a chunk late', 'at.chunk puts a change off', /instead of \[\d+,\d+\]/u, spoilt('event.applied', (message) => ({ ...message, chunk_index: Number(message['chunk_index']) + 1 }))],
	['an end without a word', 'session.stop ends with session.ended', /closed the connection with 1000 without session.ended/u, spoilt('session.ended', () => undefined)],
	['a wrong close code', 'a message that is too long is refused', /the close code is 1000 instead of 1009/u, { closeCode: () => 1000 }],
	['another session instead of the one that was lost', 'goes on with its token where it was', /session_id/u, spoilt('session.ready', (message) => (message['resumed'] === true ? { ...message, session_id: 'another' } : message))],
	['a wrong code for an empty prompt', 'each wrong field is named', /is error invalid_request instead of invalid_prompt/u, spoilt('error', (message) => ({ ...message, code: message['code'] === 'invalid_prompt' ? 'invalid_request' : message['code'] }))],
	['a gap between chunks', 'chunks follow each other without a gap', /chunk_index and first_frame_id is/u, spoilt('chunk.completed', (message) => (message['chunk_index'] === 2 ? { ...message, first_frame_id: 99 } : message))],
	['generation that runs ahead of its lead', 'generation stays within the lead', /lead_ms is 700 with max_lead_ms 100/u, spoilt('chunk.completed', (message) => ({ ...message, lead_ms: 700, fps: 16 }))],
	['a message that the schema does not know', 'pong repeats', /not a message of the protocol: `server_ms` is missing/u, spoilt('pong', (message) => ({ ...message, server_ms: undefined }))],
	['an answer without video', 'an offer is answered before', /refuses the video/u, spoilt('webrtc.answer', (message) => ({ ...message, sdp: String(message['sdp']).replace(/^m=video \d+/mu, 'm=video 0') }))],
	['a pause that pauses nothing', 'a pause begins no other chunk', /made during the pause|was applied during the pause/u, {
		answer: (message) => (message['type'] === 'session.pause' ? { type: 'session.paused', event_id: message['event_id'], frame_id: 0, media_ms: 0 } : undefined),
	}],
	['pictures without their records', 'video.open brings pictures', /no frame.meta followed the picture of frame/u, spoilt('frame.meta', () => undefined)],
	['an answer without the telemetry channel', 'each frame has one record', /refuses the data channel/u, spoilt('webrtc.answer', (message) => ({ ...message, sdp: String(message['sdp']).replace(/^m=application \d+/mu, 'm=application 0') }))],
	['a change whose frame has another time than its record', 'the first frame that carries a change', /rtp_timestamp and chunk_index of the record is/u, spoilt('event.applied', (message) => ({ ...message, rtp_timestamp: Number(message['rtp_timestamp']) + 1 }))],
	['the greeting comes second', 'session.created is the first message', /the first message was pong instead of session.created/u, spoilt('session.created', () => ({ type: 'pong', server_ms: 1 }))],
];

for (const [mistake, caseName, says, mangling, patienceMs] of MISTAKES) {
	test(`caught: ${mistake}`, async () => {
		await using proxy = await mangle(served.socketUrl, mangling);
		const results = await run(proxy.url, caseName, patienceMs);
		assert.deepEqual(results.map(({ verdict }) => verdict), ['fail'], JSON.stringify(results));
		assert.match(results[0]?.reason ?? '', says);
	});
}

test('a rule that is broken ends the case at once, however long an answer is waited for', async () => {
	await using proxy = await mangle(served.socketUrl, spoilt('pong', (message) => ({ ...message, server_ms: undefined })));
	const [result] = await run(proxy.url, 'pong repeats', 3_600_000);
	assert.match(result?.reason ?? '', /`server_ms` is missing/u);
});

test('a server that cannot keep up, and shows its frames slower, may be ahead by what they last then', async () => {
	await using proxy = await mangle(served.socketUrl, spoilt('chunk.completed', (message) => ({ ...message, lead_ms: 700, fps: 12 })));
	assert.deepEqual((await run(proxy.url, 'generation stays within the lead')).map(({ verdict }) => verdict), ['pass']);
});

test('a proxy that spoils nothing is not caught', async () => {
	await using proxy = await mangle(served.socketUrl, {});
	assert.deepEqual((await run(proxy.url, 'chunks follow')).map(({ verdict }) => verdict), ['pass']);
});
