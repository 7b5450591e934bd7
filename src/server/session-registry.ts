/** The sessions that there are, by their id and by the secret with which one goes on with them: for those who come to one that is there already. */
import { TurbocastError } from '../protocol/errors.js';
import type { Session } from './session.js';

export class SessionRegistry {
	/** As many as there are connections, and those that are held without one: bounded by the places, the line, and the forks of each. */
	readonly #sessions = new Map<string, Session>();
	readonly #byToken = new Map<string, Session>();

	get all(): readonly Session[] {
		return [...this.#sessions.values()];
	}

	add(session: Session): void {
		this.#sessions.set(session.id, session);
		this.#byToken.set(session.resumeToken, session);
	}

	delete(session: Session): void {
		this.#sessions.delete(session.id);
		this.#byToken.delete(session.resumeToken);
	}

	/** Throws `session_not_found`, for a session that another key has, too. `keyId`: of the server key, `undefined` where there are none. */
	find(id: string, keyId: string | undefined): Session {
		const session = this.#sessions.get(id);
		if (session === undefined || session.keyId !== keyId) {
			throw new TurbocastError('session_not_found', 'The session has ended, or there never was one of that id; ask whoever shared it for a new link.', { param: 'session_id' });
		}
		return session;
	}

	/** The session `id`, for whoever has its resume token. Throws `session_not_found`. */
	findWithToken(id: string, token: string): Session {
		const session = this.findByToken(token);
		if (session?.id !== id) {
			throw new TurbocastError('session_not_found', 'The session of this token has ended, or it is another one.');
		}
		return session;
	}

	/** The session of a resume token, while it runs or waits to be begun. */
	findByToken(token: string): Session | undefined {
		const session = this.#byToken.get(token);
		return session?.isRunning === true || session?.isDetached === true ? session : undefined;
	}
}
