/** One source of events, any number of readers. A slow reader loses its oldest events, never slows the others. */

/** Ten seconds of everything that a session says. */
const MOST_WAITING = 1024;

type Reader<T> = { readonly waiting: T[]; wake: (() => void) | undefined; dropped: number };

export class EventStream<T> {
	readonly #readers = new Set<Reader<T>>();
	#isClosed = false;

	emit(event: T): void {
		for (const reader of this.#readers) {
			if (reader.waiting.length >= MOST_WAITING) {
				reader.waiting.shift();
				reader.dropped += 1;
				if (reader.dropped === 1) {
					console.warn('turbocast: a reader of session.events() is too slow; its oldest events are dropped.');
				}
			}
			reader.waiting.push(event);
			reader.wake?.();
		}
	}

	/** Readers get what is left, then the end. */
	close(): void {
		this.#isClosed = true;
		this.#readers.forEach((reader) => reader.wake?.());
	}

	/** Events from this call on. Leaving the loop ends the reading, and so does the signal, without an error. */
	read(signal?: AbortSignal): AsyncIterableIterator<T, undefined> {
		const reader: Reader<T> = { waiting: [], wake: undefined, dropped: 0 };
		this.#readers.add(reader);
		const leave = (): void => {
			this.#readers.delete(reader);
			reader.wake?.();
		};
		signal?.addEventListener('abort', leave, { once: true });
		const iterate = async function* (stream: EventStream<T>): AsyncGenerator<T, undefined> {
			try {
				while (signal?.aborted !== true) {
					const event = reader.waiting.shift();
					if (event !== undefined) {
						yield event;
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
