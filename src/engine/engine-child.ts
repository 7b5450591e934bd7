/** One engine process seen from its parent: requests in, events out, and a certain end. */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../base/time.js';
import type { Patience } from './patience.js';
import { HEARTBEAT_INTERVAL_MS, type BatchChoice, type EmbeddingCacheSettings, type EngineEvent, type EngineProfile, type EngineRequest, type Residency } from './protocol.js';

/** What an engine process is started with; its only argument, as JSON. */
export type EngineProcessOptions = {
	readonly modelFolder: string;
	readonly profile: EngineProfile;
	readonly threads: number;
	readonly batch?: BatchChoice | undefined;
	/** Default `DEFAULT_MAX_STREAMS`. */
	readonly maxStreams?: number | undefined;
	readonly kernels?: boolean | undefined;
	/** See `NetworksOptions`. */
	readonly recordsForwards?: boolean | undefined;
	readonly residency?: Residency | undefined;
	readonly embeddingCache?: EmbeddingCacheSettings | undefined;
	/** Whether published networks of the model's usual size are loaded ahead of the first request, once the engine is ready; default no. */
	readonly loadsAhead?: boolean | undefined;
};

/** Time a process has to end by itself: the longest step, and then some. */
export const CLOSE_GRACE_MS = 2_000;
/** Hints still in the pipe; above it the process is busy or stuck, and a hint is worth nothing. */
const MAX_PENDING_HINTS = 8;

export type EngineChildListener = {
	readonly onEvent: (event: EngineEvent) => void;
	/** Called once, when the process is gone; `why` is half a sentence for the log. */
	readonly onExit: (why: string) => void;
};

const ENTRY = fileURLToPath(new URL('./engine-process.js', import.meta.url));

export class EngineChild {
	readonly #process: ChildProcess;
	readonly #exited: Promise<void>;
	/** Ends the watch over the process when it is gone. */
	readonly #watch = new AbortController();
	#pendingHints = 0;
	#silentChecks = 0;
	#isReady = false;
	#why: string | undefined;
	#closing: Promise<void> | undefined;

	constructor(options: EngineProcessOptions, { clock, patience }: { readonly clock: Clock; readonly patience: Patience }, listener: EngineChildListener) {
		this.#process = fork(ENTRY, [JSON.stringify(options)], {
			serialization: 'advanced',
			// Nothing of the parent's flags: an inspector port, for one, cannot be shared.
			execArgv: [],
			// Standard output belongs to the command (`turbocast generate` prints its result there).
			stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
		});
		this.#process.on('message', (event) => {
			this.#silentChecks = 0;
			this.#isReady ||= (event as EngineEvent).type === 'engine.ready';
			listener.onEvent(event as EngineEvent);
		});
		this.#exited = new Promise((resolve) => {
			const gone = (why: string): void => {
				if (!this.#watch.signal.aborted) {
					this.#watch.abort();
					listener.onExit(this.#why ?? why);
					resolve();
				}
			};
			this.#process.on('exit', (code, signal) => gone(signal === null ? `it exited with code ${code ?? 'unknown'}` : `it was ended by ${signal}`));
			// Could not be started (then there is no exit), or a message could not be delivered (then the exit follows).
			this.#process.on('error', (error) => {
				if (this.#process.pid === undefined) {
					gone(`it could not be started: ${error.message}`);
				} else {
					this.kill(`it could not be reached: ${error.message}`);
				}
			});
		});
		void this.#watchOver(clock, patience).catch(() => undefined);
	}

	/** 0 when the process could not even be started. */
	get pid(): number {
		return this.#process.pid ?? 0;
	}

	send(request: EngineRequest): void {
		if (this.#process.connected) {
			this.#process.send(request);
		}
	}

	/** As `send`, for what may be lost: dropped when earlier hints have not left this process yet. */
	sendHint(request: EngineRequest): void {
		if (this.#process.connected && this.#pendingHints < MAX_PENDING_HINTS) {
			this.#pendingHints += 1;
			this.#process.send(request, () => {
				this.#pendingHints -= 1;
			});
		}
	}

	/** Ends the process now; `onExit` hears `why`. */
	kill(why: string): void {
		this.#why ??= why;
		this.#process.kill('SIGKILL');
	}

	/** Asks the process to end, insists after a grace, and resolves when it is gone. Idempotent. */
	close(): Promise<void> {
		this.#closing ??= (async () => {
			this.send({ type: 'engine.close' });
			// The system's own timer, not the clock of media time: this is about a process, and must come even if that is stepped by hand.
			const timer = setTimeout(() => this.kill('it did not end in time'), CLOSE_GRACE_MS);
			await this.#exited;
			clearTimeout(timer);
		})();
		return this.#closing;
	}

	/** Kills a process that neither becomes ready nor says anything. */
	async #watchOver(clock: Clock, { silentMs, loadMs }: Patience): Promise<void> {
		const { signal } = this.#watch;
		for (let loadChecks = 0; !this.#isReady; loadChecks++) {
			if (loadChecks * HEARTBEAT_INTERVAL_MS >= loadMs) {
				this.kill(`it was not ready after ${loadMs / 1000} seconds`);
			}
			await clock.sleep(HEARTBEAT_INTERVAL_MS, signal);
		}
		for (this.#silentChecks = 0; this.#silentChecks * HEARTBEAT_INTERVAL_MS < silentMs(); this.#silentChecks++) {
			await clock.sleep(HEARTBEAT_INTERVAL_MS, signal);
		}
		this.kill(`it has not been heard of for ${silentMs() / 1000} seconds`);
	}
}
