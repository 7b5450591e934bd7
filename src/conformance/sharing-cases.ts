/** Cases of a session with several members. */
import type { ServerMessages } from '../protocol/messages.js';
import type { Connection } from './connection.js';
import { casesOf, change, ensureRefused, type Running, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual } from './verdict.js';

type Member = { readonly connection: Connection; readonly id: string; readonly created: ServerMessages['session.created']; readonly joined: ServerMessages['session.joined'] };

/** Comes by the token, and is told what it should be. */
const join = async (subject: Subject, token: string): Promise<Member> => {
	const { connection, created } = await subject.open(token);
	const joined = await connection.next('session.joined');
	return { connection, created, joined, id: joined.member_id };
};

const share = async ({ connection }: Running, role: 'viewer' | 'guest'): Promise<ServerMessages['session.shared']> => {
	const shared = await connection.answer('session.shared', connection.ask({ type: 'session.share', role, expires_in_seconds: 60 }));
	ensureEqual(shared.role, role, 'role of session.shared');
	return shared;
};

const startShared = async (subject: Subject, role: 'viewer' | 'guest'): Promise<{ readonly owner: Running; readonly token: string }> => {
	const owner = await subject.start();
	return { owner, token: (await share(owner, role)).token };
};

const DRIVING = [{ type: 'session.update', prompt: 'a dog' }, { type: 'input.action', axes: {} }, { type: 'session.pause' }, { type: 'session.resume' }, { type: 'session.reset' }] as const;
const OWNING = [{ type: 'session.start', prompt: 'a dog' }, { type: 'session.fork' }, { type: 'session.share' }] as const;

const ensureDriver = async (connection: Connection, driver: string): Promise<void> => {
	await connection.next('session.members', (members) => members.driver === driver);
};

