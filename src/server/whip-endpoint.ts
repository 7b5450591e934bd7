/**
 * The client's half of WHIP (RFC 9725) as HTTP: an offer out, an answer and a resource in. Requests go to origins that the operator has named and nowhere
 * else, wherever redirects and `Location` point; every answer is bounded in size and time.
 */
import { TurbocastError } from '../protocol/errors.js';
import { MAX_SDP_LENGTH } from '../protocol/limits.js';
import { FRAGMENT_TYPE, SDP_TYPE } from '../protocol/whep.js';
import { linkedIceServers } from './ice-servers.js';
import type { IceServer } from './server-config.js';

const REQUEST_TIMEOUT_MS = 10_000;
const MOST_REDIRECTS = 5;
const LONGEST_RETRY_AFTER_MS = 600_000;
/** Of what an endpoint says when it refuses, in our own message. */
const MOST_REASON_CHARACTERS = 200;

export type Published = {
	readonly answerSdp: string;
	/** Deleted at the end; the endpoint may have given none. */
	readonly resource: URL | undefined;
	readonly iceServers: readonly IceServer[];
};

const refused = (sentence: string, cause?: unknown): TurbocastError => new TurbocastError('publish_refused', sentence, { param: 'url', cause });

/** Bounded; throws `publish_refused` for more. */
const readBody = async (response: Response): Promise<string> => {
	const decoder = new TextDecoder();
	let text = '';
	for await (const part of response.body ?? []) {
		text += decoder.decode(part as Uint8Array, { stream: true });
		if (text.length > MAX_SDP_LENGTH) {
			throw refused(`The endpoint's answer is longer than ${MAX_SDP_LENGTH} characters.`);
		}
	}
	return text + decoder.decode();
};

/** Without parameters. */
const typeOf = ({ headers }: Response): string | undefined => headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase();

/** Seconds, or a date (RFC 9110 section 10.2.3). */
const retryAfterMs = (text: string | null): number | undefined => {
	const ms = text === null ? Number.NaN : /^\d+$/u.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.now();
	return Number.isNaN(ms) ? undefined : Math.min(LONGEST_RETRY_AFTER_MS, Math.max(0, ms));
};

type RequestBody = { readonly type: string; readonly text: string; readonly headers?: { readonly [name: string]: string } };

export type WhipEndpointOptions = {
	readonly url: string;
	readonly token: string | undefined;
	/** `scheme://host:port` each. */
	readonly allowedOrigins: readonly string[];
};

export class WhipEndpoint {
	readonly url: URL;
	readonly #token: string | undefined;
	readonly #allowed: ReadonlySet<string>;

	/** Throws `invalid_request` or `forbidden`. */
	constructor({ url, token, allowedOrigins }: WhipEndpointOptions) {
		if (!URL.canParse(url)) {
			throw new TurbocastError('invalid_request', '`url` is not an address.', { param: 'url' });
		}
		this.url = new URL(url);
		if (this.url.username !== '' || this.url.password !== '') {
			throw new TurbocastError('invalid_request', '`url` must not hold a name or a password; give a bearer token as `token`.', { param: 'url' });
		}
		this.#token = token;
		this.#allowed = new Set(allowedOrigins.map((origin) => new URL(origin).origin));
		if (!this.#allowed.has(this.url.origin)) {
			throw new TurbocastError('forbidden', `Nothing may be published to ${this.url.origin}; the operator allows it with publish.allowed_origins.`, { param: 'url' });
		}
	}

	/** STUN and TURN servers that the endpoint names before it is offered anything (RFC 9725 section 4.6); none when it does not know the question. Throws `publish_failed` when it cannot be reached. */
	async iceServers(signal: AbortSignal): Promise<IceServer[]> {
		const response = await this.#ask('OPTIONS', this.url, signal);
		void response.body?.cancel().catch(() => undefined);
		return response.ok ? linkedIceServers(response.headers.get('link')) : [];
	}

