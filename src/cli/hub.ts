/**
 * The hub that holds published weights, through its maintained client. What the client says in free text becomes one of our codes here:
 * the requests run through a `fetch` of ours, which sees every answer before the client does.
 */
import type { downloadFile, pathsInfo } from '@huggingface/hub';
import { TurbocastError } from '../protocol/errors.js';

export const DEFAULT_HUB = 'https://huggingface.co';
/** Milliseconds without a byte after which a connection counts as cut. */
export const DEFAULT_STALL_MS = 60_000;

const SHA256 = /^[0-9a-f]{64}$/u;

export type HubFile = {
	readonly path: string;
	/** Bytes. */
	readonly size: number;
	/** SHA-256 of a large file; small ones are kept in git, whose id is the SHA-1 of `blob SIZE`, a zero and the contents. */
	readonly hash: { readonly kind: 'sha256' | 'git'; readonly hex: string };
};

export type Hub = {
	/** Sizes and hashes. Throws `not_found` naming what is not there, `unauthorized`, `hub_unreachable` or `download_failed`. */
	readonly describe: (repository: string, revision: string, paths: readonly string[], signal: AbortSignal) => Promise<HubFile[]>;
	/** Bytes from `offset` to the end, in pieces. Throws as above, `hub_unreachable` also when the connection breaks. */
	readonly read: (repository: string, revision: string, file: HubFile, offset: number, signal: AbortSignal) => AsyncGenerator<Uint8Array>;
};

export type HubOptions = {
	readonly url: string;
	readonly token?: string | undefined;
	readonly stallMs?: number | undefined;
};

/** The client takes a second to load and only pulling needs it. */
const loadClient = (): Promise<{ pathsInfo: typeof pathsInfo; downloadFile: typeof downloadFile }> => import('@huggingface/hub');

const messageOf = (error: unknown): string => {
	const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
	return cause instanceof Error ? cause.message : String(cause);
};

const failureOf = (url: string, response: Response, what: string): TurbocastError => {
	const at = `The hub ${new URL(url).origin} answered ${response.status} to the request for ${what}`;
	switch (response.status) {
		case 401:
		case 403:
			return new TurbocastError('unauthorized', `${at}: the repository is private or asks for its terms to be accepted on its page, or it does not exist. Set HF_TOKEN to an access token.`);
		case 404:
			return new TurbocastError('not_found', `${at}: there is no such file or repository; it may have been moved.`);
		case 429:
			return new TurbocastError('rate_limited', `${at}: too many requests. Wait, then run the same command again; it goes on where it stopped.`);
		default:
			return response.status >= 500
				? new TurbocastError('hub_unreachable', `${at}. Run the same command again later; it goes on where it stopped.`)
				: new TurbocastError('download_failed', `${at}.`);
	}
};

/** A `fetch` for the client that turns every failure into one of ours, and remembers it: the client passes on only its text. */
const watchedFetch = (hubUrl: string, what: string, offset: number, signal: AbortSignal) => {
	const seen: { failure?: TurbocastError; skipBytes: number } = { skipBytes: 0 };
	const fail = (failure: TurbocastError): never => {
		seen.failure = failure;
		throw failure;
	};
	const request: typeof fetch = async (input, init) => {
		const response = await fetch(input, { ...init, signal }).catch((error: unknown) => {
			signal.throwIfAborted();
			const reason = messageOf(error);
			return fail(/redirect/iu.test(reason)
				? new TurbocastError('download_failed', `The hub ${hubUrl} sends the request for ${what} from one address to the next without end.`, { cause: error })
				: new TurbocastError('hub_unreachable', `The hub ${hubUrl} cannot be reached (${reason}). Check the network; for a mirror set HF_ENDPOINT. Files from elsewhere: turbocast models import DIR|FILE --as NAME.`, { cause: error }));
		});
		if (!response.ok) {
			await response.body?.cancel();
			fail(failureOf(response.url === '' ? hubUrl : response.url, response, what));
		}
		if (response.status === 206 && offset > 0 && response.headers.get('content-range')?.startsWith(`bytes ${offset}-`) !== true) {
			await response.body?.cancel();
			fail(new TurbocastError('download_failed', `The hub was asked for ${what} from byte ${offset} on, but sends another part.`));
		}
		// A server that knows no ranges sends everything; what is here already is passed over.
		seen.skipBytes = response.status === 206 ? 0 : offset;
		return response;
	};
	return { seen, request };
};

