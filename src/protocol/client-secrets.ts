/**
 * `POST /v1/realtime/client_secrets`: what a holder of a server key may ask for, and the answer. Unknown fields are refused here, unlike
 * in messages: a constraint with a typing mistake in its name would give away more than was meant.
 */
import { integer, list, object, oneOf, optional, string, withDefault, type Infer } from './schema.js';

export const CLIENT_SECRETS_PATH = '/v1/realtime/client_secrets';

/** `control` starts and steers; `view` alone only watches. */
export const TOKEN_ACTIONS = ['control', 'view'] as const;
export type TokenAction = (typeof TOKEN_ACTIONS)[number];

/** Seconds for which a secret can open sessions. */
export const MIN_SECRET_SECONDS = 10;
export const MAX_SECRET_SECONDS = 7200;
export const DEFAULT_SECRET_SECONDS = 600;

export const MAX_SECRET_REQUEST_BYTES = 16 * 1024;

const name = string({ min: 1, max: 128 });
const origin = string({ min: 1, max: 256, pattern: /^https?:\/\/[^/\s]+$/u, says: 'must be an origin, such as https://video.example' });

/** What every secret says, in the request, in the answer and, signed, in the secret itself. */
const actions = list(oneOf(TOKEN_ACTIONS), { min: 1, max: 2 });
const PERMISSIONS = {
	models: optional(list(name, { min: 1, max: 16 })),
	origins: optional(list(origin, { min: 1, max: 16 })),
};
const CONSTRAINTS = {
	max_session_seconds: optional(integer({ min: 1, max: 86_400 })),
	max_sessions: withDefault(integer({ min: 1, max: 1000 }), 1),
};

export const PERMISSIONS_SCHEMA = object({ ...PERMISSIONS, actions }, 'refuse');
/** Actions that are left out are both, or `view` alone in a secret for one session. */
const REQUESTED_PERMISSIONS = object({ ...PERMISSIONS, actions: optional(actions) }, 'refuse');
export const CONSTRAINTS_SCHEMA = object(CONSTRAINTS, 'refuse');
export type Permissions = Infer<typeof PERMISSIONS_SCHEMA>;
export type Constraints = Infer<typeof CONSTRAINTS_SCHEMA>;

export const CLIENT_SECRET_REQUEST = object({
	expires_after: optional(object({
		anchor: optional(oneOf(['created_at'])),
		seconds: withDefault(integer({ min: MIN_SECRET_SECONDS, max: MAX_SECRET_SECONDS }), DEFAULT_SECRET_SECONDS),
	}, 'refuse')),
	/** To come to this session rather than to start one. */
	session_id: optional(name),
	permissions: withDefault(REQUESTED_PERMISSIONS, {}),
	constraints: withDefault(CONSTRAINTS_SCHEMA, CONSTRAINTS_SCHEMA.parse({})),
}, 'refuse');
export type ClientSecretRequest = Infer<typeof CLIENT_SECRET_REQUEST>;

export type ClientSecret = {
	/** Given to `connect` as `token`; shown this once. */
	readonly value: string;
	/** Seconds since 1970 (as in OpenAI's Realtime API, whose clients this answer is for). */
	readonly expires_at: number;
	readonly session_id?: string;
	readonly permissions: Permissions;
	readonly constraints: Constraints;
};
