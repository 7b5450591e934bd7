/** Who may do what: server keys for backends and operators, client secrets for pages. Without any key everyone on this machine may. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { DEFAULT_SECRET_SECONDS, type ClientSecret, type ClientSecretRequest } from '../protocol/client-secrets.js';
import { TurbocastError } from '../protocol/errors.js';
import { TOKEN_PROTOCOL_PREFIX } from '../protocol/limits.js';
import { readKeys, readSigningKey, stampOf } from './key-file.js';
import { findKey, SERVER_KEY_PREFIX, storedKeyOf, type StoredKey } from './keys.js';
import { RateLimit } from './rate-limit.js';
import { CLIENT_SECRET_PREFIX, Tokens, type TokenClaims } from './tokens.js';

/** What the holder of a credential may do with one connection. */
export type Grant = {
	/** Of the server key, or of that which the client secret was made with. */
	readonly keyId: string | undefined;
	/** The session that the client secret is for: to come to it, not to start one. */
	readonly sessionId: string | undefined;
	/** May start and steer. */
	readonly mayControl: boolean;
	readonly maxSessionMs: number;
};

export type AuthOptions = {
	/** Keys in clear, from the configuration. */
	readonly keys: readonly string[];
	/** Read again whenever it changes. */
	readonly keysFile: string | undefined;
	/** Client secrets that one key may make. */
	readonly secretsPerMinute: number;
	readonly log: Log;
	readonly clock: Clock;
	/** Milliseconds since 1970; the default is the system's. */
	readonly wallMs?: () => number;
};

/** In place of the id of a server key, in secrets of a server that has none. */
const NO_KEY = 'none';
const OPEN: Grant = { keyId: undefined, sessionId: undefined, mayControl: true, maxSessionMs: Number.POSITIVE_INFINITY };
/** Uses of secrets that have expired are forgotten this often. */
const SWEEP_INTERVAL_MS = 60_000;
/** The whole of 127.0.0.0/8 is the loopback (RFC 1122 section 3.2.1.3). */
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|::1)$/iu;

const missing = (): TurbocastError => new TurbocastError('unauthorized', 'This server asks for a key: open its page with #token=KEY behind the address; programs send "Authorization: Bearer KEY".');

/** The credential in the header of a request. */
export const bearerOf = (request: IncomingMessage): string | undefined => /^Bearer +(\S+)$/iu.exec(request.headers.authorization ?? '')?.[1];

/** Browsers cannot set headers on a WebSocket, and an address lands in logs; a sub-protocol does not. */
export const protocolTokenOf = (request: IncomingMessage): string | undefined =>
	request.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()).find((name) => name.startsWith(TOKEN_PROTOCOL_PREFIX))?.slice(TOKEN_PROTOCOL_PREFIX.length);

export class Auth {
	readonly #options: AuthOptions;
	readonly #tokens: Tokens;
	readonly #configured: readonly StoredKey[];
	#fromFile: readonly StoredKey[];
	#stamp: string | undefined;
	/** Once there was a key, revoking the last one locks the server rather than opening it. */
	#isRequired: boolean;
	readonly #wallMs: () => number;
	readonly #mints = new Map<string, RateLimit>();
	/** By `jti`: how often a secret has opened a connection. Bounded by what may be minted within the life of a secret. */
	readonly #openings = new Map<string, { count: number; readonly expiresAtMs: number }>();
	#sweptAtMs = 0;

	private constructor(options: AuthOptions, fromFile: readonly StoredKey[], stamp: string | undefined, tokens: Tokens) {
		this.#options = options;
		this.#wallMs = options.wallMs ?? Date.now;
		this.#configured = options.keys.map((key) => storedKeyOf(key, 'configuration', new Date(0)));
		this.#fromFile = fromFile;
		this.#stamp = stamp;
		this.#tokens = tokens;
		this.#isRequired = this.#keys.length > 0;
	}

