/**
 * WHEP (draft-ietf-wish-whep-04, with the rules for HTTP of RFC 9725): any WebRTC player gets the video with one POST of its offer. At `/v1/realtime/whep` it
 * starts a session of its own, or comes to the one that its credential is for; at `/v1/realtime/sessions/ID/whep` it watches one that is there.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_SDP_LENGTH } from '../protocol/limits.js';
import { CLIENT_SCHEMAS, type ClientMessages } from '../protocol/messages.js';
import { FRAGMENT_TYPE, MAX_FRAGMENT_BYTES, SDP_TYPE, SESSIONS_PATH, WHEP_PATH } from '../protocol/whep.js';
import { readOffer } from '../transport/offer.js';
import { readFragment } from '../transport/sdp-fragment.js';
import { bearerOf, type Grant } from './auth.js';
import { allowOrigin, answerPreflight } from './cors.js';
import { iceServerLinks } from './ice-servers.js';
import { RateLimits } from './rate-limit.js';
import { readTextOf } from './request-body.js';
import type { SessionParts } from './session-parts.js';
import { Session } from './session.js';
import { CLIENT_SECRET_PREFIX } from './tokens.js';
import { WhepPlayer } from './whep-player.js';

/** A player is told whether it gets a place within this: players wait for an answer, not in a line. */
const LONGEST_WAIT_FOR_PLACE_MS = 3000;
const EXPOSED_HEADERS = ['Location', 'ETag', 'Link', 'Accept-Post', 'Accept-Patch', 'Retry-After', 'Session-Id'] as const;
const ASKED_HEADERS = ['Authorization', 'Content-Type', 'If-Match'] as const;

type Place = { readonly kind: 'start' } | { readonly kind: 'watch'; readonly sessionId: string } | { readonly kind: 'player'; readonly id: string };

const METHODS: { readonly [kind in Place['kind']]: readonly string[] } = {
	start: ['POST', 'GET', 'HEAD', 'OPTIONS'], watch: ['POST', 'GET', 'HEAD', 'OPTIONS'], player: ['PATCH', 'DELETE', 'GET', 'HEAD', 'OPTIONS'],
};

const placeOf = (path: string): Place | undefined => {
	if (path === WHEP_PATH) {
		return { kind: 'start' };
	}
	const [, id] = /^\/([\w-]{1,128})$/u.exec(path.startsWith(WHEP_PATH) ? path.slice(WHEP_PATH.length) : '') ?? [];
	const [, sessionId] = /^\/([\w-]{1,128})\/whep$/u.exec(path.startsWith(SESSIONS_PATH) ? path.slice(SESSIONS_PATH.length) : '') ?? [];
	return id !== undefined ? { kind: 'player', id } : sessionId !== undefined ? { kind: 'watch', sessionId } : undefined;
};

const numberOf = (text: string | null): number | undefined => (text === null ? undefined : text.trim() === '' ? Number.NaN : Number(text));

/** `session.start` as the query of an address says it. Throws `invalid_prompt` or `invalid_request`. */
const startOf = (url: string): ClientMessages['session.start'] => {
	const query = new URLSearchParams(url.split('?', 2)[1] ?? '');
	const given = {
		prompt: query.get('prompt') ?? undefined, model: query.get('model') ?? undefined, size: query.get('size') ?? undefined, seed: numberOf(query.get('seed')),
		parameters: query.get('steps') === null ? undefined : { steps: numberOf(query.get('steps')) },
	};
	if (given.prompt === undefined) {
		throw new TurbocastError('invalid_request', `\`prompt\` is missing: say what should be seen in the address, as in ${WHEP_PATH}?prompt=a%20cat%20jumps, or come with a token for a session that is there.`, { param: 'prompt' });
	}
	return CLIENT_SCHEMAS['session.start'].parse({ type: 'session.start', ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) });
};

