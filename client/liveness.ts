/**
 * Whether the server is still at the other end of the control socket. TCP tells of a way that is gone only after minutes; here a server that says nothing for
 * a while is asked, and given up when it does not answer.
 */

/** While a session runs something comes with every chunk; when nothing did for so long, there is a reason to ask. */
const QUIET_MS = 2500;
/** An answer that takes this long is not coming. A way that is only slow, or a server that is busy, has answered by then. */
const PATIENCE_MS = 4000;
/** The same where something says that the way of before is gone: another network, a page that slept, video that stands still. */
const DOUBTFUL_PATIENCE_MS = 2000;
/** A timer that is later than this tells of a process that stood still, asleep or busy: what came meanwhile has not been read yet. */
const STALLED_MS = 500;

export type LivenessEvents = {
	/** Sends something that is answered. */
	readonly ask: () => void;
	/** It was not answered; told once. */
	readonly onSilence: () => void;
	readonly nowMs: () => number;
};

type Question = { readonly deadlineMs: number };

/** Of a browser; what is not there is not listened to. */
const SIGNS = ['online', 'offline', 'visibilitychange'] as const;
const networkOf = (): EventTarget | undefined => (globalThis.navigator as { readonly connection?: EventTarget } | undefined)?.connection;

export class Liveness {
	readonly #events: LivenessEvents;
	#heardAtMs = 0;
	#question: Question | undefined;
	#timer: ReturnType<typeof setTimeout> | undefined;
	#isRunning = false;

	constructor(events: LivenessEvents) {
		this.#events = events;
	}

	/** A connection is open. */
	start(): void {
		this.stop();
		this.#isRunning = true;
		SIGNS.forEach((sign) => globalThis.addEventListener?.(sign, this.#onSign));
		networkOf()?.addEventListener('change', this.#onSign);
		this.heard();
		this.#lookIn(QUIET_MS);
	}

	/** Something came, whatever it was. */
	heard(): void {
		this.#heardAtMs = this.#events.nowMs();
		if (this.#question !== undefined) {
			this.#question = undefined;
			this.#lookIn(QUIET_MS);
		}
	}

	/** The way may be gone: asked at once. */
	doubt(): void {
		if (this.#isRunning && (this.#question === undefined || this.#question.deadlineMs > this.#events.nowMs() + DOUBTFUL_PATIENCE_MS)) {
			this.#ask(DOUBTFUL_PATIENCE_MS);
		}
	}

	/** Idempotent. */
	stop(): void {
		this.#isRunning = false;
		this.#question = undefined;
		clearTimeout(this.#timer);
		SIGNS.forEach((sign) => globalThis.removeEventListener?.(sign, this.#onSign));
		networkOf()?.removeEventListener('change', this.#onSign);
	}

	/** A page that is hidden is no reason; one that is seen again may have slept. */
	readonly #onSign = (event: Event): void => {
		if (event.type !== 'visibilitychange' || document.visibilityState === 'visible') {
			this.doubt();
		}
	};

	#ask(patienceMs: number): void {
		this.#question = { deadlineMs: this.#events.nowMs() + patienceMs };
		this.#events.ask();
		this.#lookIn(patienceMs);
	}

	#lookIn(ms: number): void {
		clearTimeout(this.#timer);
		const dueMs = this.#events.nowMs() + ms;
		this.#timer = setTimeout(() => this.#look(dueMs), ms);
	}

	#look(dueMs: number): void {
		const nowMs = this.#events.nowMs();
		if (this.#question === undefined) {
			const leftMs = this.#heardAtMs + QUIET_MS - nowMs;
			if (leftMs > 0) {
				this.#lookIn(leftMs);
			} else {
				this.#ask(PATIENCE_MS);
			}
		} else if (nowMs - dueMs > STALLED_MS) {
			this.#ask(PATIENCE_MS);
		} else {
			this.stop();
			this.#events.onSilence();
		}
	}
}
