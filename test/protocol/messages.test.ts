import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { MAX_EVENT_ID_LENGTH, MAX_PROMPT_LENGTH, MAX_SDP_LENGTH, MAX_SEED } from '../../src/protocol/limits.js';
import { CLIENT_MESSAGE_TYPES, errorMessage, eventIdOf, parseClientMessage, parseServerMessage } from '../../src/protocol/messages.js';

const refusal = (value: unknown): TurbocastError => {
	try {
		parseClientMessage(value);
	} catch (error) {
		assert.ok(error instanceof TurbocastError);
		return error;
	}
	return assert.fail(`accepted ${JSON.stringify(value).slice(0, 200)}`);
};

const refuses = (value: unknown, code: ErrorCode, param: string | undefined, says: RegExp): void => {
	const error = refusal(value);
	assert.equal(error.code, code);
	assert.equal(error.param, param);
	assert.match(error.message, says);
};

const start = { type: 'session.start', event_id: 'a', prompt: 'a cat jumps' } as const;

test('accepts each message with all its fields, and leaves unknown fields out', () => {
	for (const message of [
		{ ...start, model: 'toybox', size: '128x128', seed: MAX_SEED, parameters: { steps: 2 }, pacing: { max_lead_ms: 500 }, resume_token: 't' },
		{ type: 'session.update', prompt: 'a dog', parameters: { steps: 1 } },
		{ type: 'session.update', prompts: [{ text: 'a cat', weight: 2 }, { text: 'a dog', weight: 0.5 }], transition: { mode: 'blend', chunks: 4 }, seed: 7, at: { media_ms: 1000 } },
		{ type: 'session.update' },
		{ type: 'input.action', axes: { steer_x: -0.5 } },
		{ type: 'session.pause' },
		{ type: 'session.resume' },
		{ type: 'session.reset', seed: 3 },
		{ type: 'session.fork', prompt: 'a dog', seed: 3 },
		{ type: 'session.share', role: 'guest', expires_in_seconds: 60 },
		{ type: 'control.request' },
		{ type: 'control.grant', member_id: 'm' },
		{ type: 'control.release' },
		{ type: 'session.stop', reason: 'done' },
		{ type: 'webrtc.offer', sdp: 'v=0' },
		{ type: 'webrtc.candidate', candidate: { candidate: 'candidate:1', sdp_mid: '0', sdp_mline_index: 0, username_fragment: null } },
		{ type: 'webrtc.candidate', candidate: null },
		{ type: 'video.open', codecs: ['vp8', 'h264'] },
		{ type: 'video.ack', frame_id: 7 },
		{ type: 'video.keyframe' },
		{ type: 'video.close' },
		{ type: 'ping', ts_ms: 1.5 },
	]) {
		assert.deepEqual(parseClientMessage({ ...message, some_day: { new: true } }), message);
	}
	assert.equal(CLIENT_MESSAGE_TYPES.length, 19);
});

test('what is echoed to a client is whole Unicode, whatever it sent and wherever it is cut', () => {
	assert.equal(eventIdOf({ event_id: 'a\ud800' }), undefined);
	const half = new TurbocastError('invalid_request', `${'x'.repeat(4095)}\u{1f980}`, { param: `${'y'.repeat(255)}\u{1f980}` });
	const { message, param } = errorMessage(half, 'e');
	assert.ok(message.isWellFormed() && param?.isWellFormed() === true);
	assert.deepEqual([message.length, param.length], [4096, 256]);
	assert.ok(parseServerMessage(errorMessage(half)) !== undefined);
});

test('refuses what is not an object with a known type, naming the known ones', () => {
	for (const value of [null, 7, 'session.start', [], [start]]) {
		refuses(value, 'invalid_message', undefined, /JSON object with a `type`/u);
	}
	refuses({}, 'invalid_request', 'type', /missing/u);
	refuses({ type: 7 }, 'invalid_request', 'type', /must be text, not number/u);
	refuses({ type: 'session.begin' }, 'invalid_message', 'type', /`session.begin` is not a known message type; known: session.start/u);
	refuses({ type: '__proto__' }, 'invalid_message', 'type', /not a known message type/u);
	refuses({ type: 'toString' }, 'invalid_message', 'type', /not a known message type/u);
});

test('a prompt is text of 1 to 2000 characters that is not only white space', () => {
	assert.equal(parseClientMessage({ ...start, prompt: 'x'.repeat(MAX_PROMPT_LENGTH) }).type, 'session.start');
	refuses({ ...start, prompt: 'x'.repeat(MAX_PROMPT_LENGTH + 1) }, 'invalid_prompt', 'prompt', /at most 2000 characters, not 2001/u);
	refuses({ ...start, prompt: 'x'.repeat(10_000) }, 'invalid_prompt', 'prompt', /not 10000/u);
	refuses({ ...start, prompt: '' }, 'invalid_prompt', 'prompt', /must not be empty/u);
	refuses({ ...start, prompt: ' \n\t ' }, 'invalid_prompt', 'prompt', /must not be empty/u);
	refuses({ ...start, prompt: 'broken \ud800 half' }, 'invalid_prompt', 'prompt', /unpaired surrogate/u);
	refuses({ ...start, prompt: 7 }, 'invalid_prompt', 'prompt', /must be text, not number/u);
});

