/** A server on the loopback that answers as the hub does: lists of files with hashes, redirects to where the bytes are, ranges. It can be told to fail. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Fault =
	| { readonly kind: 'cut'; readonly afterBytes: number; times: number }
	| { readonly kind: 'stall'; readonly afterBytes: number; times: number }
	| { readonly kind: 'status'; readonly status: number; times: number }
	| { readonly kind: 'no ranges' }
	| { readonly kind: 'wrong part' }
	| { readonly kind: 'endless redirect' }
	| { readonly kind: 'other bytes' }
	| { readonly kind: 'no list' };

export type HubServer = {
	readonly url: string;
	/** Contents by `OWNER/NAME/PATH`. Files of more than 1000 bytes count as large (LFS). */
	readonly files: Map<string, Uint8Array>;
	/** Faults of the files' bytes, or of the list for `status` and `no list`. */
	readonly faults: Fault[];
	/** Method, path and range of each request. */
	readonly requests: string[];
	/** Authorisation headers, and where they arrived. */
	readonly credentials: { readonly at: 'hub' | 'store'; readonly value: string | undefined }[];
	readonly [Symbol.asyncDispose]: () => Promise<void>;
};

const LARGE_BYTES = 1000;

const bodyOf = async (request: IncomingMessage): Promise<string> => {
	let body = '';
	for await (const piece of request) {
		body += String(piece);
	}
	return body;
};

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const gitId = (bytes: Uint8Array): string => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

const takes = (fault: { times: number }): boolean => {
	fault.times -= 1;
	return fault.times >= 0;
};

export const startHubServer = async (): Promise<HubServer> => {
	const files = new Map<string, Uint8Array>();
	const faults: Fault[] = [];
	const requests: string[] = [];
	const credentials: HubServer['credentials'][number][] = [];

	const sendList = async (repository: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
		const { paths } = JSON.parse(await bodyOf(request)) as { paths: string[] };
		const list = paths.flatMap((path) => {
			const bytes = files.get(`${repository}/${path}`);
			return bytes === undefined ? [] : [{
				type: 'file', path, size: bytes.length, oid: gitId(bytes), ...(bytes.length > LARGE_BYTES ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {}),
			}];
		});
		response.setHeader('content-type', 'application/json');
		response.end(faults.some(({ kind }) => kind === 'no list') ? '{"unexpected": true}' : JSON.stringify(list));
	};

	const sendBytes = (bytes: Uint8Array, request: IncomingMessage, response: ServerResponse): void => {
		const wanted = /^bytes=(\d+)-(\d+)$/u.exec(request.headers.range ?? '');
		const start = wanted === null || faults.some(({ kind }) => kind === 'no ranges') ? 0 : Number(wanted[1]);
		const isPart = wanted !== null && !faults.some(({ kind }) => kind === 'no ranges');
		const body = Buffer.from(bytes.subarray(start));
		if (faults.some(({ kind }) => kind === 'other bytes')) {
			body.fill(body.readUInt8(body.length - 1) ^ 1, body.length - 1);
		}
		response.statusCode = isPart ? 206 : 200;
		response.setHeader('content-length', body.length);
		if (isPart) {
			const shown = faults.some(({ kind }) => kind === 'wrong part') ? start + 1 : start;
			response.setHeader('content-range', `bytes ${shown}-${bytes.length - 1}/${bytes.length}`);
		}
		const broken = faults.find((fault) => (fault.kind === 'cut' || fault.kind === 'stall') && takes(fault));
		if (broken?.kind === 'cut' || broken?.kind === 'stall') {
			response.write(body.subarray(0, broken.afterBytes), () => {
				if (broken.kind === 'cut') {
					setImmediate(() => response.destroy());
				}
			});
			return;
		}
		response.end(body);
	};

	const server = createServer((request, response) => {
		const url = new URL(request.url ?? '/', 'http://localhost');
		requests.push(`${request.method ?? ''} ${url.pathname}${request.headers.range === undefined ? '' : ` ${request.headers.range}`}`);
		credentials.push({ at: url.pathname.startsWith('/store/') ? 'store' : 'hub', value: request.headers.authorization });
		const refused = faults.find((fault) => fault.kind === 'status' && takes(fault));
		if (refused?.kind === 'status') {
			response.statusCode = refused.status;
			response.setHeader('content-type', 'application/json');
			response.end('{"error": "refused"}');
			return;
		}
		const list = /^\/api\/models\/([^/]+\/[^/]+)\/paths-info\/main$/u.exec(url.pathname);
		const resolve = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.+)$/u.exec(url.pathname);
		const stored = /^\/store\/(.+)$/u.exec(url.pathname);
		if (list !== null) {
			void sendList(list[1] ?? '', request, response);
		} else if (resolve !== null && files.has(`${resolve[1] ?? ''}/${resolve[2] ?? ''}`)) {
			response.statusCode = 302;
			response.setHeader('location', faults.some(({ kind }) => kind === 'endless redirect') ? url.pathname : `/store/${resolve[1] ?? ''}/${resolve[2] ?? ''}`);
			response.end();
		} else if (stored !== null && files.has(stored[1] ?? '')) {
			sendBytes(files.get(stored[1] ?? '') ?? new Uint8Array(0), request, response);
		} else {
			response.statusCode = 404;
			response.setHeader('x-error-code', 'EntryNotFound');
			response.end('not here');
		}
	});
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
	return {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, files, faults, requests, credentials,
		[Symbol.asyncDispose]: async () => {
			server.closeAllConnections();
			await new Promise<void>((resolve) => server.close(() => resolve()));
		},
	};
};
