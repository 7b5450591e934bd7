/** Cross-origin requests (https://fetch.spec.whatwg.org, section 3.2) of players in pages: the same origins as for sockets. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TurbocastError } from '../protocol/errors.js';
import { isAllowedOrigin } from './origin.js';

const PREFLIGHT_SECONDS = 600;

/** Lets the page that asks read the answer, these headers too. Throws `forbidden` for a page of an origin that is not allowed. */
export const allowOrigin = (request: IncomingMessage, response: ServerResponse, allowedOrigins: readonly string[], exposed: readonly string[]): void => {
	const { origin } = request.headers;
	response.setHeader('vary', 'Origin');
	if (!isAllowedOrigin(request, allowedOrigins)) {
		throw new TurbocastError('forbidden', 'Pages of this origin may not open sessions here; the operator allows it with server.allowed_origins.');
	}
	if (origin !== undefined) {
		response.setHeader('access-control-allow-origin', origin);
		response.setHeader('access-control-expose-headers', exposed.join(', '));
	}
};

/** What a preflight asks: which methods, and which headers beside the usual ones. */
export const answerPreflight = (response: ServerResponse, methods: readonly string[], headers: readonly string[]): void => {
	response.setHeader('access-control-allow-methods', methods.join(', '));
	response.setHeader('access-control-allow-headers', headers.join(', '));
	response.setHeader('access-control-max-age', PREFLIGHT_SECONDS);
};
