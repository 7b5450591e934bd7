/** Stands between a client and a real server and spoils what goes by, as a server with a mistake would. */
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { REALTIME_PATH } from '../../src/protocol/limits.js';

export type Message = { [field: string]: unknown };

export type Mangling = {
	/** What the client hears instead; nothing when it is to hear nothing. */
	readonly toClient?: (message: Message) => Message | undefined;
	/** What is answered in place of the server, which does not hear the message then. */
	readonly answer?: (message: Message) => Message | undefined;
	readonly closeCode?: (code: number) => number;
};

/** Resolves with the address of the spoiled server. */
export const mangle = async (serverUrl: string, { toClient = (message) => message, answer = () => undefined, closeCode = (code) => code }: Mangling): Promise<{ readonly url: string } & AsyncDisposable> => {
	const http = createServer((_request, response) => response.writeHead(404).end());
	const sockets = new WebSocketServer({ server: http });
	const open = new Set<WebSocket>();
	sockets.on('connection', (client, request: IncomingMessage) => {
		const server = new WebSocket(serverUrl, request.headers['sec-websocket-protocol']?.split(/, ?/u) ?? []);
		const isOpen = once(server, 'open');
		open.add(client).add(server);
		client.on('message', (data: Buffer, isBinary) => {
			let answered: Message | undefined;
			try {
				answered = answer(JSON.parse(data.toString()) as Message);
			} catch {
				// Not for us to judge.
			}
			if (answered !== undefined) {
				client.send(JSON.stringify(answered));
				return;
			}
			void isOpen.then(() => server.send(data, { binary: isBinary }));
		});
		server.on('message', (data: Buffer, isBinary) => {
			if (isBinary) {
				client.send(data, { binary: true });
				return;
			}
			const spoiled = toClient(JSON.parse(data.toString()) as Message);
			if (spoiled !== undefined) {
				client.send(JSON.stringify(spoiled));
			}
		});
		const own = (code: number): number => (code === 1005 || code === 1006 ? 1000 : code);
		client.on('close', (code) => (code === 1006 ? server.terminate() : server.close(own(code))));
		server.on('close', (code) => client.close(closeCode(own(code))));
		client.on('error', () => undefined);
		server.on('error', () => undefined);
	});
	await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
	return {
		url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}${REALTIME_PATH}`,
		[Symbol.asyncDispose]: async () => {
			open.forEach((socket) => socket.terminate());
			http.close();
			await once(http, 'close');
		},
	};
};
