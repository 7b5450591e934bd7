/** Requests that are answered by one message of their own type, by the id of the request. */
import type { ServerMessage } from '../src/protocol/messages.js';
import { deferred, type Deferred } from './deferred.js';

export class PendingReplies {
	readonly #pending = new Map<string, Deferred<ServerMessage>>();

	add(eventId: string): Promise<ServerMessage> {
		const reply = deferred<ServerMessage>();
		this.#pending.set(eventId, reply);
		return reply.promise;
	}

	/** Any message that names a request of ours answers it. */
	received(message: ServerMessage): void {
		if ('event_id' in message && message.event_id !== undefined) {
			this.#pending.get(message.event_id)?.resolve(message);
			this.#pending.delete(message.event_id);
		}
	}

	/** False when no request of that id is pending. */
	refuse(eventId: string, error: Error): boolean {
		this.#pending.get(eventId)?.reject(error);
		return this.#pending.delete(eventId);
	}

	end(error: Error): void {
		for (const eventId of [...this.#pending.keys()]) {
			this.refuse(eventId, error);
		}
	}
}
