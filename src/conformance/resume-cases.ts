/** Cases of a session that outlives its connection, and of one that becomes two. */
import type { Connection } from './connection.js';
import { casesOf, change, ensureRefused, type Created, type Running, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, skip } from './verdict.js';

/** As docs/protocol.md has it. */
const MOST_WAITING_FORKS = 4;

const tokenOf = ({ created, ready }: Running): string => {
	const token = ready.resume_token ?? created.resume_token;
	return created.limits.resume_grace_ms === 0 || token === undefined ? skip('this server holds no session without its connection (limits.resume_grace_ms)') : token;
};

/** Another connection, greeted, that starts with the token. */
const startWith = async (subject: Subject, token: string, fields: object = {}): Promise<{ readonly connection: Connection; readonly created: Created; readonly eventId: string }> => {
	const { connection, created } = await subject.open();
	return { connection, created, eventId: connection.ask({ type: 'session.start', resume_token: token, ...fields }) };
};

export const RESUME_CASES: readonly ServerCase[] = [
	...casesOf('Coming back', {
		'a session whose connection was lost goes on with its token where it was': async (subject) => {
			const before = await subject.start({ prompts: [{ text: 'a cat', weight: 3 }, { text: 'a dog', weight: 1 }], seed: 5 });
			const token = tokenOf(before);
			const last = await before.connection.next('chunk.completed');
			await before.connection.drop();
			const { connection, eventId } = await startWith(subject, token);
			const ready = await subject.untilReady(connection, eventId);
			ensureEqual([ready.resumed, ready.session_id, ready.seed, ready.steps], [true, before.ready.session_id, 5, before.ready.steps], 'resumed, session_id, seed and steps of session.ready');
			ensureEqual(ready.prompts, before.ready.prompts, 'prompts of session.ready');
			ensure(ready.resume_token !== undefined, 'session.ready has no resume_token');
			const { applied } = await change(connection, { type: 'session.update', prompt: 'a whale' });
			ensure(applied.chunk_index > last.chunk_index, `chunk ${applied.chunk_index} came after chunk ${last.chunk_index}`);
		},
		'the token wins over a prompt beside it': async (subject) => {
			const before = await subject.start({ prompt: 'a cat', seed: 5 });
			const token = tokenOf(before);
			await before.connection.drop();
			const { connection, eventId } = await startWith(subject, token, { prompt: 'a dog', seed: 6 });
			const ready = await subject.untilReady(connection, eventId);
			ensureEqual([ready.session_id, ready.seed], [before.ready.session_id, 5], 'session_id and seed of session.ready');
		},
		'a connection that takes over turns out the one before': async (subject) => {
			const before = await subject.start();
			const { connection, eventId } = await startWith(subject, tokenOf(before));
			await before.connection.next('error', ({ code }) => code === 'session_taken_over');
			ensureEqual((await before.connection.next('session.ended')).reason, 'taken_over', 'reason of session.ended');
			ensureEqual((await before.connection.closed()).code, 4409, 'the close code');
			ensureEqual((await subject.untilReady(connection, eventId)).session_id, before.ready.session_id, 'session_id of session.ready');
		},
		'a paused session comes back paused': async (subject) => {
			const before = await subject.start();
			const token = tokenOf(before);
			await before.connection.answer('session.paused', before.connection.ask({ type: 'session.pause' }));
			await before.connection.drop();
			const { connection, eventId } = await startWith(subject, token);
			ensureEqual((await subject.untilReady(connection, eventId)).is_paused, true, 'is_paused of session.ready');
			await connection.answer('session.resumed', connection.ask({ type: 'session.resume' }));
		},
		'a token of no session is session_not_found, and the connection may start another': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'session.start', resume_token: 'rt_of_nobody' }, 'session_not_found');
			await subject.untilReady(connection, connection.ask({ type: 'session.start', prompt: 'a cat' }));
		},
		'a token of no session with a prompt starts a new one': async (subject) => {
			const { connection, created, eventId } = await startWith(subject, 'rt_of_nobody', { prompt: 'a cat' });
			const ready = await subject.untilReady(connection, eventId);
			ensureEqual([ready.resumed, ready.session_id], [false, created.session_id], 'resumed and session_id of session.ready');
		},
		'a session that was stopped does not come back': async (subject) => {
			const before = await subject.start();
			const token = tokenOf(before);
			before.connection.send({ type: 'session.stop' });
			await before.connection.closed();
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'session.start', resume_token: token }, 'session_not_found');
		},
	}),
	...casesOf('`session.fork`', {
		'a fork begins where the session is, and both go on': async (subject) => {
			const parent = await subject.start({ prompt: 'a cat', seed: 5 });
			await parent.connection.next('chunk.completed');
			const forked = await parent.connection.answer('session.forked', parent.connection.ask({ type: 'session.fork', seed: 6 }));
			ensure(forked.session_id !== parent.ready.session_id, 'the fork has the session_id of its parent');
			ensure(forked.expires_in_ms > 0, 'expires_in_ms is 0');
			const { connection, eventId } = await startWith(subject, forked.resume_token);
			const ready = await subject.untilReady(connection, eventId, true);
			ensureEqual([ready.session_id, ready.seed], [forked.session_id, 6], 'session_id and seed of session.ready');
			ensureEqual(ready.prompts, parent.ready.prompts, 'prompts of session.ready');
			const started = await connection.next('generation.started');
			ensureEqual([started.history, started.chunk_index], ['forked', forked.chunk_index], 'history and chunk_index of generation.started');
			await connection.next('chunk.completed');
			parent.connection.forget();
			await parent.connection.next('chunk.completed');
		},
		'at most 4 forks wait': async (subject) => {
			const { connection } = await subject.start();
			await connection.next('chunk.completed');
			for (let count = 0; count < MOST_WAITING_FORKS; count += 1) {
				await connection.answer('session.forked', connection.ask({ type: 'session.fork' }));
			}
			await ensureRefused(connection, { type: 'session.fork' }, 'rate_limited');
		},
		'a wrong fork is refused': async (subject) => {
			const { connection } = await subject.start();
			await ensureRefused(connection, { type: 'session.fork', prompt: ' ' }, 'invalid_prompt', 'prompt');
			await ensureRefused(connection, { type: 'session.fork', seed: 0.5 }, 'invalid_request', 'seed');
		},
	}),
];
