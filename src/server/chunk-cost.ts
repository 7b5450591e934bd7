/** What a chunk costs to compute, from those that were computed: a part for each step, a part for the rest, both growing with the picture. */
import type { ChunkTimings } from '../engine/protocol.js';

export type ChunkShape = { readonly width: number; readonly height: number; readonly steps: number };

/** Weight of the newest chunk: about the last ten count. */
const NEWEST_WEIGHT = 0.2;

const blend = (before: number | undefined, now: number): number => (before === undefined ? now : before + NEWEST_WEIGHT * (now - before));

export class ChunkCost {
	#stepMsPerPixel: number | undefined;
	#restMsPerPixel: number | undefined;

	/** Waiting for other sessions (`queueMs`) is no cost of the chunk. */
	observe({ width, height, steps }: ChunkShape, timings: ChunkTimings): void {
		const pixels = width * height;
		this.#stepMsPerPixel = blend(this.#stepMsPerPixel, timings.denoiseMs / steps / pixels);
		this.#restMsPerPixel = blend(this.#restMsPerPixel, (timings.textMs + timings.cleanMs + timings.decodeMs) / pixels);
	}

	/** Whether a chunk was measured yet. */
	get isKnown(): boolean {
		return this.#stepMsPerPixel !== undefined;
	}

	/** Milliseconds of computation; 0 before the first chunk was measured. */
	ms({ width, height, steps }: ChunkShape): number {
		return ((this.#stepMsPerPixel ?? 0) * steps + (this.#restMsPerPixel ?? 0)) * width * height;
	}
}