const hashOf = (what: string, oid: string | undefined, lfs: string | undefined): HubFile['hash'] => {
	if (lfs !== undefined && SHA256.test(lfs)) {
		return { kind: 'sha256', hex: lfs };
	}
	if (lfs === undefined && oid !== undefined && /^[0-9a-f]{40}$/u.test(oid)) {
		return { kind: 'git', hex: oid };
	}
	throw new TurbocastError('download_failed', `The hub names no hash of ${what} by which it could be checked (SHA-256, or the id of a git blob).`);
};

export const openHub = ({ url, token, stallMs = DEFAULT_STALL_MS }: HubOptions): Hub => {
	if (!URL.canParse(url) || !/^https?:$/u.test(new URL(url).protocol)) {
		throw new TurbocastError('invalid_option', `"${url}" is no address of a hub; give one such as ${DEFAULT_HUB}.`);
	}
	const hubUrl = url.replace(/\/+$/u, '');
	const credentials = token === undefined || token === '' ? {} : { accessToken: token };

	return {
		describe: async (repository, revision, paths, signal) => {
			const client = await loadClient();
			const limit = AbortSignal.any([signal, AbortSignal.timeout(stallMs)]);
			const { seen, request } = watchedFetch(hubUrl, repository, 0, limit);
			const found = await client.pathsInfo({ repo: repository, revision, paths: [...paths], hubUrl, fetch: request, ...credentials }).catch((error: unknown) => {
				signal.throwIfAborted();
				throw seen.failure ?? new TurbocastError(limit.aborted ? 'hub_unreachable' : 'download_failed', `The hub ${hubUrl} gave no list of the files of ${repository} (${messageOf(error)}).`, { cause: error });
			});
			return paths.map((path) => {
				const info = found.find((each) => each.path === path && each.type === 'file');
				if (info === undefined) {
					throw new TurbocastError('not_found', `${repository} has no file ${path} at ${revision}; it may have been moved.`);
				}
				if (!Number.isSafeInteger(info.size) || info.size < 0) {
					throw new TurbocastError('download_failed', `The hub names no size of ${path}.`);
				}
				return { path, size: info.lfs?.size ?? info.size, hash: hashOf(path, info.oid, info.lfs?.oid) };
			});
		},
		read: async function* (repository, revision, file, offset, signal) {
			const client = await loadClient();
			const stalled = new AbortController();
			const limit = AbortSignal.any([signal, stalled.signal]);
			const { seen, request } = watchedFetch(hubUrl, `${repository}/${file.path}`, offset, limit);
			const address = `${hubUrl}/${repository}/resolve/${encodeURIComponent(revision)}/${file.path}`;
			// Plain ranges rather than the chunk store: they can be resumed at any byte, and the file's own hash covers the whole.
			const blob = await client.downloadFile({
				repo: repository, path: file.path, revision, hubUrl, fetch: request, xet: false, ...credentials, downloadInfo: { size: file.size, etag: file.hash.hex, url: address },
			});
			const reader: ReadableStreamDefaultReader<Uint8Array> | undefined = (offset === 0 ? blob : blob?.slice(offset))?.stream().getReader();
			try {
				for (;;) {
					const timer = setTimeout(() => stalled.abort(), stallMs);
					const piece = await reader?.read().finally(() => clearTimeout(timer));
					if (piece?.value === undefined) {
						return;
					}
					const known = Math.min(seen.skipBytes, piece.value.length);
					seen.skipBytes -= known;
					if (known < piece.value.length) {
						yield piece.value.subarray(known);
					}
				}
			} catch (error) {
				signal.throwIfAborted();
				throw seen.failure ?? new TurbocastError('hub_unreachable', `The connection to the hub broke while ${file.path} was fetched (${stalled.signal.aborted ? `nothing came for ${stallMs} ms` : messageOf(error)}).`, { cause: error });
			} finally {
				// A reader that waits for a stalled connection is let go by the abort, not by its own cancelling.
				stalled.abort();
				await reader?.cancel().catch(() => undefined);
			}
		},
	};
};
