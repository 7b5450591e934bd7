/**
 * The messages of `WS /v1/realtime/video`: JSON text frames, dotted `type`, snake_case fields. Unknown fields are ignored; an
 * unknown type or a bad field is answered by `error` and the connection goes on. `docs/protocol.md` explains each message; a
 * test holds the two together.
 */
import { CLIENT_SCHEMAS, type ClientMessage } from './client-messages.js';
import { TurbocastError, type ErrorCode } from './errors.js';
import { MAX_EVENT_ID_LENGTH } from './limits.js';
import { anything, object, optional, string, type Schema } from './schema.js';
import { SERVER_SCHEMAS, type ServerMessage, type ServerMessages } from './server-messages.js';

export * from './client-messages.js';
export { promptText, type At, type Transition } from './fields.js';
export * from './server-messages.js';

const envelope = object({ type: string({ min: 1, max: 64 }), event_id: optional(anything()) });

/** The `event_id` of a message that may be wrong in every other way, so that the error can name it. */
export const eventIdOf = (value: unknown): string | undefined => {
	const found = typeof value === 'object' && value !== null ? (value as { event_id?: unknown }).event_id : undefined;
	return typeof found === 'string' && found.length > 0 && found.length <= MAX_EVENT_ID_LENGTH && found.isWellFormed() ? found : undefined;
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

/** What a client wrote comes back in some errors: cut to a length, it may end in half a character. */
const cut = (text: string, length: number): string => text.slice(0, length).toWellFormed();

/** The `error` message for a failure; `eventId` is that of the message that caused it. */
export const errorMessage = (error: TurbocastError, id?: string): ServerMessages['error'] => ({
	type: 'error',
	...(id === undefined ? {} : { event_id: id }),
	code: error.code satisfies ErrorCode,
	message: cut(error.message, 4096),
	...(error.param === undefined || error.param === '' ? {} : { param: cut(error.param, 256) }),
	retryable: error.entry.retryable,
	...(error.retryAfterMs === undefined ? {} : { retry_after_ms: error.retryAfterMs }),
});
