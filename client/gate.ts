/** Where requests wait while there is no connection to carry them. */
import { TurbocastError } from '../src/protocol/errors.js';
import { abortable, deferred } from './deferred.js';

/** What is asked for while there is no connection waits for one: more than this is no longer what anybody wants. */
const MOST_WAITING = 64;

export class Gate {
	#open = deferred<void>();
	#waiting = 0;
	#isOpen = false;
	#end: TurbocastError | undefined;

	/** Lets through who waits, in order of arrival. */
	open(): void {
		this.#isOpen = true;
		this.#open.resolve();
	}

	/** Whoever comes from now on waits. Idempotent. */
	shut(): void {
		if (this.#isOpen) {
			this.#isOpen = false;
			this.#open = deferred();
		}
	}

	/** For good: whoever waits or comes later is turned away. */
	end(error: TurbocastError): void {
		this.#end = error;
		this.#open.reject(error);
	}

	/** Throws why nobody will pass, `rate_limited` when too many wait, or the reason of the signal. */
	async pass(signal: AbortSignal | undefined): Promise<void> {
		if (this.#waiting >= MOST_WAITING) {
			throw new TurbocastError('rate_limited', 'Too many requests wait for the connection; ask again when the session is back.');
		}
		this.#waiting += 1;
		try {
			await abortable(this.#open.promise, signal);
		} finally {
			this.#waiting -= 1;
		}
		if (this.#end !== undefined) {
			throw this.#end;
		}
	}
}
