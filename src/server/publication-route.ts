/** `/v1/realtime/sessions/ID/publications`: sends a running session to WHIP endpoints, for whoever has it: by its resume token, or the server key behind it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_PUBLICATION_REQUEST_BYTES, PUBLICATION_REQUEST } from '../protocol/publications.js';
import { SESSIONS_PATH } from '../protocol/whep.js';
import { bearerOf } from './auth.js';
import { allowOrigin, answerPreflight } from './cors.js';
import { Publication } from './publication.js';
import { RateLimits } from './rate-limit.js';
import { readJson } from './request-body.js';
import { RESUME_TOKEN_PREFIX } from './session-id.js';
import type { SessionParts } from './session-parts.js';
import type { Session } from './session.js';
import { WhipEndpoint } from './whip-endpoint.js';

/** Each makes a peer connection and requests to others. */
const MOST_PUBLICATIONS_PER_MINUTE = 30;
/** Of one session, that are over and can still be asked about. */
const MOST_REMEMBERED = 16;

type Place = { readonly sessionId: string; readonly id: string | undefined };

const placeOf = (path: string): Place | undefined => {
	const [, sessionId, id] = /^\/([\w-]{1,128})\/publications(?:\/([\w-]{1,128}))?$/u.exec(path.startsWith(SESSIONS_PATH) ? path.slice(SESSIONS_PATH.length) : '') ?? [];
	return sessionId === undefined ? undefined : { sessionId, id };
};

const objectOf = ({ id, session, endpoint, state, video, connections, restarts, error }: Publication): object => ({
	object: 'publication', id, session_id: session.id,
	// What stands behind the question mark may be a secret.
	url: `${endpoint.url.origin}${endpoint.url.pathname}`,
	state, codec: video?.codec ?? null, bandwidth_bps: state === 'live' && video?.bandwidthBps !== undefined ? Math.round(video.bandwidthBps) : null, connections, ice_restarts: restarts,
	error: error === undefined ? null : { code: error.code, message: error.message },
});

export type PublicationRoute = {
	readonly isAt: (path: string) => boolean;
	/** Throws what the client is to be told. */
	readonly answer: (request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>;
	/** States of those that are not over, for the metrics. */
	readonly states: () => readonly string[];
	/** Ends all of them, and tells the endpoints. */
	readonly close: () => Promise<void>;
};

export const createPublicationRoute = (parts: SessionParts): PublicationRoute => {
	const { config, auth, sessions, clock, addressOf } = parts;
	/** By session, in the order of their making; a session that has ended has none. Bounded by `publish.max_per_session` and `MOST_REMEMBERED`. */
	const publications = new Map<Session, Publication[]>();
	const requests = new RateLimits(MOST_PUBLICATIONS_PER_MINUTE, 60_000);

	const running = (session: Session): Publication[] => (publications.get(session) ?? []).filter(({ state }) => state !== 'ended');

	const sessionFor = async (request: IncomingMessage, id: string): Promise<Session> => {
		const credential = bearerOf(request);
		if (credential?.startsWith(RESUME_TOKEN_PREFIX) === true) {
			return sessions.findWithToken(id, credential);
		}
		return sessions.find(id, (await auth.serverKey(request))?.id);
	};

	const send = (response: ServerResponse, status: number, value: object, headers: { readonly [name: string]: string } = {}): void => {
		const body = JSON.stringify(value);
		response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store', ...headers, 'content-length': Buffer.byteLength(body) });
		response.end(response.req.method === 'HEAD' ? undefined : body);
	};

	/** Of ended ones, the oldest go first; all of them when the session has ended. */
	const forget = (session: Session): void => {
		const all = publications.get(session) ?? [];
		const ended = all.filter(({ state }) => state === 'ended');
		const kept = session.hasEnded ? all.filter((each) => !ended.includes(each)) : all.filter((each) => !ended.slice(0, -MOST_REMEMBERED).includes(each));
		if (kept.length > 0) {
			publications.set(session, kept);
		} else {
			publications.delete(session);
		}
	};

	const create = async (request: IncomingMessage, response: ServerResponse, session: Session): Promise<void> => {
		if (config.publish === undefined || config.publish.allowedOrigins.length === 0) {
			throw new TurbocastError('not_supported', 'This server publishes to nobody; the operator names the servers that it may publish to in publish.allowed_origins.');
		}
		const { allowedOrigins, maxPerSession } = config.publish;
		const address = addressOf(request);
		const retryAfterMs = requests.take(address, clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', `At most ${MOST_PUBLICATIONS_PER_MINUTE} publications a minute of one address.`, { retryAfterMs });
		}
		const { url, token } = PUBLICATION_REQUEST.parse(await readJson(request, MAX_PUBLICATION_REQUEST_BYTES));
		const endpoint = new WhipEndpoint({ url, token, allowedOrigins });
		if (!session.isRunning) {
			throw new TurbocastError('invalid_state', 'The session is not started; there is nothing to publish yet.');
		}
		if (running(session).length >= maxPerSession) {
			throw new TurbocastError('capacity_exhausted', `A session has at most ${maxPerSession} publications at once (publish.max_per_session); end another first.`);
		}
		[...publications.keys()].filter(({ hasEnded }) => hasEnded).forEach(forget);
		const publication = new Publication(parts, session, endpoint, { grant: session.visitor.grant, address }, () => forget(session));
		publications.set(session, [...(publications.get(session) ?? []), publication]);
		await publication.open();
		send(response, 201, objectOf(publication), { location: `${SESSIONS_PATH}/${session.id}/publications/${publication.id}` });
	};

	return {
		isAt: (path) => placeOf(path) !== undefined,
		states: () => [...publications.keys()].flatMap((session) => running(session).map(({ state }) => state)),
		answer: async (request, response, path) => {
			const { sessionId, id } = placeOf(path) ?? { sessionId: '', id: undefined };
			allowOrigin(request, response, config.allowedOrigins, ['Location', 'Retry-After']);
			const methods = id === undefined ? ['GET', 'HEAD', 'POST', 'OPTIONS'] : ['GET', 'HEAD', 'DELETE', 'OPTIONS'];
			if (!methods.includes(request.method ?? '')) {
				response.setHeader('allow', methods.join(', '));
				throw new TurbocastError('method_not_allowed', `This address answers ${methods.join(', ')} only.`);
			}
			if (request.method === 'OPTIONS') {
				answerPreflight(response, methods, ['Authorization', 'Content-Type']);
				response.writeHead(204);
				response.end();
				return;
			}
			const session = await sessionFor(request, sessionId);
			if (request.method === 'POST') {
				return create(request, response, session);
			}
			const all = publications.get(session) ?? [];
			if (id === undefined) {
				return send(response, 200, { object: 'list', data: all.map(objectOf) });
			}
			const publication = all.find((each) => each.id === id);
			if (publication === undefined) {
				throw new TurbocastError('not_found', 'The session has no publication of that id.');
			}
			if (request.method === 'DELETE') {
				await publication.close();
			}
			send(response, 200, objectOf(publication));
		},
		close: async () => {
			await Promise.all([...publications.values()].flat().map((each) => each.close()));
		},
	};
};