	/** Throws `publish_refused`; `publish_failed` for what may be otherwise next time. */
	async publish(offerSdp: string, signal: AbortSignal): Promise<Published> {
		const response = await this.#ask('POST', this.url, signal, { type: SDP_TYPE, text: offerSdp });
		const { status, headers } = response;
		const body = await readBody(response).catch((error: unknown) => {
			throw TurbocastError.from(error, 'publish_failed');
		});
		if (status === 429 || status >= 500) {
			throw new TurbocastError('publish_failed', `${this.url.origin} answered ${status}; it may take the video later.`, { param: 'url', retryAfterMs: retryAfterMs(headers.get('retry-after')) });
		}
		if (status !== 201) {
			const reason = body.replaceAll(/\s+/gu, ' ').trim().slice(0, MOST_REASON_CHARACTERS);
			throw refused(`${this.url.origin} answered ${status}${reason === '' ? '' : ` (${reason})`}${status === 401 || status === 403 ? '; check the token' : status === 404 || status === 405 ? '; check the address' : ''}. WHIP wants 201.`);
		}
		if (typeOf(response) !== SDP_TYPE) {
			throw refused(`${this.url.origin} answered with ${headers.get('content-type') ?? 'no type'} instead of ${SDP_TYPE}: is it a WHIP endpoint?`);
		}
		return { answerSdp: body, resource: this.#resource(response), iceServers: linkedIceServers(headers.get('link')) };
	}

	/**
	 * Gives the fragment of an ICE restart, and gets that of the endpoint (RFC 9725 section 4.3.3). Throws `publish_refused` when it does not restart, as many
	 * do not (405, 422, 501), or no longer knows the resource; `publish_failed` when it cannot be reached.
	 */
	async restart(resource: URL, fragment: string, signal: AbortSignal): Promise<string> {
		// Of any ICE session: that of before is over.
		const response = await this.#ask('PATCH', resource, signal, { type: FRAGMENT_TYPE, text: fragment, headers: { 'if-match': '*' } });
		const body = await readBody(response).catch((error: unknown) => {
			throw TurbocastError.from(error, 'publish_failed');
		});
		if (response.status !== 200 || typeOf(response) !== FRAGMENT_TYPE) {
			throw refused(`${this.url.origin} answered an ICE restart with ${response.status}.`);
		}
		return body;
	}

	/** Tells the endpoint that the video is over. Whatever it answers, nothing more can be done. */
	async remove(resource: URL, signal: AbortSignal): Promise<void> {
		const response = await this.#ask('DELETE', resource, signal);
		await response.body?.cancel();
	}

	#resource(response: Response): URL | undefined {
		const location = response.headers.get('location');
		if (location === null || !URL.canParse(location, response.url)) {
			return undefined;
		}
		const resource = new URL(location, response.url);
		return this.#allowed.has(resource.origin) ? resource : undefined;
	}

	/** Follows redirects that keep the method (RFC 9725 section 4.5). Throws `publish_refused` or `publish_failed`. */
	async #ask(method: 'OPTIONS' | 'POST' | 'PATCH' | 'DELETE', url: URL, signal: AbortSignal, body?: RequestBody): Promise<Response> {
		const within = AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]);
		let target = url;
		for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects += 1) {
			let response: Response;
			try {
				response = await fetch(target, {
					method, redirect: 'manual', signal: within,
					headers: { ...(body === undefined ? {} : { 'content-type': body.type, 'accept': body.type, ...body.headers }), ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }) },
					...(body === undefined ? {} : { body: body.text }),
				});
			} catch (error) {
				const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
				throw new TurbocastError('publish_failed', `${target.origin} could not be reached (${cause instanceof Error ? cause.message : String(cause)}).`, { param: 'url', cause: error });
			}
			if (response.status < 300 || response.status >= 400) {
				return response;
			}
			await response.body?.cancel();
			const location = response.headers.get('location');
			if ((response.status !== 307 && response.status !== 308) || location === null || !URL.canParse(location, target.href)) {
				throw refused(`${target.origin} answered ${response.status}; a WHIP endpoint redirects with 307 or 308 and a Location.`);
			}
			target = new URL(location, target);
			if (!this.#allowed.has(target.origin)) {
				throw refused(`${url.origin} redirects to ${target.origin}, which publish.allowed_origins does not name.`);
			}
		}
		throw refused(`${url.origin} redirects more than ${MOST_REDIRECTS} times.`);
	}
}
