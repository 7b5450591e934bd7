/** What a client may send. Every message may carry an `event_id`, which every answer to it repeats. */
import { DEFAULT_SHARE_SECONDS, MAX_SDP_LENGTH, MAX_SHARE_SECONDS, MIN_SHARE_SECONDS, SHARE_ROLES, SOCKET_CODECS } from './limits.js';
import { at, candidate, count, eventId, id, pacing, parameters, prompts, promptText, seed, transition } from './fields.js';
import { boolean, integer, list, literal, nullable, number, object, oneOf, optional, record, string, withDefault, type Infer } from './schema.js';

const startParameters = object({
	...parameters.shape,
	/** Rather fewer steps than waiting for a place. */
	allow_fewer_steps: optional(boolean()),
});

const size = string({ min: 3, max: 11, pattern: /^\d{1,5}x\d{1,5}$/u, says: 'must be WIDTHxHEIGHT in pixels, such as 128x128' });

export const CLIENT_SCHEMAS = {
	'session.start': object({
		type: literal('session.start'), event_id: eventId,
		/** Exactly one of `prompt` and `prompts`, unless there is a `resume_token`. */
		prompt: optional(promptText),
		prompts: optional(prompts),
		model: optional(string({ min: 1, max: 128 })),
		size: optional(size),
		seed: optional(seed),
		parameters: optional(startParameters),
		pacing: optional(pacing),
		/** Goes on with the session of this token where it was; starts a new one with the other fields when it is no longer held. */
		resume_token: optional(id),
	}),
	'session.update': object({
		type: literal('session.update'), event_id: eventId,
		prompt: optional(promptText),
		prompts: optional(prompts),
		/** Of a new prompt; `recache` when left out. */
		transition: optional(transition),
		seed: optional(seed),
		parameters: optional(parameters),
		pacing: optional(pacing),
		at: optional(at),
	}),
	'input.action': object({
		type: literal('input.action'), event_id: eventId,
		/** Controls by the names of the model's schema; the latest value of each stays until changed. */
		axes: record(number({ min: -1e6, max: 1e6 }), { max: 64 }),
		at: optional(at),
	}),
	/** Holds the picture; a model that has made its lead makes no more. */
	'session.pause': object({ type: literal('session.pause'), event_id: eventId }),
	'session.resume': object({ type: literal('session.resume'), event_id: eventId }),
	/** Forgets what was seen, with the prompt that is in use and a new seed. */
	'session.reset': object({ type: literal('session.reset'), event_id: eventId, seed: optional(seed) }),
	/** A second session that begins where this one is. */
	'session.fork': object({
		type: literal('session.fork'), event_id: eventId,
		prompt: optional(promptText), prompts: optional(prompts), seed: optional(seed),
	}),
	'session.stop': object({ type: literal('session.stop'), event_id: eventId, reason: optional(string({ max: 256 })) }),
	/** Asks for a token with which others connect to this session. */
	'session.share': object({
		type: literal('session.share'), event_id: eventId,
		role: withDefault(oneOf(SHARE_ROLES), 'viewer'),
		expires_in_seconds: withDefault(integer({ min: MIN_SHARE_SECONDS, max: MAX_SHARE_SECONDS }), DEFAULT_SHARE_SECONDS),
	}),
	'control.request': object({ type: literal('control.request'), event_id: eventId }),
	'control.grant': object({ type: literal('control.grant'), event_id: eventId, member_id: id }),
	'control.release': object({ type: literal('control.release'), event_id: eventId }),
	'webrtc.offer': object({ type: literal('webrtc.offer'), event_id: eventId, sdp: string({ min: 1, max: MAX_SDP_LENGTH, code: 'invalid_sdp' }) }),
	'webrtc.candidate': object({
		type: literal('webrtc.candidate'), event_id: eventId,
		/** `null` ends the candidates. */
		candidate: nullable(candidate),
	}),
	/** Asks for the video over this socket, in binary frames. */
	'video.open': object({
		type: literal('video.open'), event_id: eventId,
		/** What the client decodes, what it likes best first. */
		codecs: list(oneOf(SOCKET_CODECS), { min: 1, max: SOCKET_CODECS.length }),
	}),
	/** A frame has come, and so have all before it. */
	'video.ack': object({ type: literal('video.ack'), event_id: eventId, frame_id: count }),
	/** The decoder lost the picture. */
	'video.keyframe': object({ type: literal('video.keyframe'), event_id: eventId }),
	'video.close': object({ type: literal('video.close'), event_id: eventId }),
	'ping': object({ type: literal('ping'), event_id: eventId, ts_ms: optional(number({ min: 0, max: 1e15 })) }),
} as const;

export type ClientMessages = { [K in keyof typeof CLIENT_SCHEMAS]: Infer<(typeof CLIENT_SCHEMAS)[K]> };
export type ClientMessageType = keyof ClientMessages;
export type ClientMessage = ClientMessages[ClientMessageType];
export const CLIENT_MESSAGE_TYPES = Object.keys(CLIENT_SCHEMAS) as ClientMessageType[];
