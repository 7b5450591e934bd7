/** A client of the control socket that sends whatever it is told to, right or wrong, and waits for answers. */
import { EventEmitter, once } from 'node:events';
import { WebSocket } from 'ws';
import type { ServerMessage, ServerMessages, ServerMessageType } from '../../src/protocol/messages.js';
import { parseServerMessage } from '../../src/protocol/messages.js';

export type Closed = { readonly code: number; readonly reason: string };

export class ControlClient {
	readonly socket: WebSocket;
	/** Everything received, in order; each was checked against its schema. */
	readonly messages: ServerMessage[] = [];
	readonly closed: Promise<Closed>;
	readonly #events = new EventEmitter();
	/** Messages before this one were looked at by `next`. */
	#seen = 0;

	constructor(url: string, protocols: string[] = ['realtime.video.v1'], options: { origin?: string; headers?: { [name: string]: string } } = {}) {
		this.socket = new WebSocket(url, protocols, options);
		this.#events.setMaxListeners(50);
		this.socket.on('message', (data: Buffer) => {
			const message = parseServerMessage(JSON.parse(data.toString('utf8')));
			if (message !== undefined) {
				this.messages.push(message);
				this.#events.emit('message');
			}
		});
		this.closed = new Promise((resolve) => {
			this.socket.on('close', (code, reason) => {
				resolve({ code, reason: reason.toString() });
				this.#events.emit('message');
			});
		});
		this.socket.on('error', () => undefined);
	}

	static async open(url: string): Promise<ControlClient> {
		const client = new ControlClient(url);
		await once(client.socket, 'open');
		await client.next('session.created');
		return client;
	}

	send(message: object): void {
		this.socket.send(JSON.stringify(message));
	}

	/** The next message of a type after those already taken; throws when the socket closes before. */
	async next<T extends ServerMessageType>(type: T, where: (message: ServerMessages[T]) => boolean = () => true): Promise<ServerMessages[T]> {
		for (;;) {
			const index = this.messages.findIndex((message, at) => at >= this.#seen && message.type === type && where(message as ServerMessages[T]));
			if (index !== -1) {
				this.#seen = index + 1;
				return this.messages[index] as ServerMessages[T];
			}
			if (this.socket.readyState === WebSocket.CLOSED) {
				throw new Error(`closed before ${type}; got ${JSON.stringify(this.messages.slice(this.#seen)).slice(0, 2000)}`);
			}
			await once(this.#events, 'message');
		}
	}

	/** Sends and gives the error that answers. */
	async refusalOf(message: object): Promise<ServerMessages['error']> {
		this.send(message);
		return this.next('error');
	}

	/** Proves that the connection still works. */
	async isAlive(): Promise<boolean> {
		const mark = `alive-${Math.random()}`;
		this.send({ type: 'ping', event_id: mark });
		return (await this.next('pong', (pong) => pong.event_id === mark)).event_id === mark;
	}

	[Symbol.asyncDispose](): Promise<void> {
		this.socket.terminate();
		return this.closed.then(() => undefined);
	}
}

