/**
 * Client secrets, and the one door to jose: `ek_` and a JSON Web Token (RFC 7519) signed with HMAC-SHA-256. Server and issuer are one, so a
 * shared secret is enough. Algorithm, type, issuer and audience are fixed here: what a token says of itself chooses nothing (RFC 8725 section 3.1).
 */
import { errors, jwtVerify, SignJWT } from 'jose';
import { v7 } from 'uuid';
import { CONSTRAINTS_SCHEMA, PERMISSIONS_SCHEMA, type Constraints, type Permissions } from '../protocol/client-secrets.js';
import { TurbocastError } from '../protocol/errors.js';
import { boolean, integer, object, optional, string, type Infer } from '../protocol/schema.js';

export const CLIENT_SECRET_PREFIX = 'ek_';

const ALGORITHM = 'HS256';
const TYPE = 'client-secret+jwt';
const ISSUER = 'turbocast';
const AUDIENCE = 'realtime';

const CLAIMS = object({
	jti: string({ min: 1, max: 64 }),
	/** Id of the server key that it was made with. */
	sub: string({ min: 1, max: 64 }),
	exp: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
	permissions: PERMISSIONS_SCHEMA,
	constraints: CONSTRAINTS_SCHEMA,
	/** The one that it is for; a link may be used by any number of people. */
	session: optional(object({ id: string({ min: 1, max: 128 }), is_link: boolean() })),
});
export type TokenClaims = Infer<typeof CLAIMS>;

export type TokenRequest = { readonly keyId: string; readonly seconds: number; readonly permissions: Permissions; readonly constraints: Constraints; readonly session?: TokenClaims['session'] };

const refusal = (cause: unknown): TurbocastError =>
	cause instanceof errors.JWTExpired
		? new TurbocastError('token_expired', 'The client secret has expired; get a new one and connect again.', { cause })
		// One sentence for every other reason: which check failed helps only a forger.
		: new TurbocastError('unauthorized', 'The client secret is not valid here; get a new one from POST /v1/realtime/client_secrets.', { cause });

export class Tokens {
	readonly #secret: Uint8Array;
	readonly #wallMs: () => number;

	/** `secret`: 32 bytes. `wallMs`: milliseconds since 1970. */
	constructor(secret: Uint8Array, wallMs: () => number) {
		this.#secret = secret;
		this.#wallMs = wallMs;
	}

	/** `expiresAt` in seconds since 1970. */
	async sign(request: TokenRequest): Promise<{ value: string; expiresAt: number }> {
		const issuedAt = Math.floor(this.#wallMs() / 1000);
		const expiresAt = issuedAt + request.seconds;
		const token = await new SignJWT({ permissions: request.permissions, constraints: request.constraints, ...(request.session === undefined ? {} : { session: request.session }) })
			.setProtectedHeader({ alg: ALGORITHM, typ: TYPE })
			.setIssuer(ISSUER).setAudience(AUDIENCE).setSubject(request.keyId).setJti(v7())
			.setIssuedAt(issuedAt).setExpirationTime(expiresAt)
			.sign(this.#secret);
		return { value: `${CLIENT_SECRET_PREFIX}${token}`, expiresAt };
	}

	/** Throws `token_expired` or `unauthorized`. */
	async verify(value: string): Promise<TokenClaims> {
		try {
			const { payload } = await jwtVerify(value.slice(CLIENT_SECRET_PREFIX.length), this.#secret, {
				algorithms: [ALGORITHM], typ: TYPE, issuer: ISSUER, audience: AUDIENCE, currentDate: new Date(this.#wallMs()),
			});
			return CLAIMS.parse(payload);
		} catch (error) {
			throw refusal(error);
		}
	}
}
