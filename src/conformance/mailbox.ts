/** What one side has said: kept, and waited for, each message given out once. */
import { Violation } from './verdict.js';

export class Mailbox<M> {
	/** Put in, and not given out. */
	#waiting: M[] = [];
	readonly #readers = new Set<{ readonly matches: (message: M) => boolean; readonly resolve: (message: M) => void }>();
	readonly #closed = new AbortController();

	put(message: M): void {
		const reader = [...this.#readers].find(({ matches }) => matches(message));
		if (reader === undefined) {
			this.#waiting.push(message);
		} else {
			this.#readers.delete(reader);
			reader.resolve(message);
		}
	}

	/** Nothing comes any more: whoever waits is told `why`. */
	close(why: string): void {
		this.#closed.abort(why);
	}

	/** What waits is dropped. */
	forget(): void {
		this.#waiting = [];
	}

	/** The first that matches. Throws a `Violation` naming `what` when none comes in time. */
	async first(matches: (message: M) => boolean, what: string, withinMs: number): Promise<M> {
		const index = this.#waiting.findIndex(matches);
		const [found] = index === -1 ? [] : this.#waiting.splice(index, 1);
		if (found !== undefined) {
			return found;
		}
		const { signal } = this.#closed;
		return new Promise<M>((resolve, reject) => {
			const end = (): void => {
				clearTimeout(timer);
				this.#readers.delete(reader);
				signal.removeEventListener('abort', fail);
			};
			const fail = (): void => {
				end();
				reject(new Violation(`${what} did not come${signal.aborted ? `: ${String(signal.reason)}` : ` in ${withinMs / 1000} s`}`));
			};
			const reader = { matches, resolve: (message: M): void => {
				end();
				resolve(message);
			} };
			const timer = setTimeout(fail, withinMs);
			this.#readers.add(reader);
			signal.addEventListener('abort', fail, { once: true });
			if (signal.aborted) {
				fail();
			}
		});
	}
}
