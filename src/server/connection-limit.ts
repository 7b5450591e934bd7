/** How many may be connected, in all and from one address: control sockets and players together. */
import { TurbocastError } from '../protocol/errors.js';

const RETRY_MS = 10_000;

export class ConnectionLimit {
	readonly #most: number;
	readonly #mostOfAddress: number;
	/** Bounded by the number of connections. */
	readonly #byAddress = new Map<string, number>();
	#count = 0;

	/** `mostOfAddress`: 0 for any number. */
	constructor(most: number, mostOfAddress: number) {
		this.#most = most;
		this.#mostOfAddress = mostOfAddress;
	}

	/** Throws `rate_limited` or `capacity_exhausted` where there is no room for one more. */
	assertRoom(address: string): void {
		if (this.#mostOfAddress > 0 && (this.#byAddress.get(address) ?? 0) >= this.#mostOfAddress) {
			throw new TurbocastError('rate_limited', `At most ${this.#mostOfAddress} connections of one address may be open; close one first.`, { retryAfterMs: RETRY_MS });
		}
		if (this.#count >= this.#most) {
			throw new TurbocastError('capacity_exhausted', `All ${this.#most} connections are taken; try again in a moment.`, { retryAfterMs: RETRY_MS });
		}
	}

	/** Counts one, until the function that it gives is called. That is idempotent. */
	add(address: string): () => void {
		this.#count += 1;
		this.#byAddress.set(address, (this.#byAddress.get(address) ?? 0) + 1);
		let isOpen = true;
		return () => {
			if (!isOpen) {
				return;
			}
			isOpen = false;
			this.#count -= 1;
			const left = (this.#byAddress.get(address) ?? 0) - 1;
			if (left > 0) {
				this.#byAddress.set(address, left);
			} else {
				this.#byAddress.delete(address);
			}
		};
	}
}