	/** Throws `invalid_config`. */
	static async open(options: AuthOptions): Promise<Auth> {
		const { keysFile, log } = options;
		const stamp = keysFile === undefined ? undefined : await stampOf(keysFile);
		const keys = keysFile === undefined ? [] : await readKeys(keysFile);
		const persisted = keysFile === undefined ? undefined : await readSigningKey(keysFile);
		const auth = new Auth(options, keys, stamp, new Tokens(persisted ?? randomBytes(32), options.wallMs ?? Date.now));
		if (auth.#isRequired && persisted === undefined) {
			log.info({}, 'Client secrets are signed with a key that lasts until this process ends; those made before a restart are refused after it.');
		}
		return auth;
	}

	get #keys(): readonly StoredKey[] {
		return [...this.#configured, ...this.#fromFile];
	}

	/** Throws `invalid_config` where others could reach a server that asks nobody who they are. */
	assertMayListen(host: string): void {
		if (!this.#isRequired && !LOOPBACK_HOST.test(host)) {
			throw new TurbocastError('invalid_config', `Listening on ${host} needs a key, or anyone who can reach it could use this server: make one with \`turbocast keys create\` (or give one in TURBOCAST_AUTH__KEYS), or listen on 127.0.0.1.`, { param: 'server.host' });
		}
	}

	/** The server key of a request, `undefined` on an open server. Throws `unauthorized`, or `forbidden` for a client secret. */
	async serverKey(request: IncomingMessage): Promise<StoredKey | undefined> {
		await this.#refresh();
		return this.#isRequired ? this.#serverKeyOf(bearerOf(request)) : undefined;
	}

