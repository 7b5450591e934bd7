/** One source, any number of readers, each with a queue of its own: a slow reader loses what there is no room for, never slows the others. */

/** Puts an item into the queue of its reader, after making room where there is none. Made for each reader, so that it may remember. */
export type Enqueue<T> = (waiting: T[], item: T) => void;

/** Ten seconds of everything that a session says. */
const MOST_WAITING = 1024;

/** The queue for what stands alone: the oldest goes. */
const dropOldest = <T>(): Enqueue<T> => {
	let hasWarned = false;
	return (waiting, item) => {
		if (waiting.length >= MOST_WAITING) {
			waiting.shift();
			if (!hasWarned) {
				hasWarned = true;
				console.warn('turbocast: a reader of session.events() is too slow; its oldest events are dropped.');
			}
		}
		waiting.push(item);
	};
};

type Reader<T> = { readonly waiting: T[]; readonly enqueue: Enqueue<T>; wake: (() => void) | undefined };

export class EventStream<T> {
	readonly #readers = new Set<Reader<T>>();
	readonly #newQueue: () => Enqueue<T>;
	#isClosed = false;

	constructor(newQueue: () => Enqueue<T> = dropOldest) {
		this.#newQueue = newQueue;
	}

	emit(item: T): void {
		for (const { waiting, enqueue, wake } of this.#readers) {
			enqueue(waiting, item);
			wake?.();
		}
	}

	/** Readers get what is left, then the end. */
	close(): void {
		this.#isClosed = true;
		this.#readers.forEach((reader) => reader.wake?.());
	}

	/** What comes from this call on. Leaving the loop ends the reading, and so does the signal, without an error. */
	read(signal?: AbortSignal): AsyncIterableIterator<T, undefined> {
		const reader: Reader<T> = { waiting: [], enqueue: this.#newQueue(), wake: undefined };
		this.#readers.add(reader);
		const leave = (): void => {
			this.#readers.delete(reader);
			reader.wake?.();
		};
		signal?.addEventListener('abort', leave, { once: true });
		const iterate = async function* (stream: EventStream<T>): AsyncGenerator<T, undefined> {
			try {
				while (signal?.aborted !== true) {
					const item = reader.waiting.shift();
					if (item !== undefined) {
						yield item;
					} else if (stream.#isClosed) {
						return undefined;
					} else {
						await new Promise<void>((resolve) => {
							reader.wake = resolve;
						});
						reader.wake = undefined;
					}
				}
				return undefined;
			} finally {
				signal?.removeEventListener('abort', leave);
				stream.#readers.delete(reader);
			}
		};
		return iterate(this);
	}
}
