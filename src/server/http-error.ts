/** Errors as HTTP answers: the table's status and the envelope that clients of the field know. */
import type { ServerResponse } from 'node:http';
import type { TurbocastError } from '../protocol/errors.js';

const typeOf = (status: number): string => {
	switch (status) {
		case 401: return 'authentication_error';
		case 403: return 'permission_error';
		case 404: return 'not_found_error';
		case 429: return 'rate_limit_error';
		default: return status < 500 ? 'invalid_request_error' : 'server_error';
	}
};

export const errorEnvelope = (error: TurbocastError): string =>
	JSON.stringify({ error: { type: typeOf(error.entry.httpStatus), code: error.code, message: error.message, param: error.param ?? null } });

export const errorHeaders = (error: TurbocastError): { [name: string]: string } => ({
	'content-type': 'application/json; charset=utf-8',
	'cache-control': 'no-store',
	...(error.retryAfterMs === undefined ? {} : { 'retry-after': String(Math.max(1, Math.ceil(error.retryAfterMs / 1000))) }),
});

/** Answers with the error, under the table's status unless another is given. */
export const sendError = (response: ServerResponse, error: TurbocastError, status: number = error.entry.httpStatus): void => {
	const body = errorEnvelope(error);
	response.writeHead(status, { ...errorHeaders(error), 'content-length': Buffer.byteLength(body) });
	response.end(response.req.method === 'HEAD' ? undefined : body);
};