export const SHARING_CASES: readonly ServerCase[] = casesOf('Sharing', {
	'a shared token opens the session: created, joined, ready, members': async (subject) => {
		const { owner, token } = await startShared(subject, 'viewer');
		const { connection, created, joined } = await join(subject, token);
		ensureEqual([created.session_id, joined.session_id], [owner.ready.session_id, owner.ready.session_id], 'session_id of session.created and session.joined');
		ensureEqual([created.resume_token, joined.role], [undefined, 'viewer'], 'resume_token and role');
		ensureEqual((await connection.next('session.ready')).prompts, owner.ready.prompts, 'prompts of session.ready');
		const seen = await connection.next('session.members');
		ensureEqual([seen.you, seen.members.length], [joined.member_id, 2], 'you and the number of members');
		const told = await owner.connection.next('session.members', ({ members }) => members.length === 2);
		ensureEqual(told.driver, told.you, 'the driver, as the owner sees it');
		await connection.next('chunk.completed');
	},
	'a viewer watches and leaves, and all else is forbidden': async (subject) => {
		const { owner, token } = await startShared(subject, 'viewer');
		const { connection, id } = await join(subject, token);
		for (const message of [...OWNING, ...DRIVING, { type: 'control.request' }, { type: 'control.release' }, { type: 'control.grant', member_id: id }]) {
			await ensureRefused(connection, message, 'forbidden');
		}
		connection.send({ type: 'session.stop' });
		await connection.next('session.ended');
		ensureEqual((await connection.closed()).code, 1000, 'the close code');
		await owner.connection.next('session.members', ({ members }) => members.length === 1);
		owner.connection.forget();
		await owner.connection.next('chunk.completed');
	},
	'event.accepted is for its author alone, event.applied for all, its event_id for its author': async (subject) => {
		const { owner, token } = await startShared(subject, 'viewer');
		const { connection } = await join(subject, token);
		await connection.next('chunk.completed');
		connection.forget();
		const { applied } = await change(owner.connection, { type: 'session.update', prompt: 'a dog' });
		const heard = await connection.next('event.applied', ({ chunk_index: index }) => index === applied.chunk_index);
		ensureEqual(heard.event_id, undefined, 'event_id of event.applied, to a viewer');
		ensure(!connection.received.some(({ type }) => type === 'event.accepted'), 'a viewer heard event.accepted');
	},
	'a guest asks for control, gets it from the owner, drives, and lets go': async (subject) => {
		const { owner, token } = await startShared(subject, 'guest');
		const guest = await join(subject, token);
		ensureEqual(guest.joined.role, 'guest', 'role of session.joined');
		for (const message of [...OWNING, ...DRIVING]) {
			await ensureRefused(guest.connection, message, 'forbidden');
		}
		const asked = guest.connection.ask({ type: 'control.request' });
		ensureEqual((await owner.connection.next('control.requested')).member_id, guest.id, 'member_id of control.requested');
		const { you: ownerId } = await owner.connection.next('session.members', ({ members }) => members.some((member) => member.member_id === guest.id && member.wants_control));
		owner.connection.ask({ type: 'control.grant', member_id: guest.id });
		const revoked = await guest.connection.next('control.revoked');
		ensureEqual([revoked.member_id, revoked.reason], [ownerId, 'granted'], 'member_id and reason of control.revoked');
		const granted = await guest.connection.next('control.granted');
		ensureEqual([granted.member_id, granted.event_id], [guest.id, asked], 'member_id and event_id of control.granted');
		await ensureDriver(owner.connection, guest.id);
		await ensureRefused(owner.connection, { type: 'session.update', prompt: 'mine' }, 'forbidden');
		await change(guest.connection, { type: 'session.update', prompt: 'a dog' });
		guest.connection.send({ type: 'control.release' });
		await ensureDriver(owner.connection, ownerId);
		await change(owner.connection, { type: 'session.update', prompt: 'mine again' });
	},
	'the owner takes control back at once': async (subject) => {
		const { owner, token } = await startShared(subject, 'guest');
		const guest = await join(subject, token);
		owner.connection.send({ type: 'control.grant', member_id: guest.id });
		await ensureDriver(owner.connection, guest.id);
		const ownerId = owner.connection.received.findLast((message) => message.type === 'session.members')?.you;
		await owner.connection.answer('control.granted', owner.connection.ask({ type: 'control.request' }));
		ensureEqual((await guest.connection.next('control.revoked', ({ member_id: id }) => id === guest.id)).member_id, guest.id, 'member_id of control.revoked');
		await ensureDriver(guest.connection, ownerId ?? '');
	},
	'control comes back when the driver leaves': async (subject) => {
		const { owner, token } = await startShared(subject, 'guest');
		const guest = await join(subject, token);
		owner.connection.send({ type: 'control.grant', member_id: guest.id });
		await ensureDriver(owner.connection, guest.id);
		await guest.connection.drop();
		const revoked = await owner.connection.next('control.revoked', ({ member_id: id }) => id === guest.id);
		ensureEqual(revoked.reason, 'left', 'reason of control.revoked');
		await change(owner.connection, { type: 'session.update', prompt: 'a dog' });
	},
	'control.grant to nobody is invalid_request': async (subject) => {
		const { owner } = await startShared(subject, 'guest');
		await ensureRefused(owner.connection, { type: 'control.grant', member_id: 'nobody' }, 'invalid_request', 'member_id');
	},
	'session.stop of the owner ends it for all, and the token opens nothing': async (subject) => {
		const { owner, token } = await startShared(subject, 'viewer');
		const { connection } = await join(subject, token);
		owner.connection.send({ type: 'session.stop' });
		ensureEqual((await connection.next('session.ended')).session_id, owner.ready.session_id, 'session_id of session.ended');
		await connection.closed();
		const late = await subject.connect({ token });
		await late.first((message) => message.type === 'error' && message.code === 'session_not_found', 'error session_not_found').catch(() => ensure(false, 'the token of a session that has ended still opens something'));
		ensureEqual((await late.closed()).code, 4404, 'the close code');
	},
});
