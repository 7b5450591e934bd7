/** Version, names and sizes of the protocol. Rates and durations that an operator may change are configuration instead. */

export const PROTOCOL_VERSION = '1';
/** WebSocket sub-protocol (RFC 6455 section 1.9). */
export const SUBPROTOCOL = 'realtime.video.v1';
/** Starts the sub-protocol item that carries a credential, beside the real one. */
export const TOKEN_PROTOCOL_PREFIX = 'token.';
export const REALTIME_PATH = '/v1/realtime/video';
/** Label of the data channel that carries `frame.meta`. */
export const TELEMETRY_LABEL = 'telemetry';

/** What a client may ask for over the control socket, and a server encodes. */
export const SOCKET_CODECS = ['h264', 'vp8'] as const;

/** Longest control message, bytes of UTF-8. A longer one closes the socket with `message_too_big`. */
export const MAX_MESSAGE_BYTES = 64 * 1024;
/** Longest prompt, UTF-16 code units. */
export const MAX_PROMPT_LENGTH = 2000;
/** Longest session description or candidate. */
export const MAX_SDP_LENGTH = 48 * 1024;
export const MAX_EVENT_ID_LENGTH = 128;

/** Of any model; each has some of them. */
export const STEP_COUNTS = [1, 2, 3, 4] as const;
export type StepCount = (typeof STEP_COUNTS)[number];

/** Seeds are unsigned 32-bit numbers. */
export const MAX_SEED = 0xffff_ffff;

/** Texts of one prompt that are mixed by weight, and the weights. */
export const MAX_PROMPTS = 8;
export const MIN_PROMPT_WEIGHT = 0.001;
export const MAX_PROMPT_WEIGHT = 1000;

/** `cut` forgets the past, `recache` sees the past with the new prompt, `blend` goes over in steps. */
export const TRANSITION_MODES = ['cut', 'recache', 'blend'] as const;
export type TransitionMode = (typeof TRANSITION_MODES)[number];
export const MAX_BLEND_CHUNKS = 64;
export const DEFAULT_BLEND_CHUNKS = 4;

/** Farthest moment that a change can be put off to: longer than any session lasts. */
export const MAX_AT_CHUNK = 1_000_000;
export const MAX_AT_MEDIA_MS = 86_400_000;

/** By how much generation may run ahead of display. */
export const MIN_LEAD_MS = 100;
export const MAX_LEAD_MS = 60_000;

/** The `owner` has the session; a `guest` watches and may ask for control; a `viewer` watches. */
export const MEMBER_ROLES = ['owner', 'guest', 'viewer'] as const;
export type MemberRole = (typeof MEMBER_ROLES)[number];
/** What whoever follows a shared link becomes. */
export const SHARE_ROLES = ['viewer', 'guest'] as const;
export const MIN_SHARE_SECONDS = 10;
export const MAX_SHARE_SECONDS = 86_400;
export const DEFAULT_SHARE_SECONDS = 3600;
export const MAX_SHARE_TOKEN_LENGTH = 2048;