	/** Makes a client secret. Throws `unauthorized`, `forbidden` or `rate_limited`. */
	async mint(key: StoredKey | undefined, request: ClientSecretRequest): Promise<ClientSecret> {
		if (key === undefined) {
			throw new TurbocastError('unauthorized', 'This server has no keys, and lets anyone on this machine in without; make one with `turbocast keys create`.');
		}
		this.#countMint(key.id);
		const { session_id: sessionId, constraints } = request;
		const permissions = { ...request.permissions, actions: request.permissions.actions ?? (sessionId === undefined ? ['control' as const, 'view' as const] : ['view' as const]) };
		const { value, expiresAt } = await this.#tokens.sign({
			keyId: key.id, seconds: request.expires_after?.seconds ?? DEFAULT_SECRET_SECONDS, permissions, constraints,
			session: sessionId === undefined ? undefined : { id: sessionId, is_link: false },
		});
		return { value, expires_at: expiresAt, ...(sessionId === undefined ? {} : { session_id: sessionId }), permissions, constraints };
	}

	/**
	 * A secret that any number of people may use to come to one session, as its owner wishes. On a server without keys too: there
	 * it says what they may not do. Throws `rate_limited`.
	 */
	async share(request: { readonly keyId: string | undefined; readonly sessionId: string; readonly seconds: number; readonly mayControl: boolean }): Promise<{ readonly value: string; readonly expires_at: number }> {
		const keyId = request.keyId ?? NO_KEY;
		this.#countMint(keyId);
		const { value, expiresAt } = await this.#tokens.sign({
			keyId, seconds: request.seconds, constraints: { max_sessions: 1 },
			permissions: { actions: request.mayControl ? ['control', 'view'] : ['view'] }, session: { id: request.sessionId, is_link: true },
		});
		return { value, expires_at: expiresAt };
	}

	#countMint(keyId: string): void {
		const { secretsPerMinute, clock } = this.#options;
		const limit = this.#mints.get(keyId) ?? new RateLimit(secretsPerMinute, 60_000, clock.nowMs());
		this.#mints.set(keyId, limit);
		const retryAfterMs = limit.take(clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', `At most ${secretsPerMinute} client secrets a minute for one key.`, { retryAfterMs });
		}
	}

	/**
	 * What a request for a control socket may do; counts the opening against a client secret, unless it only looks at what is there. Throws `unauthorized`,
	 * `token_expired`, or `forbidden` for another model or origin than the secret names.
	 */
	async grant(request: IncomingMessage, model: string, purpose: 'open' | 'look' = 'open'): Promise<Grant> {
		await this.#refresh();
		const credential = bearerOf(request) ?? protocolTokenOf(request);
		if (credential?.startsWith(CLIENT_SECRET_PREFIX) !== true) {
			return this.#isRequired ? { ...OPEN, keyId: this.#serverKeyOf(credential).id } : OPEN;
		}
		// On a server without keys too: a shared token gives less than coming without any.
		const claims = await this.#tokens.verify(credential);
		this.#check(claims, request.headers.origin, model);
		if (purpose === 'open') {
			this.#countOpening(claims);
		}
		const seconds = claims.constraints.max_session_seconds;
		return {
			keyId: claims.sub === NO_KEY ? undefined : claims.sub, sessionId: claims.session?.id, mayControl: claims.permissions.actions.includes('control'), maxSessionMs: seconds === undefined ? Number.POSITIVE_INFINITY : seconds * 1000,
		};
	}

	/** Of what was granted before. Throws `unauthorized` when the server key behind it has been revoked, or there was none and now there must be. */
	async assertStillHolds({ keyId }: Grant): Promise<void> {
		await this.#refresh();
		if (keyId === undefined ? this.#isRequired : !this.#keys.some(({ id }) => id === keyId)) {
			throw new TurbocastError('unauthorized', 'The server key with which this session began has been revoked.');
		}
	}

	#serverKeyOf(credential: string | undefined): StoredKey {
		if (credential === undefined) {
			throw missing();
		}
		if (credential.startsWith(CLIENT_SECRET_PREFIX)) {
			throw new TurbocastError('forbidden', 'A client secret opens sessions and nothing else; use a server key (sk_) for this.');
		}
		const key = credential.startsWith(SERVER_KEY_PREFIX) ? findKey(this.#keys, credential) : undefined;
		if (key === undefined) {
			throw new TurbocastError('unauthorized', 'The key is not one of this server; `turbocast keys create` makes one.');
		}
		return key;
	}

	#check({ sub, permissions }: TokenClaims, origin: string | undefined, model: string): void {
		if (sub === NO_KEY ? this.#isRequired : !this.#keys.some((key) => key.id === sub)) {
			throw new TurbocastError('unauthorized', 'The server key that this client secret was made with has been revoked.');
		}
		if (permissions.models?.includes(model) === false) {
			throw new TurbocastError('forbidden', `This client secret is for ${permissions.models.join(', ')}; this server runs ${model}.`, { param: 'model' });
		}
		if (permissions.origins !== undefined && !permissions.origins.includes(origin ?? '')) {
			throw new TurbocastError('forbidden', 'This client secret is for pages of another origin.');
		}
	}

	#countOpening({ jti, exp, constraints, session }: TokenClaims): void {
		if (session?.is_link === true) {
			// For as many as come; how many at once the session counts itself.
			return;
		}
		const nowMs = this.#wallMs();
		if (nowMs - this.#sweptAtMs > SWEEP_INTERVAL_MS) {
			this.#sweptAtMs = nowMs;
			for (const [id, opening] of this.#openings) {
				if (opening.expiresAtMs <= nowMs) {
					this.#openings.delete(id);
				}
			}
		}
		const opening = this.#openings.get(jti) ?? { count: 0, expiresAtMs: exp * 1000 };
		if (opening.count >= constraints.max_sessions) {
			throw new TurbocastError('unauthorized', `This client secret has opened all the sessions that it is good for (${constraints.max_sessions}); get a new one.`);
		}
		opening.count += 1;
		this.#openings.set(jti, opening);
	}

	/** Keys made and revoked while the server runs count from the next request on. */
	async #refresh(): Promise<void> {
		const { keysFile, log } = this.#options;
		if (keysFile === undefined) {
			return;
		}
		const stamp = await stampOf(keysFile);
		if (stamp === this.#stamp) {
			return;
		}
		try {
			this.#fromFile = await readKeys(keysFile);
		} catch (error) {
			log.error({ err: error }, 'The keys file cannot be read any more; the keys of before stay valid.');
		}
		this.#stamp = stamp;
		this.#isRequired ||= this.#keys.length > 0;
	}
}
