/**
 * The STUN and TURN servers that a client is told of. Credentials of TURN are made for each client and expire (draft-uberti-behave-turn-rest-00 section
 * 2.2): the name says until when, the password proves that it was made by somebody who knows the secret that the TURN server knows too.
 */
import { createHmac } from 'node:crypto';
import type { IceServer } from './server-config.js';

export type TurnConfig = {
	/** `turn:` and `turns:` addresses. */
	readonly urls: readonly string[];
	/** `static-auth-secret` of coturn. */
	readonly secret: string;
	readonly credentialSeconds: number;
};

export class IceServers {
	readonly #fixed: readonly IceServer[];
	readonly #turn: TurnConfig | undefined;
	readonly #wallMs: () => number;

	/** `fixed`: told to everyone as they are. `wallMs`: milliseconds since 1970. */
	constructor(fixed: readonly IceServer[], turn: TurnConfig | undefined, wallMs: () => number = Date.now) {
		this.#fixed = fixed;
		this.#turn = turn;
		this.#wallMs = wallMs;
	}

	/** For one client; `name` stands in the log of the TURN server. */
	list(name: string): IceServer[] {
		const fixed = this.#fixed.map((server) => ({ ...server }));
		if (this.#turn === undefined) {
			return fixed;
		}
		const { urls, secret, credentialSeconds } = this.#turn;
		const username = `${Math.floor(this.#wallMs() / 1000) + credentialSeconds}:${name}`;
		return [...fixed, { urls: [...urls], username, credential: createHmac('sha1', secret).update(username).digest('base64') }];
	}
}

/** RFC 9110 section 5.6.4. */
const quoted = (text: string): string => `"${text.replaceAll(/["\\]/gu, '\\$&')}"`;

/** As `Link` headers (RFC 9725 section 4.6), one for each address. */
export const iceServerLinks = (servers: readonly IceServer[]): string[] =>
	servers.flatMap(({ urls, username, credential }) => urls.map((url) => [
		`<${url}>; rel="ice-server"`,
		...(username === undefined ? [] : [`username=${quoted(username)}`]),
		...(credential === undefined ? [] : [`credential=${quoted(credential)}`, 'credential-type="password"']),
	].join('; ')));

const MOST_LINKED_SERVERS = 8;
const MAX_LINK_CHARACTERS = 8192;

/** One link: its target, and parameters of any order, quoted or not (RFC 8288 section 3). */
const LINK = /<(?<url>[^<>]*)>(?<parameters>(?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s";,]+))*)/gu;
const LINK_PARAMETER = /;\s*(?<name>[\w-]+)\s*=\s*(?:"(?<quoted>(?:[^"\\]|\\.)*)"|(?<plain>[^\s";,]+))/gu;

/** The other way round: what an endpoint names in its `Link` headers. What is no STUN or TURN server is left out. */
export const linkedIceServers = (header: string | null): IceServer[] =>
	[...(header ?? '').slice(0, MAX_LINK_CHARACTERS).matchAll(LINK)].flatMap(({ groups }) => {
		const url = groups?.['url'] ?? '';
		const parameters = new Map([...(groups?.['parameters'] ?? '').matchAll(LINK_PARAMETER)].map(({ groups: each }) =>
			[each?.['name']?.toLowerCase() ?? '', each?.['quoted']?.replaceAll(/\\(.)/gu, '$1') ?? each?.['plain'] ?? '']));
		if (!/^(?:stuns?|turns?):/u.test(url) || parameters.get('rel')?.split(/\s+/u).includes('ice-server') !== true) {
			return [];
		}
		const [username, credential] = [parameters.get('username'), parameters.get('credential')];
		return [{ urls: [url], ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }) }];
	}).slice(0, MOST_LINKED_SERVERS);
