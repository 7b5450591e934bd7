/**
 * A second engine process that has loaded the model and waits: when the one at work is lost it takes over at once, instead of a new one
 * that has to load first.
 */
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { isOwnModel, type ModelSpec } from '../model/spec.js';
import type { EngineChild, EngineChildListener } from './engine-child.js';
import type { EngineEvent, StandbyMode } from './protocol.js';
import { RESTART_POLICY, restartDelayMs } from './restart-policy.js';

/** From the moment at which an engine is ready: loading takes a core for about a second, and what has just begun needs it more. */
export const STANDBY_DELAY_MS = 3_000;
/** Memory that must be there for `auto`: several times what a process with the model that comes with turbocast takes (160 MB). */
export const STANDBY_LEAST_FREE_BYTES = 800e6;

/** `auto`: models of our own are small; published ones take gigabytes, and are loaded when they are used. */
export const wantsStandby = (mode: StandbyMode, model: ModelSpec, availableBytes: number): boolean =>
	mode === 'on' || (mode === 'auto' && isOwnModel(model) && availableBytes >= STANDBY_LEAST_FREE_BYTES);

type Ready = Extract<EngineEvent, { readonly type: 'engine.ready' }>;

export type Spare = {
	readonly child: EngineChild;
	readonly startedAtMs: number;
	/** What it has said, and how long it took, when it is ready already; otherwise its listener will hear. */
	readonly ready: { readonly event: Ready; readonly coldStartMs: number } | undefined;
	/** Whoever takes it over hears of it from then on. */
	readonly listen: (listener: EngineChildListener) => void;
};

type StandbyState =
	| { readonly kind: 'none' }
	/** Until the delay is over. */
	| { readonly kind: 'waiting' }
	| { readonly kind: 'there'; readonly spare: Spare }
	/** It died too often by itself. */
	| { readonly kind: 'given-up' }
	| { readonly kind: 'closed' };

export type StandbyParts = {
	readonly start: (listener: EngineChildListener) => EngineChild;
	readonly clock: Clock;
	readonly log: Log;
};

export class Standby {
	readonly #parts: StandbyParts;
	readonly #closed = new AbortController();
	#state: StandbyState = { kind: 'none' };
	#deathsMs: number[] = [];
	#closing: Promise<void> | undefined;

	constructor(parts: StandbyParts) {
		this.#parts = parts;
	}

	/** Lets one be started after a while, unless it is there or on its way. */
	prepare(delayMs = STANDBY_DELAY_MS): void {
		if (this.#state.kind !== 'none') {
			return;
		}
		this.#state = { kind: 'waiting' };
		this.#parts.clock.sleep(delayMs, this.#closed.signal).then(() => this.#start()).catch((cause: unknown) => {
			// Closed meanwhile; or the system would not give us a process.
			this.#lost(String(cause));
		});
	}

	/** The process, ready or still loading; it is the caller's from now on. */
	take(): Spare | undefined {
		if (this.#state.kind !== 'there') {
			return undefined;
		}
		const { spare } = this.#state;
		this.#state = { kind: 'none' };
		return spare;
	}

	/** Ends the process that waits. Idempotent. */
	close(): Promise<void> {
		this.#closing ??= (async () => {
			const spare = this.take();
			this.#state = { kind: 'closed' };
			this.#closed.abort();
			await spare?.child.close();
		})();
		return this.#closing;
	}

	#start(): void {
		const startedAtMs = this.#parts.clock.nowMs();
		let listener: EngineChildListener = { onEvent: (event) => this.#heard(event), onExit: (why) => this.#lost(why) };
		const child = this.#parts.start({ onEvent: (event) => listener.onEvent(event), onExit: (why) => listener.onExit(why) });
		this.#state = { kind: 'there', spare: { child, startedAtMs, ready: undefined, listen: (next) => (listener = next) } };
	}

	#heard(event: EngineEvent): void {
		if (this.#state.kind !== 'there') {
			return;
		}
		const { spare } = this.#state;
		if (event.type === 'engine.ready') {
			const coldStartMs = this.#parts.clock.nowMs() - spare.startedAtMs;
			this.#state = { kind: 'there', spare: { ...spare, ready: { event, coldStartMs } } };
			this.#parts.log.info({ pid: spare.child.pid, coldStartMs }, 'Standby engine ready.');
		} else if (event.type === 'engine.failed') {
			spare.child.kill(event.message);
		}
	}

	#lost(why: string): void {
		if (this.#state.kind === 'closed') {
			return;
		}
		const { clock, log } = this.#parts;
		const nowMs = clock.nowMs();
		this.#deathsMs = [...this.#deathsMs, nowMs].slice(-RESTART_POLICY.maxCrashes);
		const delayMs = restartDelayMs(this.#deathsMs, nowMs);
		if (delayMs === undefined) {
			log.warn({ why }, 'The standby engine stops again and again; going on without one.');
			this.#state = { kind: 'given-up' };
			return;
		}
		log.warn({ why, delayMs }, 'Standby engine lost; starting another.');
		this.#state = { kind: 'none' };
		this.prepare(delayMs);
	}
}
