/** `GET /v1/realtime/sessions/ID/recording.mp4`: the last minutes of a session, for whoever has it or may steer it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { toMp4 } from '../media/recording-file.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_AT_MEDIA_MS } from '../protocol/limits.js';
import { number } from '../protocol/schema.js';
import { SESSIONS_PATH } from '../protocol/whep.js';
import { bearerOf } from './auth.js';
import { allowOrigin, answerPreflight } from './cors.js';
import { RESUME_TOKEN_PREFIX } from './session-id.js';
import type { SessionParts } from './session-parts.js';
import type { Session } from './session.js';

const METHODS = ['GET', 'HEAD', 'OPTIONS'] as const;
const FROM_HEADER = 'Recording-From-Ms';

export type RecordingRoute = {
	readonly isAt: (path: string) => boolean;
	/** Throws what the client is to be told. */
	readonly answer: (request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>;
};

const idOf = (path: string): string | undefined => /^\/([\w-]{1,128})\/recording\.mp4$/u.exec(path.startsWith(SESSIONS_PATH) ? path.slice(SESSIONS_PATH.length) : '')?.[1];

const timeOf = (query: URLSearchParams, name: string): number | undefined => {
	const text = query.get(name);
	return text === null ? undefined : number({ min: 0, max: MAX_AT_MEDIA_MS }).parse(text.trim() === '' ? Number.NaN : Number(text), name);
};

export const createRecordingRoute = ({ config, auth, sessions, model }: Pick<SessionParts, 'config' | 'auth' | 'sessions' | 'model'>): RecordingRoute => {
	/** The resume token, the server key behind the session, or a secret for it with which one may steer. */
	const sessionFor = async (request: IncomingMessage, id: string): Promise<Session> => {
		const credential = bearerOf(request);
		if (credential?.startsWith(RESUME_TOKEN_PREFIX) === true) {
			return sessions.findWithToken(id, credential);
		}
		const grant = await auth.grant(request, model.id, 'look');
		if (!grant.mayControl || (grant.sessionId !== undefined && grant.sessionId !== id)) {
			throw new TurbocastError('forbidden', 'A recording is for whoever has the session or may steer it; this token is for watching, or for another session.');
		}
		return sessions.find(id, grant.keyId);
	};

	return {
		isAt: (path) => idOf(path) !== undefined,
		answer: async (request, response, path) => {
			allowOrigin(request, response, config.allowedOrigins, [FROM_HEADER]);
			if (!METHODS.some((method) => method === request.method)) {
				response.setHeader('allow', METHODS.join(', '));
				throw new TurbocastError('method_not_allowed', `This address answers ${METHODS.join(' and ')} only.`);
			}
			if (request.method === 'OPTIONS') {
				answerPreflight(response, METHODS, ['Authorization']);
				response.writeHead(204);
				response.end();
				return;
			}
			const session = await sessionFor(request, idOf(path) ?? '');
			const query = new URLSearchParams((request.url ?? '').split('?', 2)[1] ?? '');
			const [fromMs, toMs, lastMs] = [timeOf(query, 'from_ms'), timeOf(query, 'to_ms'), timeOf(query, 'last_ms')];
			if (lastMs !== undefined && fromMs !== undefined) {
				throw new TurbocastError('invalid_request', 'Give `from_ms` or `last_ms`, not both.', { param: 'last_ms' });
			}
			if (fromMs !== undefined && toMs !== undefined && toMs < fromMs) {
				throw new TurbocastError('invalid_request', '`to_ms` must not be before `from_ms`.', { param: 'to_ms' });
			}
			const part = session.recording().cut({ fromMs, toMs, lastMs });
			const file = await toMp4(part);
			response.writeHead(200, {
				'content-type': 'video/mp4', 'cache-control': 'no-store', 'content-length': file.byteLength,
				'content-disposition': `attachment; filename="${session.id}.mp4"`, [FROM_HEADER]: String(Math.round(part.units[0]?.mediaMs ?? 0)),
			});
			response.end(request.method === 'HEAD' ? undefined : file);
		},
	};
};
