/** A WHIP endpoint (RFC 9725) on a free port: takes videos with werift, and answers otherwise when a test says so. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { VideoCodec } from '../../src/base/frame.js';
import { fragmentOf, offerAgain, readFragment } from '../../src/transport/sdp-fragment.js';
import { Receiver } from '../transport/receiver.js';

export type Asked = { readonly method: string; readonly path: string; readonly authorization: string | undefined; readonly contentType: string | undefined; readonly ifMatch: string | undefined; readonly body: string };
export type Reply = { readonly status: number; readonly headers?: { readonly [name: string]: string | readonly string[] }; readonly body?: string };

export class WhipServer implements AsyncDisposable {
	readonly asked: Asked[] = [];
	readonly receivers: Receiver[] = [];
	/** Instead of what an endpoint does; `undefined` leaves it to it. */
	reply: (asked: Asked) => Reply | undefined = () => undefined;
	/** Before it answers. */
	delay: (asked: Asked) => Promise<void> = () => Promise.resolve();
	codec: VideoCodec = 'h264';
	/** In the answers to OPTIONS and POST. */
	link: readonly string[] = [];
	readonly #http: Server;
	readonly #checks = new Set<() => void>();

	private constructor() {
		this.#http = createServer((request, response) => {
			void this.#answer(request, response).catch((error: unknown) => {
				response.writeHead(500);
				response.end(String(error));
			}).finally(() => this.#checks.forEach((check) => check()));
		});
	}

	static async open(): Promise<WhipServer> {
		const server = new WhipServer();
		server.#http.listen(0, '127.0.0.1');
		await once(server.#http, 'listening');
		return server;
	}

	get origin(): string {
		return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
	}

	/** Requests of that method, oldest first. */
	of(method: string): Asked[] {
		return this.asked.filter((asked) => asked.method === method);
	}

	/** Resolves when the condition holds; looked at with every request that was answered. */
	until(holds: () => boolean): Promise<void> {
		return new Promise((resolve) => {
			const check = (): void => {
				if (holds()) {
					this.#checks.delete(check);
					resolve();
				}
			};
			this.#checks.add(check);
			check();
		});
	}

	async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
		let body = '';
		for await (const part of request) {
			body += String(part);
		}
		const asked: Asked = { method: request.method ?? '', path: request.url ?? '', authorization: request.headers.authorization, contentType: request.headers['content-type'], ifMatch: request.headers['if-match'], body };
		this.asked.push(asked);
		await this.delay(asked);
		const reply = this.reply(asked) ?? (await this.#usual(asked));
		for (const [name, value] of Object.entries(reply.headers ?? {})) {
			response.setHeader(name, value);
		}
		response.writeHead(reply.status);
		response.end(reply.body);
	}

	async #usual({ method, path, body }: Asked): Promise<Reply> {
		const link = this.link.length === 0 ? {} : { link: this.link };
		if (method === 'OPTIONS') {
			return { status: 204, headers: { 'accept-post': 'application/sdp', ...link } };
		}
		if (method === 'PATCH') {
			const receiver = this.receivers.at(Number(path.split('-').at(-1)));
			const offer = receiver?.connection.remoteDescription?.sdp;
			const answer = receiver === undefined || offer === undefined ? undefined : await receiver.answerRestart(offerAgain(offer, readFragment(body)));
			return answer === undefined
				? { status: 404 }
				: { status: 200, headers: { 'content-type': 'application/trickle-ice-sdpfrag', 'etag': '"next"' }, body: fragmentOf(answer) };
		}
		if (method === 'DELETE') {
			return { status: 200 };
		}
		const headers = { 'content-type': 'application/sdp', 'location': `${path.split('?', 1)[0] ?? ''}/resource-${this.receivers.length}`, 'etag': '"first"', ...link };
		if (body === 'v=0 offer') {
			// Of the transport in memory.
			return { status: 201, headers, body: 'v=0 answer' };
		}
		const receiver = new Receiver(this.codec);
		this.receivers.push(receiver);
		return { status: 201, headers, body: await receiver.answer(body) };
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await Promise.all(this.receivers.map((receiver) => receiver[Symbol.asyncDispose]()));
		this.#http.closeAllConnections();
		await new Promise((resolve) => this.#http.close(resolve));
	}
}