test('each wrong field is named', () => {
	refuses({ ...start, seed: -1 }, 'invalid_request', 'seed', /from 0 to 4294967295, not -1/u);
	refuses({ ...start, seed: MAX_SEED + 1 }, 'invalid_request', 'seed', /from 0 to 4294967295/u);
	refuses({ ...start, seed: 1.5 }, 'invalid_request', 'seed', /whole number/u);
	refuses({ ...start, seed: '1' }, 'invalid_request', 'seed', /must be a number, not string/u);
	refuses({ ...start, size: '128' }, 'invalid_request', 'size', /WIDTHxHEIGHT/u);
	refuses({ ...start, parameters: { steps: 5 } }, 'invalid_request', 'parameters.steps', /one of 1, 2, 3, 4/u);
	refuses({ ...start, parameters: 4 }, 'invalid_request', 'parameters', /must be an object, not number/u);
	refuses({ ...start, parameters: null }, 'invalid_request', 'parameters', /must be an object, not null/u);
	refuses({ ...start, event_id: '' }, 'invalid_request', 'event_id', /must not be empty/u);
	refuses({ ...start, event_id: 'x'.repeat(MAX_EVENT_ID_LENGTH + 1) }, 'invalid_request', 'event_id', /at most 128/u);
	refuses({ type: 'input.action', axes: { x: Number.NaN } }, 'invalid_request', 'axes.x', /must be a number/u);
	refuses({ type: 'input.action', axes: [] }, 'invalid_request', 'axes', /an object, not a list/u);
	refuses({ type: 'input.action', axes: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`a${index}`, 0])) }, 'invalid_request', 'axes', /at most 64 entries, not 65/u);
	refuses({ type: 'webrtc.offer', sdp: 'x'.repeat(MAX_SDP_LENGTH + 1) }, 'invalid_sdp', 'sdp', /at most/u);
	refuses({ type: 'webrtc.offer', sdp: {} }, 'invalid_sdp', 'sdp', /must be text, not an object/u);
	refuses({ type: 'video.open', codecs: [] }, 'invalid_request', 'codecs', /from 1 to 2 items/u);
	refuses({ type: 'video.open', codecs: ['av1'] }, 'invalid_request', 'codecs.0', /must be one of "h264", "vp8"/u);
	refuses({ type: 'video.ack', frame_id: -1 }, 'invalid_request', 'frame_id', /must be from 0/u);
	refuses({ type: 'webrtc.candidate' }, 'invalid_request', 'candidate', /missing/u);
	refuses({ type: 'webrtc.candidate', candidate: { candidate: 1 } }, 'invalid_request', 'candidate.candidate', /must be text/u);
	refuses({ type: 'session.stop', reason: 'x'.repeat(257) }, 'invalid_request', 'reason', /at most 256/u);
	refuses({ type: 'session.update', prompts: [] }, 'invalid_request', 'prompts', /from 1 to 8 items/u);
	refuses({ type: 'session.update', prompts: [{ text: 'a', weight: 0 }] }, 'invalid_request', 'prompts.0.weight', /from 0.001 to 1000/u);
	refuses({ type: 'session.update', prompts: [{ text: ' ', weight: 1 }] }, 'invalid_prompt', 'prompts.0.text', /must not be empty/u);
	refuses({ type: 'session.update', transition: { mode: 'fade' } }, 'invalid_request', 'transition.mode', /"cut", "recache", "blend"/u);
	refuses({ type: 'session.update', transition: { mode: 'blend', chunks: 65 } }, 'invalid_request', 'transition.chunks', /from 1 to 64/u);
	refuses({ type: 'session.update', at: { chunk: -1 } }, 'invalid_request', 'at.chunk', /from 0/u);
	refuses({ type: 'session.update', at: { media_ms: 86_400_001 } }, 'invalid_request', 'at.media_ms', /from 0 to 86400000/u);
	refuses({ type: 'session.update', pacing: { max_lead_ms: 99 } }, 'invalid_request', 'pacing.max_lead_ms', /from 100 to 60000/u);
	refuses({ type: 'session.share', role: 'driver' }, 'invalid_request', 'role', /"viewer", "guest"/u);
	refuses({ type: 'ping', ts_ms: 'now' }, 'invalid_request', 'ts_ms', /must be a number/u);
});

test('an inherited field does not count as given', () => {
	const value = Object.create({ type: 'session.start', prompt: 'inherited' }) as object;
	refuses(value, 'invalid_request', 'type', /missing/u);
});

test('finds the event_id of a message that is wrong in every other way', () => {
	assert.equal(eventIdOf({ type: 5, event_id: 'x1' }), 'x1');
	for (const value of [null, 5, {}, { event_id: 5 }, { event_id: '' }, { event_id: 'x'.repeat(MAX_EVENT_ID_LENGTH + 1) }]) {
		assert.equal(eventIdOf(value), undefined);
	}
});

test('a client takes a message type of a newer server for nothing rather than for a mistake', () => {
	assert.equal(parseServerMessage({ type: 'session.of_tomorrow', seconds_left: 5 }), undefined);
	assert.deepEqual(parseServerMessage({ type: 'pong', server_ms: 3, newer: 1 }), { type: 'pong', server_ms: 3 });
	assert.throws(() => parseServerMessage({ type: 'pong' }), TurbocastError);
	assert.throws(() => parseServerMessage('pong'), TurbocastError);
});

test('an error becomes a message that a client can parse, with what is known and no more', () => {
	const bare = errorMessage(new TurbocastError('internal', 'It broke.'));
	assert.deepEqual(bare, { type: 'error', code: 'internal', message: 'It broke.', retryable: true });
	const full = errorMessage(new TurbocastError('rate_limited', 'y'.repeat(5000), { param: 'p'.repeat(300), retryAfterMs: 5 }), 'e1');
	assert.deepEqual(parseServerMessage(full), { ...full, message: 'y'.repeat(4096), param: 'p'.repeat(256), event_id: 'e1', retry_after_ms: 5 });
});
