/** A client on nothing but `ws`, with the mistakes that are asked for. Without any it is all that docs/protocol.md wants of a client. */
import { WebSocket } from 'ws';

export const CLIENT_MISTAKES = ['speaks first', 'speaks when pinged', 'minds unknown types', 'forgets its token', 'never waits', 'ignores retry_after_ms', 'fights', 'repeats ids', 'steers early', 'gives up'] as const;
export type ClientMistake = (typeof CLIENT_MISTAKES)[number];

type Message = { readonly [field: string]: unknown };

const KNOWN = /^(session|generation|event|chunk|pacing|control|webrtc)\.(?!of_tomorrow)|^(pong|error)$/u;
const FIRST_DELAY_MS = 150;
const LONGEST_DELAY_MS = 4000;

export class PlainClient {
	readonly #url: string;
	readonly #mistake: ClientMistake | undefined;
	#socket: WebSocket | undefined;
	#timer: NodeJS.Timeout | undefined;
	#token: unknown;
	#nextId = 1;
	#attempt = 0;
	#notBeforeMs = 0;
	#isOver = false;

	constructor(url: string, mistake?: ClientMistake) {
		this.#url = url;
		this.#mistake = mistake;
		this.#connect();
	}

	close(): void {
		this.#isOver = true;
		clearTimeout(this.#timer);
		this.#socket?.terminate();
	}

	#connect(): void {
		const socket = new WebSocket(this.#url, ['realtime.video.v1'], { autoPong: this.#mistake !== 'speaks when pinged' });
		this.#socket = socket;
		const send = (message: Message): void => socket.send(JSON.stringify({ ...message, event_id: this.#mistake === 'repeats ids' ? 'a' : `p${this.#nextId++}` }));
		socket.on('open', () => {
			if (this.#mistake === 'speaks first') {
				send({ type: 'ping' });
			}
		});
		if (this.#mistake === 'speaks when pinged') {
			socket.on('ping', (data) => {
				send({ type: 'ping' });
				socket.pong(data);
			});
		}
		socket.on('message', (data: Buffer) => {
			const message = JSON.parse(data.toString()) as Message;
			if (this.#mistake === 'minds unknown types' && !KNOWN.test(String(message['type']))) {
				this.close();
				return;
			}
			switch (message['type']) {
				case 'session.created':
					this.#attempt = 0;
					if (this.#mistake === 'steers early') {
						send({ type: 'session.pause' });
					}
					send({ type: 'session.start', prompt: 'a cat jumps', ...(this.#token === undefined || this.#mistake === 'forgets its token' ? {} : { resume_token: this.#token }) });
					return;
				case 'session.ready':
					this.#token = message['resume_token'];
					return;
				case 'generation.started':
					send({ type: 'session.update', prompt: 'a dog' });
					return;
				case 'error':
					this.#notBeforeMs = performance.now() + Number(message['retry_after_ms'] ?? 0);
					this.#isOver ||= message['retryable'] === false && this.#mistake !== 'fights';
					return;
				default:
			}
		});
		socket.on('error', () => undefined);
		socket.on('close', () => {
			if (this.#isOver || this.#mistake === 'gives up') {
				return;
			}
			const delayMs = this.#mistake === 'never waits' ? 20 : Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
			this.#attempt += 1;
			const waitMs = this.#mistake === 'ignores retry_after_ms' ? delayMs : Math.max(delayMs, this.#notBeforeMs - performance.now());
			this.#timer = setTimeout(() => this.#connect(), waitMs);
		});
	}
}
