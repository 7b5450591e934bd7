/** Version, names and sizes of the protocol. Rates and durations that an operator may change are configuration instead. */

export const PROTOCOL_VERSION = '1';
/** WebSocket sub-protocol (RFC 6455 section 1.9). */
export const SUBPROTOCOL = 'realtime.video.v1';
/** Starts the sub-protocol item that carries a credential, beside the real one. */
export const TOKEN_PROTOCOL_PREFIX = 'token.';
export const REALTIME_PATH = '/v1/realtime/video';
/** Label of the data channel that carries `frame.meta`. */
export const TELEMETRY_LABEL = 'telemetry';

/** Longest control message, bytes of UTF-8. A longer one closes the socket with `message_too_big`. */
export const MAX_MESSAGE_BYTES = 64 * 1024;
/** Longest prompt, UTF-16 code units. */
export const MAX_PROMPT_LENGTH = 2000;
/** Longest session description or candidate. */
export const MAX_SDP_LENGTH = 48 * 1024;
export const MAX_EVENT_ID_LENGTH = 128;

export const STEP_COUNTS = [1, 2, 4] as const;
export type StepCount = (typeof STEP_COUNTS)[number];

/** Seeds are unsigned 32-bit numbers. */
export const MAX_SEED = 0xffff_ffff;
