/** How long an engine process may load, and say nothing, before it counts as hung. */
import { isOwnModel, type ModelSpec } from '../model/spec.js';
import { HEARTBEAT_INTERVAL_MS } from './protocol.js';

/**
 * Checks in a row, one heartbeat interval apart, without a word before a process counts as lost. Checks are counted rather
 * than time, so that a laptop that slept does not wake to a killed engine. A step of the largest model of our own takes about a second.
 */
export const MAX_SILENT_CHECKS = 10;
/** Loading may block the process for as long as a large weight file takes to read; longer than this it hangs. */
export const MAX_LOAD_MS = 300_000;

/**
 * A forward of a published network blocks the engine for as long as it takes: minutes on a CPU, an hour at full size. How long is known when a chunk of
 * that size has been made; before that only what no such forward explains is a hang. Reading a large text encoder from disk for a new prompt comes on top.
 */
export const PUBLISHED = { loadMs: 3_600_000, unmeasuredMs: 4 * 3_600_000, leastMs: 600_000, chunks: 4 } as const;

/** Sizes of which the longest chunk is remembered; of another one nothing is known again. */
const MOST_SIZES = 64;

export type Patience = { readonly loadMs: number; /** Asked at every check. */ readonly silentMs: () => number };

/** What chunks of each size have taken, and the patience that follows from it. */
export class EnginePatience {
	readonly #isOwn: boolean;
	/** By size, the longest time from the request for a chunk to its end. */
	readonly #longestMs = new Map<string, number>();

	constructor(model: ModelSpec) {
		this.#isOwn = isOwnModel(model);
	}

	get loadMs(): number {
		return this.#isOwn ? MAX_LOAD_MS : PUBLISHED.loadMs;
	}

	observe(size: string, tookMs: number): void {
		const longestMs = Math.max(tookMs, this.#longestMs.get(size) ?? 0);
		this.#longestMs.delete(size);
		this.#longestMs.set(size, longestMs);
		for (const oldest of [...this.#longestMs.keys()].slice(0, -MOST_SIZES)) {
			this.#longestMs.delete(oldest);
		}
	}

	/** `sizes`: of the streams that are open. */
	silentMs(sizes: readonly string[]): number {
		if (this.#isOwn) {
			return MAX_SILENT_CHECKS * HEARTBEAT_INTERVAL_MS;
		}
		return Math.max(PUBLISHED.leastMs, ...sizes.map((size) => {
			const longestMs = this.#longestMs.get(size);
			return longestMs === undefined ? PUBLISHED.unmeasuredMs : Math.min(PUBLISHED.unmeasuredMs, PUBLISHED.chunks * longestMs);
		}));
	}
}
