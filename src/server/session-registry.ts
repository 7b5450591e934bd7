/** The sessions that there are, by their id: for those who come to one that is there already. */
import { TurbocastError } from '../protocol/errors.js';
import type { Session } from './session.js';

export class SessionRegistry {
	/** As many as there are connections, at most. */
	readonly #sessions = new Map<string, Session>();

	add(session: Session): void {
		this.#sessions.set(session.id, session);
	}

	delete(session: Session): void {
		this.#sessions.delete(session.id);
	}

	/** Throws `session_not_found`, for a session that another key has, too. `keyId`: of the server key, `undefined` where there are none. */
	find(id: string, keyId: string | undefined): Session {
		const session = this.#sessions.get(id);
		if (session === undefined || session.keyId !== keyId) {
			throw new TurbocastError('session_not_found', 'The session has ended, or there never was one of that id; ask whoever shared it for a new link.', { param: 'session_id' });
		}
		return session;
	}
}
