/** What each message of a member asks of its session: who may ask it, and what does it. */
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ClientMessage, ClientMessages, ServerMessages } from '../protocol/messages.js';
import type { Companion, Company } from './company.js';
import type { Member } from './member.js';
import { assertMay } from './rights.js';
import { pausedMessage } from './session-messages.js';
import type { SessionParts } from './session-parts.js';
import type { SessionRun } from './session-run.js';
import { steer } from './steering.js';

/** The session behind the desk. */
export type AskedSession = {
	readonly id: string;
	/** Of the server key that links to it are made with. */
	readonly keyId: string | undefined;
	readonly parts: SessionParts;
	readonly company: Company;
	/** `undefined` before the start. */
	readonly run: SessionRun | undefined;
	readonly start: (message: ClientMessages['session.start'], member: Member) => Promise<void>;
	/** The member wishes to go. */
	readonly stop: (member: Member) => void;
	readonly fork: (message: ClientMessages['session.fork'], run: SessionRun) => ServerMessages['session.forked'];
};

const started = ({ run }: AskedSession, { type }: ClientMessage): SessionRun => {
	if (run === undefined) {
		throw new TurbocastError('invalid_state', `Send session.start before ${type}.`);
	}
	return run;
};

/** A token with which others come to this session. */
const share = async ({ id, keyId, parts }: AskedSession, { event_id: eventId, role, expires_in_seconds: forSeconds }: ClientMessages['session.share']): Promise<ServerMessages['session.shared']> => {
	const { value, expires_at: expiresAt } = await parts.auth.share({ keyId, sessionId: id, seconds: forSeconds, mayControl: role === 'guest' });
	return { type: 'session.shared', ...(eventId === undefined ? {} : { event_id: eventId }), token: value, role, expires_at: expiresAt };
};

/** Told to everyone, also when nothing changed: whoever asked hears that it is so. */
const setPaused = (session: AskedSession, message: ClientMessages['session.pause' | 'session.resume'], member: Member): void => {
	const run = started(session, message);
	run.line.setPaused(message.type === 'session.pause');
	session.company.sendOf(member, pausedMessage(message.event_id, run));
};

const grantControl = ({ company }: AskedSession, { event_id: eventId, member_id: toId }: ClientMessages['control.grant'], companion: Companion): void => {
	if (!company.grant(companion, toId, eventId)) {
		throw new TurbocastError('invalid_request', '`member_id` is nobody who may drive: a guest or the owner, as session.members names them.', { param: 'member_id' });
	}
};

/** Throws what the client is to be told; the session goes on. */
export const doAsAsked = async (message: ClientMessage, companion: Companion, session: AskedSession): Promise<void> => {
	const { member } = companion;
	const { company, parts } = session;
	assertMay(message, companion, company.drives(member));
	switch (message.type) {
		case 'session.start':
			return session.start(message, member);
		case 'session.update':
		case 'input.action':
		case 'session.reset':
			return member.send(steer(message, member, started(session, message), parts));
		case 'session.stop':
			return session.stop(member);
		case 'webrtc.offer':
			return member.offer(message);
		case 'webrtc.candidate':
			return member.video.addCandidate(message.candidate);
		case 'video.open':
			return member.openSocketVideo(message);
		case 'video.ack':
			return member.socketVideo.acknowledged(message.frame_id);
		case 'video.keyframe':
			return member.socketVideo.requestKeyframe();
		case 'video.close':
			return member.socketVideo.stop('closed by the client');
		case 'session.pause':
		case 'session.resume':
			return setPaused(session, message, member);
		case 'session.fork':
			return member.send(session.fork(message, started(session, message)));
		case 'session.share':
			return member.send(await share(session, message));
		case 'control.request':
			return company.request(companion, message.event_id);
		case 'control.release':
			return company.release(companion, message.event_id);
		case 'control.grant':
			return grantControl(session, message, companion);
		case 'ping':
			return member.send({ ...message, type: 'pong', server_ms: parts.clock.nowMs() });
		default:
			return assertNever(message);
	}
};
