/** When a video connection looks for another way (RFC 8445 section 2.4), and when that has come to nothing. */

/** Longer than a browser needs to gather and check; a new connection is the next thing to try. */
const LONGEST_RESTART_MS = 10_000;

export type IceRestartEvents = {
	/** Makes an offer with new ICE credentials, and hands it over. */
	readonly restart: () => Promise<void>;
	/** Whether the connection is up, now that a restart should be over: one that was never down does not say when it is done. */
	readonly isUp: () => boolean;
	/** It does not come back by itself. */
	readonly onFailed: () => void;
};

export class IceRestart {
	readonly #events: IceRestartEvents;
	/** A connection that never was up has nothing to go on with. */
	#wasUp = false;
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(events: IceRestartEvents) {
		this.#events = events;
	}

	connected(): void {
		this.#wasUp = true;
		this.#stop();
	}

	/** Nothing comes from the other side, or the network of this one is another than before. */
	troubled(): void {
		if (!this.#wasUp || this.#timer !== undefined) {
			return;
		}
		this.#timer = setTimeout(() => {
			this.#stop();
			if (!this.#events.isUp()) {
				this.#events.onFailed();
			}
		}, LONGEST_RESTART_MS);
		this.#events.restart().catch(() => this.failed());
	}

	/** No way is left of those that were tried. */
	failed(): void {
		if (this.#wasUp && this.#timer === undefined) {
			this.troubled();
			return;
		}
		this.#stop();
		this.#events.onFailed();
	}

	/** Idempotent. */
	close(): void {
		this.#wasUp = false;
		this.#stop();
	}

	#stop(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
	}
}
