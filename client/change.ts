/** A change on its way: accepted by the server, applied to a frame, displayed to the user. */
import { TurbocastError } from '../src/protocol/errors.js';
import type { ClientMessage, FrameMeta, ServerMessages } from '../src/protocol/messages.js';
import { deferred, type Deferred } from './deferred.js';
import type { ShownFrame } from './platform.js';
import type { TimelineBook } from './timeline-book.js';
import type { ChangeTimeline } from './timeline.js';

export type AppliedChange = {
	readonly chunkIndex: number;
	readonly frameId: number;
	readonly rtpTimestamp: number;
	/** From the arrival of the message at the server to the hand-over of the frame to the network; `undefined` when word of it was lost with a connection. */
	readonly serverLatencyMs: number | undefined;
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
	/** In browsers it needs a `<video>` given to `connect`; in Node, somebody who reads `frames()`. Rejects when the session ends before, and when nobody looks: 256 changes later. */
	readonly displayed: Promise<DisplayedChange>;
	/** Where the time went: at most some chunks after `displayed`. Rejects when that cannot be told, because a record was lost on the way. */
	readonly timeline: Promise<ChangeTimeline>;
};

/** `a - b` for 32-bit RTP timestamps, across the wrap (RFC 3550 section 5.1). */
const rtpDifference = (a: number, b: number): number => (a - b) | 0;

/** Applied changes that wait to be shown. More of them than a server takes at once means that nobody looks: a program that steers and never reads frames. */
const MOST_UNSEEN = 256;

type Pending = {
	readonly message: ClientMessage;
	readonly askedAtMs: number;
	readonly accepted: Deferred<Change>;
	readonly applied: Deferred<AppliedChange>;
	readonly displayed: Deferred<DisplayedChange>;
	readonly timeline: Deferred<ChangeTimeline>;
	/** `undefined` until it was accepted. */
	chunkIndex: number | undefined;
	/** `undefined` until it was applied. */
	first: AppliedChange | undefined;
};

/** The changes that have not been displayed yet, by the id of the message that asked for them. */
export class PendingChanges {
	readonly #pending = new Map<string, Pending>();
	readonly #book: TimelineBook;
	#lastShown: ShownFrame | undefined;

	constructor(book: TimelineBook) {
		this.#book = book;
	}

	/** `askedAtMs` is `performance.now()` time. Resolves when accepted. */
	add(eventId: string, message: ClientMessage, askedAtMs: number): Promise<Change> {
		const pending: Pending = {
			message, askedAtMs, accepted: deferred(), applied: deferred(), displayed: deferred(), timeline: deferred(), chunkIndex: undefined, first: undefined,
		};
		this.#pending.set(eventId, pending);
		return pending.accepted.promise;
	}

	/** Messages that the server may never have got: what they ask for is the same when it is asked twice. */
	get unanswered(): ClientMessage[] {
		return [...this.#pending.values()].filter(({ chunkIndex }) => chunkIndex === undefined).map(({ message }) => message);
	}

	accepted(message: ServerMessages['event.accepted']): void {
		const { event_id: eventId = '' } = message;
		const pending = this.#pending.get(eventId);
		if (pending !== undefined) {
			pending.chunkIndex = message.will_apply_at_chunk;
			pending.accepted.resolve({
				eventId, chunkIndex: message.will_apply_at_chunk, unknownWords: message.unknown_words,
				applied: pending.applied.promise, displayed: pending.displayed.promise, timeline: pending.timeline.promise,
			});
		}
	}

	applied(message: ServerMessages['event.applied']): void {
		const pending = this.#pending.get(message.event_id ?? '');
		if (pending !== undefined) {
			this.#apply(pending, {
				chunkIndex: message.chunk_index, frameId: message.frame_id, rtpTimestamp: message.rtp_timestamp, serverLatencyMs: message.server_latency_ms,
			});
		}
	}

	/** After a connection was lost, `event.applied` may have been lost with it: the record of a frame of that chunk says the same. */
	resumed(meta: FrameMeta): void {
		for (const pending of this.#pending.values()) {
			if (pending.chunkIndex !== undefined && pending.first === undefined && pending.chunkIndex < meta.chunk_index) {
				this.#apply(pending, { chunkIndex: meta.chunk_index, frameId: meta.frame_id, rtpTimestamp: meta.rtp_timestamp, serverLatencyMs: undefined });
			}
		}
	}

	/** A frame is on the screen: it, or a later one, shows every change applied up to it. */
	shown(frame: ShownFrame): void {
		this.#lastShown = frame;
		for (const [eventId, { first, askedAtMs, displayed, timeline }] of this.#pending) {
			if (first !== undefined && rtpDifference(frame.rtpTimestamp, first.rtpTimestamp) >= 0) {
				this.#pending.delete(eventId);
				displayed.resolve({ latencyMs: frame.atMs - askedAtMs, rtpTimestamp: frame.rtpTimestamp });
				this.#book.add({ askedAtMs, serverLatencyMs: first.serverLatencyMs, shown: frame, ...timeline });
			}
		}
	}

	/** False when no change of that id is pending. */
	refuse(eventId: string, error: unknown): boolean {
		const pending = this.#pending.get(eventId);
		if (pending === undefined) {
			return false;
		}
		this.#pending.delete(eventId);
		const reason = error instanceof Error ? error : new Error(String(error));
		for (const part of [pending.accepted, pending.applied, pending.displayed, pending.timeline]) {
			part.reject(reason);
		}
		return true;
	}

	/** Rejects whatever has not come to its end. */
	end(error: TurbocastError): void {
		for (const eventId of [...this.#pending.keys()]) {
			this.refuse(eventId, error);
		}
		this.#book.end(error);
	}

	#apply(pending: Pending, first: AppliedChange): void {
		pending.first = first;
		pending.applied.resolve(first);
		// The frame may have overtaken the message that names it.
		if (this.#lastShown !== undefined) {
			this.shown(this.#lastShown);
		}
		this.#forgetUnseen();
	}

	#forgetUnseen(): void {
		const unseen = [...this.#pending].filter(([, { first }]) => first !== undefined);
		for (const [eventId] of unseen.slice(0, Math.max(0, unseen.length - MOST_UNSEEN))) {
			this.refuse(eventId, new TurbocastError('invalid_state', 'Nobody looked at this change: no frame was shown since it was applied. Give connect a <video>, or read frames().'));
		}
	}
}
