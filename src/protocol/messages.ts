/**
 * The messages of `WS /v1/realtime/video`: JSON text frames, dotted `type`, snake_case fields. Every message that a client
 * sends may carry an `event_id`, which every answer to it repeats. Unknown fields are ignored; an unknown type or a bad
 * field is answered by `error` and the connection goes on. `docs/protocol.md` explains each message; a test holds the
 * two together.
 */
import { ERROR_CODES, TurbocastError, type ErrorCode } from './errors.js';
import {
	MAX_EVENT_ID_LENGTH, MAX_PROMPT_LENGTH, MAX_SDP_LENGTH, MAX_SEED, STEP_COUNTS,
} from './limits.js';
import {
	anything, boolean, integer, list, literal, nullable, number, object, oneOf, optional, record, string, type Infer, type Schema,
} from './schema.js';

const eventId = optional(string({ min: 1, max: MAX_EVENT_ID_LENGTH }));
const id = string({ min: 1, max: 128 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
/** Milliseconds, fractions allowed. */
const ms = number({ min: 0, max: 1e12 });

/** A prompt: some text that is not only white space. */
export const promptText: Schema<string> = string({
	min: 1, max: MAX_PROMPT_LENGTH, pattern: /\S/u, says: 'must not be empty: say what should be seen', code: 'invalid_prompt',
});

const parameters = object({
	/** Denoising steps per chunk: fewer are faster, more are sharper. */
	steps: optional(oneOf(STEP_COUNTS)),
});

const startParameters = object({
	...parameters.shape,
	/** Rather fewer steps than waiting for a place. */
	allow_fewer_steps: optional(boolean()),
});

const size = string({ min: 3, max: 11, pattern: /^\d{1,5}x\d{1,5}$/u, says: 'must be WIDTHxHEIGHT in pixels, such as 128x128' });

const candidate = object({
	candidate: string({ max: 4096 }),
	sdp_mid: optional(nullable(string({ max: 64 }))),
	sdp_mline_index: optional(nullable(integer({ min: 0, max: 64 }))),
	username_fragment: optional(nullable(string({ max: 256 }))),
});

/** What a client may send. */
export const CLIENT_SCHEMAS = {
	'session.start': object({
		type: literal('session.start'), event_id: eventId,
		prompt: promptText,
		model: optional(string({ min: 1, max: 128 })),
		size: optional(size),
		seed: optional(integer({ min: 0, max: MAX_SEED })),
		parameters: optional(startParameters),
	}),
	'session.update': object({
		type: literal('session.update'), event_id: eventId,
		prompt: optional(promptText),
		parameters: optional(parameters),
	}),
	'input.action': object({
		type: literal('input.action'), event_id: eventId,
		/** Controls by the names of the model's schema; the latest value of each stays until changed. */
		axes: record(number({ min: -1e6, max: 1e6 }), { max: 64 }),
	}),
	'session.stop': object({ type: literal('session.stop'), event_id: eventId, reason: optional(string({ max: 256 })) }),
	'webrtc.offer': object({ type: literal('webrtc.offer'), event_id: eventId, sdp: string({ min: 1, max: MAX_SDP_LENGTH, code: 'invalid_sdp' }) }),
	'webrtc.candidate': object({
		type: literal('webrtc.candidate'), event_id: eventId,
		/** `null` ends the candidates. */
		candidate: nullable(candidate),
	}),
	'ping': object({ type: literal('ping'), event_id: eventId, ts_ms: optional(number({ min: 0, max: 1e15 })) }),
} as const;

export type ClientMessages = { [K in keyof typeof CLIENT_SCHEMAS]: Infer<(typeof CLIENT_SCHEMAS)[K]> };
export type ClientMessageType = keyof ClientMessages;
export type ClientMessage = ClientMessages[ClientMessageType];
export const CLIENT_MESSAGE_TYPES = Object.keys(CLIENT_SCHEMAS) as ClientMessageType[];

const iceServer = object({
	urls: list(string({ min: 1, max: 512 }), { min: 1, max: 16 }),
	username: optional(string({ max: 512 })),
	credential: optional(string({ max: 512 })),
});

const control = object({
	name: id, label: string({ max: 256 }),
	min: number({ min: -1e6, max: 1e6 }), max: number({ min: -1e6, max: 1e6 }), default: number({ min: -1e6, max: 1e6 }),
});

const modelInfo = object({
	id, title: string({ max: 1024 }),
	width: count, height: count, fps: number({ min: 1, max: 240 }),
	frames_per_chunk: count,
	steps: list(integer({ min: 1, max: 64 }), { min: 1, max: 16 }),
	default_steps: integer({ min: 1, max: 64 }),
	controls: list(control, { max: 64 }),
	examples: list(string({ max: MAX_PROMPT_LENGTH }), { max: 64 }),
});

export const END_REASONS = ['stopped', 'disconnected', 'idle', 'max_duration', 'draining', 'failed'] as const;
export type EndReason = (typeof END_REASONS)[number];

/** What a server may send. */
export const SERVER_SCHEMAS = {
	/** First message on every connection. */
	'session.created': object({
		type: literal('session.created'),
		session_id: id, protocol_version: id,
		model: modelInfo,
		ice_servers: list(iceServer, { max: 16 }),
		limits: object({ max_message_bytes: count, max_prompt_length: count, max_session_ms: count, idle_timeout_ms: count }),
	}),
	/** Every place is taken: sent on entering the line and whenever the position changes. */
	'session.queued': object({ type: literal('session.queued'), session_id: id, position: count, queue_size: count, estimated_wait_ms: ms }),
	/** The engine has a place for this session and is warm. Sent once, before the first chunk. */
	'session.ready': object({ type: literal('session.ready'), session_id: id, model: id, seed: count, steps: count, width: count, height: count, cold_start_ms: ms }),
	'generation.started': object({ type: literal('generation.started'), chunk_index: count, seed: count, media_ms: ms }),
	/** The change is valid and will be heard in this chunk. */
	'event.accepted': object({
		type: literal('event.accepted'), event_id: eventId,
		will_apply_at_chunk: count,
		/** Words of the prompt that the model has never learnt, as written. */
		unknown_words: list(string({ max: MAX_PROMPT_LENGTH }), { max: MAX_PROMPT_LENGTH }),
	}),
	/** First frame that carries the change, sent when that frame is handed to the transport. */
	'event.applied': object({
		type: literal('event.applied'), event_id: eventId,
		chunk_index: count, frame_id: count, rtp_timestamp: count, media_ms: ms,
		/** From the arrival of the message to the hand-over of that frame. */
		server_latency_ms: ms,
	}),
	'chunk.completed': object({
		type: literal('chunk.completed'),
		chunk_index: count, frames: count, first_frame_id: count, media_ms: ms,
		timings: object({ queue_ms: ms, text_ms: ms, denoise_ms: ms, clean_ms: ms, decode_ms: ms }),
		/** How far generation was ahead of display when the chunk was complete. */
		lead_ms: number({ min: -1e9, max: 1e9 }),
		deadline_missed: boolean(),
	}),
	/** The engine died and is being restarted; the session goes on by itself. */
	'session.reconnecting': object({ type: literal('session.reconnecting'), code: oneOf(ERROR_CODES), message: string({ max: 4096 }) }),
	'webrtc.answer': object({ type: literal('webrtc.answer'), event_id: eventId, sdp: string({ min: 1, max: MAX_SDP_LENGTH }) }),
	'webrtc.candidate': object({ type: literal('webrtc.candidate'), candidate: nullable(candidate) }),
	'pong': object({ type: literal('pong'), event_id: eventId, ts_ms: optional(number({ min: 0, max: 1e15 })), server_ms: number({ min: 0, max: 1e15 }) }),
	'error': object({
		type: literal('error'), event_id: eventId,
		code: oneOf(ERROR_CODES), message: string({ max: 4096 }),
		param: optional(string({ max: 256 })),
		retryable: boolean(),
		retry_after_ms: optional(ms),
	}),
	/** Always the last message before a close that the server starts. */
	'session.ended': object({ type: literal('session.ended'), session_id: id, reason: oneOf(END_REASONS), generated_ms: ms, frames: count }),
} as const;

export type ServerMessages = { [K in keyof typeof SERVER_SCHEMAS]: Infer<(typeof SERVER_SCHEMAS)[K]> };
export type ServerMessageType = keyof ServerMessages;
export type ServerMessage = ServerMessages[ServerMessageType];
export const SERVER_MESSAGE_TYPES = Object.keys(SERVER_SCHEMAS) as ServerMessageType[];

/** What the `telemetry` data channel carries, one record a frame. */
export const FRAME_META = object({
	type: literal('frame.meta'),
	frame_id: count, rtp_timestamp: count, chunk_index: count, media_ms: ms,
	keyframe: boolean(),
	/** Server clock, ms: when the engine handed the frame over, when it was encoded, when it was sent. */
	t_generated_ms: ms, t_encoded_ms: ms, t_sent_ms: ms,
	/** Changes that this frame is the first to carry. */
	applied_event_ids: list(string({ max: MAX_EVENT_ID_LENGTH }), { max: 64 }),
});
export type FrameMeta = Infer<typeof FRAME_META>;

const envelope = object({ type: string({ min: 1, max: 64 }), event_id: optional(anything()) });

/** The `event_id` of a message that may be wrong in every other way, so that the error can name it. */
export const eventIdOf = (value: unknown): string | undefined => {
	const found = typeof value === 'object' && value !== null ? (value as { event_id?: unknown }).event_id : undefined;
	return typeof found === 'string' && found.length > 0 && found.length <= MAX_EVENT_ID_LENGTH ? found : undefined;
};

const parseWith = <M>(schemas: { readonly [type: string]: Schema<unknown> }, value: unknown): M => {
	if (typeof value !== 'object' || value === null || Array.isArray(value)) {
		throw new TurbocastError('invalid_message', 'A message must be a JSON object with a `type`.');
	}
	const { type } = envelope.parse(value);
	const schema = Object.hasOwn(schemas, type) ? schemas[type] : undefined;
	if (schema === undefined) {
		throw new TurbocastError('invalid_message', `\`${type}\` is not a known message type; known: ${Object.keys(schemas).join(', ')}.`, { param: 'type' });
	}
	return schema.parse(value) as M;
};

export const parseClientMessage = (value: unknown): ClientMessage => parseWith<ClientMessage>(CLIENT_SCHEMAS, value);

/** For clients: a server may be newer, so an unknown type gives `undefined` instead of an error. */
export const parseServerMessage = (value: unknown): ServerMessage | undefined => {
	const type = typeof value === 'object' && value !== null ? (value as { type?: unknown }).type : undefined;
	if (typeof type === 'string' && !Object.hasOwn(SERVER_SCHEMAS, type)) {
		return undefined;
	}
	return parseWith<ServerMessage>(SERVER_SCHEMAS, value);
};

/** The `error` message for a failure; `eventId` is that of the message that caused it. */
export const errorMessage = (error: TurbocastError, id?: string): ServerMessages['error'] => ({
	type: 'error',
	...(id === undefined ? {} : { event_id: id }),
	code: error.code satisfies ErrorCode,
	message: error.message.slice(0, 4096),
	...(error.param === undefined || error.param === '' ? {} : { param: error.param.slice(0, 256) }),
	retryable: error.entry.retryable,
	...(error.retryAfterMs === undefined ? {} : { retry_after_ms: error.retryAfterMs }),
});
