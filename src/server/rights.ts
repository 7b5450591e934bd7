/** What each member of a session may ask for. */
import { TurbocastError } from '../protocol/errors.js';
import type { ClientMessage, ClientMessageType } from '../protocol/messages.js';
import type { Companion } from './company.js';

/** Of the connection that has the session. */
const OWNING: ReadonlySet<ClientMessageType> = new Set(['session.start', 'session.fork', 'session.share'] as const);
/** Of the member that drives. */
const DRIVING: ReadonlySet<ClientMessageType> = new Set(['session.update', 'input.action', 'session.pause', 'session.resume', 'session.reset'] as const);
/** Of no viewer. */
const ASKING: ReadonlySet<ClientMessageType> = new Set(['control.request', 'control.grant', 'control.release'] as const);

const forbid = (sentence: string): never => {
	throw new TurbocastError('forbidden', sentence);
};

/** Throws `forbidden`. */
export const assertMay = ({ type }: ClientMessage, { role, member }: Companion, drives: boolean): void => {
	const mayControl = member.visitor.grant.mayControl;
	if (role === 'owner' ? !mayControl && (OWNING.has(type) || DRIVING.has(type) || ASKING.has(type) || type === 'session.stop') : role === 'viewer' && (DRIVING.has(type) || ASKING.has(type))) {
		forbid(`This client secret is for watching only; ${type} needs one with the action "control".`);
	}
	if (role !== 'owner' && OWNING.has(type)) {
		forbid(`${type} is for the connection that has the session; this one came with a shared token. Connect without it for a session of your own.`);
	}
	if (DRIVING.has(type) && !drives) {
		forbid(`Another member drives at present; ask with control.request before ${type}.`);
	}
	if (type === 'control.grant' && role !== 'owner' && !drives) {
		forbid('Only who drives, and the owner, hands control over.');
	}
};
