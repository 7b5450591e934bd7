/** What a case of the server suite is, and the moves that many of them make. */
import { ERRORS, type ErrorCode } from '../protocol/errors.js';
import type { ServerMessages } from '../protocol/messages.js';
import { Connection, type ConnectionOptions } from './connection.js';
import { ensure, ensureEqual, skip } from './verdict.js';

export type Created = ServerMessages['session.created'];

/** The server under test. Connections that a case opens are left when it ends. */
export class Subject {
	readonly url: string;
	/** The same server's HTTP, with a slash at the end. */
	readonly httpUrl: string;
	readonly token: string | undefined;
	readonly patienceMs: number;
	#connections: Connection[] = [];

	constructor({ url, token, patienceMs }: { readonly url: string; readonly token: string | undefined; readonly patienceMs: number }) {
		this.url = url;
		this.httpUrl = new URL('/', url.replace(/^ws/u, 'http')).href;
		this.token = token;
		this.patienceMs = patienceMs;
	}

	/** A connection as it comes, with the credential unless another is given; `null` is none. */
	async connect({ token = this.token, ...options }: Partial<Omit<ConnectionOptions, 'token'>> & { readonly token?: string | null | undefined } = {}): Promise<Connection> {
		const connection = await Connection.open({ url: this.url, patienceMs: this.patienceMs, isStrict: true, ...options, token: token ?? undefined });
		this.#connections.push(connection);
		return connection;
	}

	/** A connection that was greeted. */
	async open(token?: string): Promise<{ readonly connection: Connection; readonly created: Created }> {
		const connection = await this.connect({ token });
		return { connection, created: await connection.next('session.created') };
	}

	/** A session that runs: its first change was applied. Skips the case while every place is taken by others. */
	async start(fields: object = { prompt: 'a cat jumps' }): Promise<Running> {
		const { connection, created } = await this.open();
		const eventId = connection.ask({ type: 'session.start', ...fields });
		const ready = await this.untilReady(connection, eventId);
		await connection.next('event.applied', ({ event_id: id }) => id === eventId);
		return { connection, created, eventId, ready };
	}

	/** Waits for the answers to a start, and in the line if need be; a session that is a case's second skips it then. */
	async untilReady(connection: Connection, eventId: string, isSecond = false): Promise<ServerMessages['session.ready']> {
		const first = await connection.first(({ type, ...message }) => type === 'session.queued' || (type === 'event.accepted' || type === 'error') && (message as { event_id?: string }).event_id === eventId, 'event.accepted');
		if (first.type === 'session.queued') {
			if (isSecond) {
				skip('this server has no place for a second session at the moment');
			}
			await connection.next('event.accepted', ({ event_id: id }) => id === eventId).catch(() => skip('every place of this server is taken by others'));
		}
		if (first.type === 'error') {
			return first.code === 'capacity_exhausted' || first.code === 'rate_limited' ? skip(`no place for a session: ${first.message}`) : ensure(false, `session.start was refused with ${first.code}: ${first.message}`) as never;
		}
		return connection.next('session.ready');
	}

	/** Ends what the case has left, then throws what was wrong on any of its connections. */
	async clear(): Promise<void> {
		const connections = this.#connections;
		this.#connections = [];
		await Promise.all(connections.map((connection) => connection.leave(Math.min(5000, this.patienceMs))));
		connections.forEach((connection) => connection.assertRules());
	}
}

export type Running = {
	readonly connection: Connection;
	readonly created: Created;
	/** Of the start. */
	readonly eventId: string;
	readonly ready: ServerMessages['session.ready'];
};

export type ServerCase = { readonly name: string; readonly section: string; readonly run: (subject: Subject) => Promise<void> };

/** Cases of one section. */
export const casesOf = (section: string, cases: { readonly [name: string]: ServerCase['run'] }): ServerCase[] =>
	Object.entries(cases).map(([name, run]) => ({ name, section, run }));

export const chunkMs = ({ model }: Created): number => (model.frames_per_chunk * 1000) / model.fps;

const expectedCodes = (code: ErrorCode | readonly ErrorCode[]): readonly ErrorCode[] => (typeof code === 'string' ? [code] : code);

/** Sends a message that is to be refused, and holds the refusal to its form. The connection goes on. */
export const ensureRefused = async (connection: Connection, message: object, code: ErrorCode | readonly ErrorCode[], param?: string): Promise<ServerMessages['error']> => {
	const eventId = connection.newEventId();
	connection.send({ event_id: eventId, ...message });
	const error = await connection.next('error');
	const what = `the answer to ${JSON.stringify(message).slice(0, 160)}`;
	ensure(expectedCodes(code).includes(error.code), `${what} is error ${error.code} instead of ${expectedCodes(code).join(' or ')}: ${error.message}`);
	ensureEqual(error.event_id, Object.hasOwn(message, 'event_id') ? undefined : eventId, `event_id in ${what}`);
	ensureEqual(error.retryable, ERRORS[error.code].retryable, `retryable in ${what}`);
	if (param !== undefined) {
		ensureEqual(error.param, param, `param in ${what}`);
	}
	return error;
};

/** Sends a change and follows it until it is applied. */
export const change = async (connection: Connection, message: object): Promise<{ readonly accepted: ServerMessages['event.accepted']; readonly applied: ServerMessages['event.applied'] }> => {
	const eventId = connection.ask(message);
	const accepted = await connection.answer('event.accepted', eventId);
	return { accepted, applied: await connection.next('event.applied', ({ event_id: id }) => id === eventId) };
};
