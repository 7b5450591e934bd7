/**
 * The way between a browser and a server, page, control socket and media, which can be cut and mended: TCP by a proxy, UDP by relays, to which the
 * candidates of the server are turned. Those of the browser are kept from the server, which learns its addresses from what the relays hand on.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';

export type BadNetwork = AsyncDisposable & {
	/** Of the server's page, behind this network. */
	readonly url: string;
	/** Nothing passes any more. `breaks`: control sockets are torn as well; otherwise nobody is told. */
	readonly cut: (breaks: boolean) => void;
	/** UDP is dropped, as by a strict firewall; TCP passes. */
	readonly blockMedia: (isBlocked: boolean) => void;
	/** New connections pass again, and media; control sockets of before stay dead. */
	readonly mend: () => void;
};

const CANDIDATE = /^(a=candidate:\S+ \d+ udp \d+ )(\d+\.\d+\.\d+\.\d+) (\d+)( typ host.*)$/iu;
/** Where nobody listens: the discard port (RFC 863). */
const NOWHERE = 'candidate:1 1 udp 1 127.0.0.1 9 typ host';

type Message = { [field: string]: unknown };

class Relays {
	isCut = false;
	readonly #sockets: Socket[] = [];

	/** A port on all addresses that hands on to this one and back. */
	async to(address: string, port: number): Promise<number> {
		const front = this.#open();
		const backs = new Map<string, Socket>();
		front.on('message', (data, from: RemoteInfo) => {
			const key = `${from.address}:${from.port}`;
			let back = backs.get(key);
			if (back === undefined) {
				back = this.#open();
				back.on('message', (answer) => this.isCut || front.send(answer, from.port, from.address));
				backs.set(key, back);
			}
			if (!this.isCut) {
				back.send(data, port, address);
			}
		});
		front.bind(0);
		await once(front, 'listening');
		return front.address().port;
	}

	close(): void {
		this.#sockets.forEach((socket) => socket.close());
	}

	#open(): Socket {
		const socket = createSocket('udp4');
		// A port that is gone answers with an error; the network says nothing.
		socket.on('error', () => undefined);
		this.#sockets.push(socket);
		return socket;
	}
}

const mapLines = async (sdp: string, map: (line: string) => Promise<string | undefined>): Promise<string> =>
	(await Promise.all(sdp.split('\r\n').map(map))).filter((line) => line !== undefined).join('\r\n');

const withoutCandidates = (message: Message): Message => {
	if (message['type'] === 'webrtc.offer') {
		return { ...message, sdp: String(message['sdp']).split('\r\n').filter((line) => !line.startsWith('a=candidate:')).join('\r\n') };
	}
	const { candidate } = message as { candidate?: { candidate?: string } | null };
	return message['type'] === 'webrtc.candidate' && candidate !== null && candidate?.candidate !== '' ? { ...message, candidate: { ...candidate, candidate: NOWHERE } } : message;
};

export type Spoiling = {
	/** The server's candidates name this address instead of their own, as those of a server behind NAT that does not know its public one. */
	readonly announce?: string;
	/** What becomes of the offers of clients. */
	readonly offer?: (sdp: string) => string;
};

export const openBadNetwork = async (serverUrl: string, { announce, offer = (sdp) => sdp }: Spoiling = {}): Promise<BadNetwork> => {
	const relays = new Relays();
	const open = new Set<WebSocket>();
	let isCut = false;

	const turned = async (message: Message): Promise<Message> => message['type'] === 'webrtc.answer'
		? { ...message, sdp: await mapLines(String(message['sdp']), async (line) => {
			const [, start, address = '', port, rest] = CANDIDATE.exec(line) ?? [];
			if (start !== undefined && announce !== undefined) {
				return `${start}${announce} ${port ?? ''}${rest ?? ''}`;
			}
			return start === undefined ? (line.startsWith('a=candidate:') ? undefined : line) : `${start}${address} ${await relays.to(address, Number(port))}${rest ?? ''}`;
		}) }
		: message;

	const http = createServer((request, response) => {
		if (isCut) {
			request.destroy();
			return;
		}
		request.pipe(httpRequest(new URL(request.url ?? '/', serverUrl), { method: request.method ?? 'GET', headers: { accept: request.headers.accept ?? '*/*' } }, (answer) => {
			response.writeHead(answer.statusCode ?? 500, answer.headers);
			answer.pipe(response);
		}).on('error', () => response.destroy()));
	});
	const sockets = new WebSocketServer({ noServer: true });
	http.on('upgrade', (request: IncomingMessage, socket, head) => {
		if (isCut) {
			socket.destroy();
			return;
		}
		sockets.handleUpgrade(request, socket, head, (client) => {
			const server = new WebSocket(new URL(request.url ?? '/', serverUrl.replace('http', 'ws')), request.headers['sec-websocket-protocol']?.split(/, ?/u) ?? []);
			const isOpen = once(server, 'open').catch(() => client.terminate());
			open.add(client).add(server);
			const passes = (): boolean => open.has(client);
			client.on('message', (data: Buffer) => {
				const message = withoutCandidates(JSON.parse(data.toString()) as Message);
				const text = JSON.stringify(message['type'] === 'webrtc.offer' ? { ...message, sdp: offer(String(message['sdp'])) } : message);
				void isOpen.then(() => passes() && server.send(text));
			});
			let order = Promise.resolve();
			server.on('message', (data: Buffer, isBinary) => {
				// Pictures, where the page has gone over to the socket, pass as they are.
				const turning = isBinary ? data : turned(JSON.parse(data.toString()) as Message).then((message) => JSON.stringify(message));
				order = order.then(async () => {
					const turnedData = await turning;
					if (passes()) {
						client.send(turnedData);
					}
				});
			});
			const end = (other: WebSocket) => (code: number): void => {
				if (!passes()) {
					return;
				}
				if (code === 1005 || code === 1006) {
					other.terminate();
				} else {
					void order.then(() => other.close(code));
				}
			};
			client.on('close', end(server));
			server.on('close', end(client));
			client.on('error', () => undefined);
			server.on('error', () => undefined);
		});
	});
	await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
	const dead: WebSocket[] = [];
	return {
		url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/`,
		cut: (breaks) => {
			isCut = true;
			relays.isCut = true;
			dead.push(...open);
			open.clear();
			if (breaks) {
				dead.forEach((socket) => socket.terminate());
			}
		},
		blockMedia: (isBlocked) => {
			relays.isCut = isBlocked;
		},
		mend: () => {
			isCut = false;
			relays.isCut = false;
		},
		[Symbol.asyncDispose]: async () => {
			[...open, ...dead].forEach((socket) => socket.terminate());
			relays.close();
			http.closeAllConnections();
			http.close();
			await once(http, 'close');
		},
	};
};
