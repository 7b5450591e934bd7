/** The only queue of the code base: bounded, awaited, closable. */

type Waiter<T> = { readonly resolve: (result: IteratorResult<T, undefined>) => void; readonly reject: (error: Error) => void };

export type WhenFull = 'wait' | 'drop-oldest';

export class BoundedQueue<T> implements AsyncIterable<T> {
	/** Items thrown away because the queue was full. */
	dropped = 0;
	readonly #capacity: number;
	readonly #whenFull: WhenFull;
	readonly #items: T[] = [];
	readonly #readers: Waiter<T>[] = [];
	readonly #writers: (() => void)[] = [];
	#end: { readonly error: Error | undefined } | undefined;

	/** `capacity` items at most; the caller says beside the number why it is that number. */
	constructor(capacity: number, whenFull: WhenFull) {
		this.#capacity = capacity;
		this.#whenFull = whenFull;
	}

	get length(): number {
		return this.#items.length;
	}

	get isClosed(): boolean {
		return this.#end !== undefined;
	}

	/** Resolves when the item is in the queue; to a closed queue it is dropped. */
	async push(item: T): Promise<void> {
		while (this.#end === undefined && this.#whenFull === 'wait' && this.#items.length >= this.#capacity) {
			await new Promise<void>((resolve) => this.#writers.push(resolve));
		}
		this.offer(item);
	}

	/** As `push`, but never waits: a full queue loses its oldest item, whatever its mode. */
	offer(item: T): void {
		if (this.#end !== undefined) {
			this.dropped += 1;
			return;
		}
		const reader = this.#readers.shift();
		if (reader !== undefined) {
			reader.resolve({ value: item, done: false });
			return;
		}
		if (this.#items.length >= this.#capacity) {
			this.#items.shift();
			this.dropped += 1;
		}
		this.#items.push(item);
	}

	/** The next item at once, or `undefined`. */
	poll(): T | undefined {
		const item = this.#items.shift();
		this.#writers.shift()?.();
		return item;
	}

	/** Throws away what is queued and returns it, so that the caller can close it. */
	clear(): T[] {
		const items = this.#items.splice(0);
		for (const writer of this.#writers.splice(0)) {
			writer();
		}
		return items;
	}

	/** Readers get what is left, then the end (or `error`). Idempotent. */
	close(error?: Error): void {
		if (this.#end !== undefined) {
			return;
		}
		this.#end = { error };
		for (const reader of this.#readers.splice(0)) {
			if (error === undefined) {
				reader.resolve({ value: undefined, done: true });
			} else {
				reader.reject(error);
			}
		}
		for (const writer of this.#writers.splice(0)) {
			writer();
		}
	}

	next(): Promise<IteratorResult<T, undefined>> {
		if (this.#items.length > 0) {
			return Promise.resolve({ value: this.poll() as T, done: false });
		}
		if (this.#end !== undefined) {
			return this.#end.error === undefined
				? Promise.resolve({ value: undefined, done: true })
				: Promise.reject(this.#end.error);
		}
		return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
	}

	[Symbol.asyncIterator](): AsyncIterator<T, undefined> {
		return {
			next: () => this.next(),
			return: () => {
				this.close();
				this.clear();
				return Promise.resolve({ value: undefined, done: true as const });
			},
		};
	}
}