const assertTakes = (request: IncomingMessage, contentType: string): void => {
	const { accept } = request.headers;
	const types = accept?.split(',').map((entry) => entry.split(';', 1)[0]?.trim().toLowerCase());
	if (types?.some((type) => type === '*/*' || type === 'application/*' || type === contentType) === false) {
		throw new TurbocastError('not_acceptable', `The answer is ${contentType}, which the Accept header leaves out.`);
	}
};

const hashOf = (text: string): Buffer => createHash('sha256').update(text).digest();

type Resident = { readonly player: WhepPlayer; /** Of the credential with which the player came. */ readonly credential: Buffer | undefined; readonly grant: Grant };

export type Whep = {
	/** Whether an address is one of these. */
	readonly isAt: (path: string) => boolean;
	/** Throws what the client is to be told. */
	readonly answer: (request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>;
};

export const createWhep = (parts: SessionParts): Whep => {
	const { config, clock, auth, sessions, connections, model, log } = parts;
	/** Bounded by `limits.max_connections`. */
	const residents = new Map<string, Resident>();
	const offers = new RateLimits(config.whepOffersPerMinute, 60_000);

	/** Of the session that this one is for, if it is for one. */
	const grantFor = async (request: IncomingMessage, place: Place): Promise<Grant> => {
		const grant = await auth.grant(request, model.id);
		if (place.kind !== 'watch' || grant.sessionId === place.sessionId) {
			return grant;
		}
		if (grant.sessionId !== undefined || bearerOf(request)?.startsWith(CLIENT_SECRET_PREFIX) === true) {
			throw new TurbocastError('forbidden', 'This client secret is not for that session; make one with its session_id, or share it.');
		}
		return { ...grant, sessionId: place.sessionId };
	};

	/** Starts a session for the player. Throws why there is no place for it now. */
	const start = async (player: WhepPlayer, message: ClientMessages['session.start'], queued: Promise<number>): Promise<void> => {
		const session = new Session(parts, player.member);
		player.enter(session);
		session.greet();
		const tooLate = queued.then(async (estimatedWaitMs) => {
			await clock.sleep(LONGEST_WAIT_FOR_PLACE_MS);
			throw new TurbocastError('capacity_exhausted', 'Every place is taken; try again when a session has ended.', { retryAfterMs: Math.max(1000, estimatedWaitMs) });
		});
		tooLate.catch(() => undefined);
		await Promise.race([session.handle(message, player.member), tooLate]);
	};

	const create = async (request: IncomingMessage, response: ServerResponse, place: Place): Promise<void> => {
		const address = parts.addressOf(request);
		connections.assertRoom(address);
		const retryAfterMs = offers.take(address, clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', `At most ${config.whepOffersPerMinute} offers a minute of one address.`, { retryAfterMs });
		}
		assertTakes(request, SDP_TYPE);
		const offerSdp = await readTextOf(request, SDP_TYPE, MAX_SDP_LENGTH);
		// Both before the credential is looked at: an offer that cannot be answered uses up no client secret.
		readOffer(offerSdp);
		const grant = await grantFor(request, place);
		const watched = grant.sessionId === undefined ? undefined : sessions.find(grant.sessionId, grant.keyId);
		const message = watched === undefined ? startOf(request.url ?? '') : undefined;
		let tellQueued: (estimatedWaitMs: number) => void = () => undefined;
		const queued = new Promise<number>((resolve) => {
			tellQueued = resolve;
		});
		let gone: { readonly why: TurbocastError | undefined } | undefined;
		const release = connections.add(address);
		// Whoever comes by HTTP alone cannot steer.
		const player = new WhepPlayer(parts, { grant: watched === undefined ? grant : { ...grant, mayControl: false }, address }, {
			onQueued: ({ estimated_wait_ms: estimatedWaitMs }) => tellQueued(estimatedWaitMs),
			onGone: (why) => {
				gone = { why };
				residents.delete(player.id);
				release();
			},
		});
		try {
			const answerSdp = await player.connect(offerSdp);
			if (message !== undefined) {
				await start(player, message, queued);
			} else {
				watched?.assertMayJoin();
				watched?.join(player.member);
				player.enter(watched as Session);
			}
			if (gone !== undefined || response.destroyed) {
				throw (gone as { why?: TurbocastError } | undefined)?.why ?? new TurbocastError('invalid_state', 'The session ended before the offer was answered.');
			}
			const credential = bearerOf(request);
			residents.set(player.id, { player, grant, credential: credential === undefined ? undefined : hashOf(credential) });
			response.setHeader('link', iceServerLinks(parts.iceServers.list(player.session?.id ?? player.id)));
			response.writeHead(201, {
				'content-type': SDP_TYPE, 'cache-control': 'no-store', 'location': `${WHEP_PATH}/${player.id}`, 'etag': player.entityTag, 'accept-patch': FRAGMENT_TYPE,
				'session-id': player.session?.id ?? '', 'content-length': Buffer.byteLength(answerSdp),
			});
			response.end(answerSdp);
		} catch (error) {
			release();
			await player.leave().catch((failure: unknown) => log.debug({ err: failure }, 'A player that was refused did not leave.'));
			throw error;
		}
	};

	/** The credential of before, though it may be out of date by now, or the server key behind it. */
	const residentOf = async (request: IncomingMessage, id: string): Promise<Resident> => {
		const resident = residents.get(id);
		if (resident === undefined) {
			throw new TurbocastError('session_not_found', 'There is no player of this address: it has left, or its session has ended.');
		}
		const given = bearerOf(request);
		const isSame = given !== undefined && resident.credential !== undefined && timingSafeEqual(hashOf(given), resident.credential);
		if (resident.credential !== undefined && !isSame && (await auth.serverKey(request))?.id !== resident.grant.keyId) {
			throw new TurbocastError('forbidden', 'This player came with another credential; send that.');
		}
		return resident;
	};

	const patch = async (request: IncomingMessage, response: ServerResponse, { player }: Resident): Promise<void> => {
		const fragment = readFragment(await readTextOf(request, FRAGMENT_TYPE, MAX_FRAGMENT_BYTES));
		const body = await player.patch(fragment, request.headers['if-match']);
		if (body === undefined) {
			response.writeHead(204);
			response.end();
			return;
		}
		response.writeHead(200, { 'content-type': FRAGMENT_TYPE, 'cache-control': 'no-store', 'etag': player.entityTag, 'content-length': Buffer.byteLength(body) });
		response.end(body);
	};

	return {
		isAt: (path) => placeOf(path) !== undefined,
		answer: async (request, response, path) => {
			const place = placeOf(path);
			if (place === undefined) {
				throw new TurbocastError('not_found', `There is nothing at ${path.slice(0, 200)}.`);
			}
			allowOrigin(request, response, config.allowedOrigins, EXPOSED_HEADERS);
			const methods = METHODS[place.kind];
			if (!methods.includes(request.method ?? '')) {
				response.setHeader('allow', methods.join(', '));
				throw new TurbocastError('method_not_allowed', `This address answers ${methods.join(', ')} only.`);
			}
			if (request.method === 'OPTIONS') {
				answerPreflight(response, methods, ASKED_HEADERS);
				response.writeHead(200, place.kind === 'player' ? { 'accept-patch': FRAGMENT_TYPE, 'content-length': 0 } : { 'accept-post': SDP_TYPE, 'content-length': 0 });
				response.end();
				return;
			}
			if (request.method === 'GET' || request.method === 'HEAD') {
				// Nothing to show, as the standard has it.
				response.writeHead(204);
				response.end();
				return;
			}
			if (place.kind !== 'player') {
				return create(request, response, place);
			}
			const resident = await residentOf(request, place.id);
			if (request.method === 'PATCH') {
				return patch(request, response, resident);
			}
			await resident.player.leave();
			response.writeHead(200, { 'content-length': 0 });
			response.end();
		},
	};
};
