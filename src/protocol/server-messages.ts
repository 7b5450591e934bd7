/** What a server may send on the control socket, and on the telemetry channel. */
import { ERROR_CODES } from './errors.js';
import { candidate, count, eventId, id, ms } from './fields.js';
import { MAX_EVENT_ID_LENGTH, MAX_PROMPT_LENGTH, MAX_SDP_LENGTH, MAX_SHARE_TOKEN_LENGTH, MEMBER_ROLES, SHARE_ROLES, SOCKET_CODECS, TRANSITION_MODES } from './limits.js';
import { boolean, integer, list, literal, nullable, number, object, oneOf, optional, record, string, type Infer } from './schema.js';

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
	transitions: list(oneOf(TRANSITION_MODES), { max: 16 }),
});

/** Where the past of a chunk came from: there is none, the engine that was lost, a copy of it that goes on bit for bit, or another session. */
export const HISTORIES = ['new', 'lost', 'restored', 'forked'] as const;
export type History = (typeof HISTORIES)[number];

export const END_REASONS = ['stopped', 'disconnected', 'idle', 'max_duration', 'taken_over', 'draining', 'failed'] as const;
export type EndReason = (typeof END_REASONS)[number];

export const EXPIRING_REASONS = ['max_duration', 'idle', 'draining'] as const;
export type ExpiringReason = (typeof EXPIRING_REASONS)[number];

export const PACING_REASONS = ['requested', 'behind', 'recovered'] as const;

const moment = { frame_id: count, media_ms: ms } as const;
const signedMs = number({ min: -1e9, max: 1e9 });
const serverMs = number({ min: 0, max: 1e15 });

