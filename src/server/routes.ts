/** HTTP: the page, health, metrics, the list of models and client secrets; `whep.ts` answers players. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { Log } from '../base/log.js';
import type { Metrics } from '../base/metrics.js';
import type { Engine } from '../engine/engine.js';
import { CLIENT_SECRET_REQUEST, CLIENT_SECRETS_PATH, MAX_SECRET_REQUEST_BYTES } from '../protocol/client-secrets.js';
import { TurbocastError } from '../protocol/errors.js';
import { REALTIME_PATH } from '../protocol/limits.js';
import type { Admission } from './admission.js';
import type { Auth } from './auth.js';
import { ASYNCAPI_PATH, asyncApi, OPENAPI_PATH, openApi } from './contracts.js';
import { sendError } from './http-error.js';

import type { ModelInfo } from './model-info.js';
import { readJson } from './request-body.js';
import type { PublicationRoute } from './publication-route.js';
import type { RecordingRoute } from './recording-route.js';
import type { SessionRegistry } from './session-registry.js';
import { readStaticFile } from './static-files.js';
import type { Whep } from './whep.js';

const DIST = fileURLToPath(new URL('../..', import.meta.url));

export type RouteParts = {
	readonly model: ModelInfo;
	readonly engine: Engine;
	readonly admission: Admission;
	readonly auth: Auth;
	readonly sessions: SessionRegistry;
	readonly whep: Whep;
	readonly recordings: RecordingRoute;
	readonly publications: PublicationRoute;
	readonly metrics: Metrics;
	readonly log: Log;
};

const methodsOf = (path: string): readonly string[] => (path === CLIENT_SECRETS_PATH ? ['POST'] : ['GET', 'HEAD']);

/** A Host header that may stand in a header of ours. */
const HOST_FORM = /^[\w.\-:[\]]{1,255}$/u;

/** Only our own files run on our page, and it talks to nobody but us. Old Safari does not take 'self' to include ws:. */
const pagePolicy = (host: string | undefined): string => {
	const sockets = host !== undefined && HOST_FORM.test(host) ? ` ws://${host} wss://${host}` : '';
	return `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob: mediastream:; `
		+ `connect-src 'self'${sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
};

const COMMON_HEADERS = {
	'x-content-type-options': 'nosniff',
	'x-frame-options': 'DENY',
	'referrer-policy': 'no-referrer',
	'cross-origin-opener-policy': 'same-origin',
	'permissions-policy': 'camera=(), microphone=(), geolocation=()',
} as const;

const sendText = (response: ServerResponse, contentType: string, body: string | Buffer, headers: { readonly [name: string]: string } = {}): void => {
	response.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-store', ...headers, 'content-length': Buffer.byteLength(body) });
	response.end(response.req.method === 'HEAD' ? undefined : body);
};

const sendJson = (response: ServerResponse, value: unknown): void => sendText(response, 'application/json; charset=utf-8', JSON.stringify(value));

const modelObject = (model: ModelInfo): object => ({ object: 'model', owned_by: 'turbocast', ...model });

const serveFile = async (request: IncomingMessage, response: ServerResponse, path: string): Promise<void> => {
	const file = await readStaticFile(DIST, path);
	if (file === undefined) {
		throw new TurbocastError('not_found', `There is nothing at ${path.slice(0, 200)}; the page is at / and the API under /v1.`);
	}
	const caching = { 'cache-control': 'no-cache', 'etag': file.etag };
	if (request.headers['if-none-match']?.split(/\s*,\s*/u).includes(file.etag) === true) {
		response.writeHead(304, caching);
		response.end();
		return;
	}
	sendText(response, file.contentType, file.body, { ...caching, 'content-security-policy': pagePolicy(request.headers.host) });
};

const answer = async (parts: RouteParts, request: IncomingMessage, response: ServerResponse, path: string): Promise<void> => {
	switch (path) {
		case '/healthz':
			if (parts.engine.state.kind === 'failed') {
				// Only another start of the whole program can help.
				return sendError(response, parts.engine.state.error, 503);
			}
			return sendJson(response, { status: 'ok' });
		case '/readyz': {
			const obstacle = parts.admission.obstacle();
			if (obstacle !== undefined) {
				// Whatever the code's own status is, readiness is asked by machines that understand 200 and 503 alone.
				return sendError(response, obstacle, 503);
			}
			const { free, waiting, startsAtOnce } = parts.admission;
			return sendJson(response, { status: 'ready', model: parts.model.id, places_free: free, waiting, starts_at_once: startsAtOnce });
		}
		case '/metrics':
			await parts.auth.serverKey(request);
			return sendText(response, 'text/plain; version=0.0.4; charset=utf-8', parts.metrics.text());
		case ASYNCAPI_PATH:
			return sendJson(response, asyncApi());
		case OPENAPI_PATH:
			return sendJson(response, openApi());
		case '/v1/models':
			await parts.auth.serverKey(request);
			return sendJson(response, { object: 'list', data: [modelObject(parts.model)] });
		case CLIENT_SECRETS_PATH: {
			const key = await parts.auth.serverKey(request);
			const body = CLIENT_SECRET_REQUEST.parse(await readJson(request, MAX_SECRET_REQUEST_BYTES));
			if (body.session_id !== undefined) {
				parts.sessions.find(body.session_id, key?.id);
			}
			return sendJson(response, await parts.auth.mint(key, body));
		}
		case REALTIME_PATH:
			throw new TurbocastError('invalid_request', `${REALTIME_PATH} speaks WebSocket: connect with a WebSocket client.`);
		default:
	}
	if (path.startsWith('/v1/models/')) {
		await parts.auth.serverKey(request);
		const id = path.slice('/v1/models/'.length);
		if (id !== parts.model.id) {
			throw new TurbocastError('model_not_found', `There is no model "${id.slice(0, 100)}" here; GET /v1/models lists those there are.`, { param: 'model' });
		}
		return sendJson(response, modelObject(parts.model));
	}
	return serveFile(request, response, path);
};

/** The listener of the HTTP server. Every failure is answered with the error envelope. */
export const createRoutes = (parts: RouteParts) => (request: IncomingMessage, response: ServerResponse): void => {
	for (const [name, value] of Object.entries(COMMON_HEADERS)) {
		response.setHeader(name, value);
	}
	const handle = async (): Promise<void> => {
		// The path as sent: a URL parser would resolve `..` before we can refuse it.
		const path = (request.url ?? '/').split(/[?#]/u, 1)[0] ?? '/';
		for (const place of [parts.whep, parts.recordings, parts.publications]) {
			if (place.isAt(path)) {
				return place.answer(request, response, path);
			}
		}
		const methods = methodsOf(path);
		if (!methods.includes(request.method ?? '')) {
			response.setHeader('allow', methods.join(', '));
			throw new TurbocastError('method_not_allowed', `This address answers ${methods.join(' and ')} only.`);
		}
		await answer(parts, request, response, path);
	};
	handle().catch((error: unknown) => {
		const known = TurbocastError.from(error);
		if (known.code === 'internal') {
			parts.log.error({ err: error }, 'An HTTP request failed.');
		}
		if (known.entry.httpStatus === 401) {
			response.setHeader('www-authenticate', 'Bearer'); // RFC 9110 section 11.6.1
		}
		if (response.headersSent) {
			response.destroy();
		} else {
			sendError(response, known);
		}
	});
};
