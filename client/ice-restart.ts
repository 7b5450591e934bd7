/** When a video connection looks for another way (RFC 8445 section 2.4), and when that has come to nothing. */

/** Longer than a browser needs to gather and check; a new connection is the next thing to try. */
const LONGEST_RESTART_MS = 10_000;
/**
 * A restart leaves the way of before, so it is for when that way alone is gone. Where the server is not heard at all either, the network stands still: the offer
 * would reach nobody, and the way of before is the first to work again (with a restart the picture was back 4.9 s after such a network, without one after 0.1).
 */
const HEARD_WITHIN_MS = 2500;

export type IceRestartEvents = {
	/** Whether anything is heard of the server over the control socket, from now on, within this time. */
	readonly untilHeard: (withinMs: number) => Promise<boolean>;
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
		const timer = setTimeout(() => {
			this.#stop();
			if (!this.#events.isUp()) {
				this.#events.onFailed();
			}
		}, LONGEST_RESTART_MS);
		this.#timer = timer;
		void this.#restart(timer);
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

	/** Unless it is over by the time that the server is heard. */
	async #restart(timer: ReturnType<typeof setTimeout>): Promise<void> {
		if (await this.#events.untilHeard(HEARD_WITHIN_MS) && this.#timer === timer) {
			await this.#events.restart().catch(() => this.failed());
		}
	}

	#stop(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
	}
}
