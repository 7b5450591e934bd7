/** A change on its way: accepted by the server, applied to a frame, displayed to the user. */
import { TurbocastError } from '../src/protocol/errors.js';
import type { ServerMessages } from '../src/protocol/messages.js';

export type AppliedChange = {
	readonly chunkIndex: number;
	readonly frameId: number;
	readonly rtpTimestamp: number;
	/** From the arrival of the message at the server to the hand-over of the frame to the network. */
	readonly serverLatencyMs: number;
};

export type DisplayedChange = {
	/** From the call to the moment at which the browser shows the first frame that carries the change. */
	readonly latencyMs: number;
	readonly rtpTimestamp: number;
};

export type Change = {
	readonly eventId: string;
	/** The chunk in which it will be heard. */
	readonly chunkIndex: number;
	/** Words of the prompt that the model does not know. */
	readonly unknownWords: readonly string[];
	/** Rejects when the session ends before. */
	readonly applied: Promise<AppliedChange>;
	/** Needs a `<video>` given to `connect`. Rejects when the session ends before. */
	readonly displayed: Promise<DisplayedChange>;
};

type Deferred<T> = { readonly promise: Promise<T>; readonly resolve: (value: T) => void; readonly reject: (error: Error) => void };

export const deferred = <T>(): Deferred<T> => {
	let resolve: (value: T) => void = () => undefined;
	let reject: (error: Error) => void = () => undefined;
	const promise = new Promise<T>((onResolve, onReject) => {
		resolve = onResolve;
		reject = onReject;
	});
	// Whoever wants to hear of a failure awaits it; nobody has to.
	promise.catch(() => undefined);
	return { promise, resolve, reject };
};

/** `a - b` for 32-bit RTP timestamps, across the wrap (RFC 3550 section 5.1). */
const rtpDifference = (a: number, b: number): number => (a - b) | 0;

type Pending = {
	readonly askedAtMs: number;
	readonly accepted: Deferred<Change>;
	readonly applied: Deferred<AppliedChange>;
	readonly displayed: Deferred<DisplayedChange>;
	rtpTimestamp: number | undefined;
};

/** The changes that have not been displayed yet, by the id of the message that asked for them. */
export class PendingChanges {
	readonly #pending = new Map<string, Pending>();
	#lastDisplayed: { readonly rtpTimestamp: number; readonly atMs: number } | undefined;

	/** `askedAtMs` is `performance.now()` time. Resolves when accepted. */
	add(eventId: string, askedAtMs: number): Promise<Change> {
		const pending: Pending = { askedAtMs, accepted: deferred(), applied: deferred(), displayed: deferred(), rtpTimestamp: undefined };
		this.#pending.set(eventId, pending);
		return pending.accepted.promise;
	}

	accepted(message: ServerMessages['event.accepted']): void {
		const { event_id: eventId = '' } = message;
		const pending = this.#pending.get(eventId);
		pending?.accepted.resolve({
			eventId, chunkIndex: message.will_apply_at_chunk, unknownWords: message.unknown_words,
			applied: pending.applied.promise, displayed: pending.displayed.promise,
		});
	}

	applied(message: ServerMessages['event.applied']): void {
		const pending = this.#pending.get(message.event_id ?? '');
		if (pending === undefined) {
			return;
		}
		pending.rtpTimestamp = message.rtp_timestamp;
		pending.applied.resolve({
			chunkIndex: message.chunk_index, frameId: message.frame_id, rtpTimestamp: message.rtp_timestamp, serverLatencyMs: message.server_latency_ms,
		});
		// The frame may have overtaken this message.
		if (this.#lastDisplayed !== undefined) {
			this.displayed(this.#lastDisplayed.rtpTimestamp, this.#lastDisplayed.atMs);
		}
	}

	/** A frame is on the screen: it, or a later one, shows every change applied up to it. */
	displayed(rtpTimestamp: number, atMs: number): void {
		this.#lastDisplayed = { rtpTimestamp, atMs };
		for (const [eventId, pending] of this.#pending) {
			if (pending.rtpTimestamp !== undefined && rtpDifference(rtpTimestamp, pending.rtpTimestamp) >= 0) {
				this.#pending.delete(eventId);
				pending.displayed.resolve({ latencyMs: atMs - pending.askedAtMs, rtpTimestamp });
			}
		}
	}

	/** False when no change of that id is pending. */
	refuse(eventId: string, error: TurbocastError): boolean {
		const pending = this.#pending.get(eventId);
		if (pending === undefined) {
			return false;
		}
		this.#pending.delete(eventId);
		for (const part of [pending.accepted, pending.applied, pending.displayed]) {
			part.reject(error);
		}
		return true;
	}

	/** Rejects whatever has not come to its end. */
	end(error: TurbocastError): void {
		for (const eventId of [...this.#pending.keys()]) {
			this.refuse(eventId, error);
		}
	}
}
