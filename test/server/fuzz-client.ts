/** Sends what a `FuzzMessages` gives over one connection after the other, and holds every answer to the protocol. */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { ERRORS, type ErrorCode } from '../../src/protocol/errors.js';
import { FRAME_META, parseServerMessage } from '../../src/protocol/messages.js';
import { parseVideoUnit } from '../../src/protocol/video-unit.js';
import type { FuzzFrame, FuzzMessages } from './fuzz-messages.js';

/** Closes that a server may answer bad messages with, and the two of a normal end. 1011 would be a failure of the server. */
const CLOSE_CODES: ReadonlySet<number> = new Set([1000, 1005, ...Object.values(ERRORS).map(({ closeCode }) => closeCode).filter((code) => code !== 1011)]);
/** Frames between two proofs that the connection still answers: some hundred kilobytes in flight at most. */
const BATCH = 40;
const LEAVES_SHARE = 0.1;
const STARTS_SHARE = 0.6;
const ANSWER_TIMEOUT_MS = 60_000;

export type FuzzOutcome = {
	sent: number;
	readonly answers: Map<string, number>;
	/** What must not happen, with the frames before it. */
	readonly violations: string[];
};

export const newOutcome = (): FuzzOutcome => ({ sent: 0, answers: new Map(), violations: [] });

const show = ({ frame }: FuzzFrame): string => (typeof frame === 'string' ? frame : frame.toString('hex')).slice(0, 300);

/** One connection of some batches. Resolves when it is closed, by whom ever. */
const fuzzConnection = async (url: string, messages: FuzzMessages, outcome: FuzzOutcome, until: number, random: () => number): Promise<void> => {
	const socket = new WebSocket(url, ['realtime.video.v1']);
	const recent: FuzzFrame[] = [];
	let weLeft = false;
	const violate = (what: string): void => void outcome.violations.push(`${what}; after ${recent.slice(-BATCH).map(show).join('\n')}`);
	const count = (answer: string): void => void outcome.answers.set(answer, (outcome.answers.get(answer) ?? 0) + 1);
	socket.on('error', () => undefined);
	const closed = once(socket, 'close').then(([code]) => {
		count(`close ${code as number}`);
		if (!weLeft && !CLOSE_CODES.has(code as number)) {
			violate(`closed with ${code as number}`);
		}
	});
	let onPong: (mark: string | undefined) => void = () => undefined;
	socket.on('message', (data: Buffer, isBinary) => {
		const text = isBinary ? data.toString('hex') : data.toString('utf8');
		try {
			if (isBinary) {
				// A message opened the video over the socket; these are its pictures.
				count('picture');
				if (parseVideoUnit(data) === undefined) {
					violate(`a binary frame of an unknown kind ${text.slice(0, 200)}`);
				}
				return;
			}
			const json = JSON.parse(text) as { readonly type?: unknown };
			if (json.type === 'frame.meta') {
				FRAME_META.parse(json);
				return;
			}
			const message = parseServerMessage(json);
			if (message === undefined) {
				violate(`an unknown message ${text.slice(0, 200)}`);
			} else if (message.type === 'error') {
				count(message.code);
				if (message.code === ('internal' satisfies ErrorCode)) {
					violate(`internal: ${message.message}`);
				}
			} else if (message.type === 'pong') {
				onPong(message.event_id);
			}
		} catch (error) {
			violate(`a message against its schema (${String(error)}): ${text.slice(0, 200)}`);
		}
	});
	await Promise.race([once(socket, 'open'), closed]);
	for (let batch = 0; socket.readyState === WebSocket.OPEN && outcome.sent < until; batch += 1) {
		for (let index = 0; index < BATCH && outcome.sent < until; index += 1) {
			const next = batch === 0 && index === 0 && random() < STARTS_SHARE ? messages.start() : messages.next();
			recent.push(next);
			outcome.sent += 1;
			socket.send(next.frame);
		}
		const mark = `mark-${outcome.sent}-${batch}`;
		const answered = new Promise<boolean>((resolve) => {
			const timer = setTimeout(() => resolve(false), ANSWER_TIMEOUT_MS);
			onPong = (eventId) => {
				if (eventId === mark) {
					clearTimeout(timer);
					resolve(true);
				}
			};
			void closed.then(() => {
				clearTimeout(timer);
				resolve(true);
			});
		});
		socket.send(JSON.stringify({ type: 'ping', event_id: mark }));
		if (!(await answered)) {
			violate('no answer to a ping');
			break;
		}
		recent.splice(0, recent.length - BATCH);
		if (random() < LEAVES_SHARE) {
			break;
		}
	}
	weLeft = true;
	if (random() < 0.5) {
		socket.close(1000);
	} else {
		socket.terminate();
	}
	await closed;
};

/** Sends `count` frames over `connections` connections at a time. */
export const fuzz = async (url: string, messages: FuzzMessages, options: { readonly count: number; readonly connections: number; readonly random: () => number }, outcome = newOutcome()): Promise<FuzzOutcome> => {
	const until = outcome.sent + options.count;
	await Promise.all(Array.from({ length: options.connections }, async () => {
		while (outcome.sent < until && outcome.violations.length < 20) {
			await fuzzConnection(url, messages, outcome, until, options.random);
		}
	}));
	return outcome;
};