export const SERVER_SCHEMAS = {
	/** First message on every connection. */
	'session.created': object({
		type: literal('session.created'),
		session_id: id, protocol_version: id,
		model: modelInfo,
		ice_servers: list(iceServer, { max: 16 }),
		/** How to come back after the connection was lost; who came to watch comes back with the token of before. */
		resume_token: optional(id),
		limits: object({
			max_message_bytes: count, max_prompt_length: count, max_prompts: count, max_session_ms: count, idle_timeout_ms: count,
			start_timeout_ms: count, resume_grace_ms: count, max_lead_ms: count,
		}),
	}),
	/** Every place is taken: sent on entering the line and whenever the position changes. */
	'session.queued': object({ type: literal('session.queued'), session_id: id, position: count, queue_size: count, estimated_wait_ms: ms }),
	/** The engine has a place for this session and is warm: before the first chunk, and to whoever comes back or joins. */
	'session.ready': object({
		type: literal('session.ready'), session_id: id, model: id, seed: count, steps: count, width: count, height: count, cold_start_ms: ms,
		/** That of the session that goes on, when it was resumed. */
		resume_token: optional(id),
		resumed: boolean(),
		is_paused: boolean(),
		prompts: list(object({ text: string({ max: MAX_PROMPT_LENGTH }), weight: number({ min: 0, max: 1e6 }) }), { max: 64 }),
		controls: record(number({ min: -1e6, max: 1e6 }), { max: 64 }),
		max_lead_ms: count,
		/** Until `max_duration`. */
		expires_in_ms: ms,
	}),
	'generation.started': object({ type: literal('generation.started'), chunk_index: count, seed: count, media_ms: ms, history: oneOf(HISTORIES) }),
	/** The change is valid and will be heard in this chunk. */
	'event.accepted': object({
		type: literal('event.accepted'), event_id: eventId,
		will_apply_at_chunk: count, will_apply_at_media_ms: ms,
		/** Words of the prompt that the model has never learnt, as written. */
		unknown_words: list(string({ max: MAX_PROMPT_LENGTH }), { max: MAX_PROMPT_LENGTH }),
	}),
	/** First frame that carries the change, sent when that frame is handed to the transport. */
	'event.applied': object({
		type: literal('event.applied'), event_id: eventId,
		chunk_index: count, rtp_timestamp: count, ...moment,
		/** From the arrival of the message to the hand-over of that frame. */
		server_latency_ms: ms,
		/** The parts of `server_latency_ms`. */
		timings: object({ wait_ms: ms, generate_ms: ms, hold_ms: ms, encode_ms: ms }),
	}),
	'chunk.completed': object({
		type: literal('chunk.completed'),
		chunk_index: count, frames: count, first_frame_id: count, media_ms: ms, steps: count, seed: count,
		timings: object({ queue_ms: ms, text_ms: ms, recache_ms: ms, denoise_ms: ms, clean_ms: ms, decode_ms: ms }),
		t_started_ms: serverMs, t_completed_ms: serverMs,
		/** How far generation was ahead of display when the chunk was complete. */
		lead_ms: signedMs,
		/** Present speed of display. */
		fps: number({ min: 0, max: 240 }),
		deadline_missed: boolean(),
	}),
	/** The engine died and is being restarted; the session goes on by itself. */
	'session.reconnecting': object({ type: literal('session.reconnecting'), code: oneOf(ERROR_CODES), message: string({ max: 4096 }) }),
	'session.paused': object({ type: literal('session.paused'), event_id: eventId, ...moment }),
	'session.resumed': object({ type: literal('session.resumed'), event_id: eventId, ...moment }),
	/** The lead was set, or display slows down because generation falls behind, or is as fast as the model wants again. */
	'pacing.updated': object({ type: literal('pacing.updated'), event_id: eventId, reason: oneOf(PACING_REASONS), fps: number({ min: 0, max: 240 }), lead_ms: signedMs, max_lead_ms: count }),
	/** Announced before it strikes; `null` takes it back. */
	'session.expiring': object({ type: literal('session.expiring'), reason: oneOf(EXPIRING_REASONS), seconds_left: nullable(number({ min: 0, max: 1e6 })) }),
	/** The other session waits under its token for whoever starts it. */
	'session.forked': object({ type: literal('session.forked'), event_id: eventId, session_id: id, resume_token: id, chunk_index: count, ...moment, expires_in_ms: ms }),
	'session.shared': object({ type: literal('session.shared'), event_id: eventId, token: string({ min: 1, max: MAX_SHARE_TOKEN_LENGTH }), role: oneOf(SHARE_ROLES), expires_at: count }),
	/** After `session.created`, to a connection that came with a shared token. */
	'session.joined': object({ type: literal('session.joined'), session_id: id, member_id: id, role: oneOf(MEMBER_ROLES) }),
	/** Who is here, to everyone, whenever that changes. */
	'session.members': object({
		type: literal('session.members'),
		/** Member of this connection. */
		you: id,
		members: list(object({ member_id: id, role: oneOf(MEMBER_ROLES), is_watching: boolean(), wants_control: boolean() }), { max: 1024 }),
		/** Member who steers. */
		driver: nullable(id),
	}),
	'control.requested': object({ type: literal('control.requested'), member_id: id }),
	'control.granted': object({ type: literal('control.granted'), event_id: eventId, member_id: id }),
	'control.revoked': object({ type: literal('control.revoked'), event_id: eventId, member_id: id, reason: oneOf(['released', 'granted', 'left']) }),
	'webrtc.answer': object({ type: literal('webrtc.answer'), event_id: eventId, sdp: string({ min: 1, max: MAX_SDP_LENGTH }) }),
	'webrtc.candidate': object({ type: literal('webrtc.candidate'), candidate: nullable(candidate) }),
	/** The video comes over this socket, from the next key frame on. */
	'video.opened': object({ type: literal('video.opened'), event_id: eventId, codec: oneOf(SOCKET_CODECS) }),
	'pong': object({ type: literal('pong'), event_id: eventId, ts_ms: optional(number({ min: 0, max: 1e15 })), server_ms: serverMs }),
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
	/** Server clock, ms: when the engine handed the frame over, when its time had come, when it was encoded, when it was sent. */
	t_generated_ms: ms, t_taken_ms: ms, t_encoded_ms: ms, t_sent_ms: ms,
	/** Changes that this frame is the first to carry. */
	applied_event_ids: list(string({ max: MAX_EVENT_ID_LENGTH }), { max: 64 }),
});
export type FrameMeta = Infer<typeof FRAME_META>;
