/** Whether there is memory for the streams of sessions: what each takes is counted from shapes, what they may take is configured or measured. */
import type { StreamBytes } from '../engine/stream-memory.js';

/**
 * Of what is free when the engine is ready, the part that streams may take. On this machine encoders, recordings and other programs need some of it; on a
 * card a run takes memory for its length.
 */
export const FREE_SHARE = { host: 0.5, card: 0.8 } as const;

type Place = keyof StreamBytes;
export type PictureSize = { readonly width: number; readonly height: number };

export type Shortage = { readonly place: Place; readonly neededBytes: number; readonly budgetBytes: number };

export type MemoryBudgetOptions = {
	readonly bytesOf: (size: PictureSize) => StreamBytes;
	/** Bytes that streams may take where the networks keep their state; measured when left out. */
	readonly configuredBytes?: number | undefined;
	/** Where that is. */
	readonly place: Place;
	/** Free bytes, asked once, when the first session comes; `undefined` where nobody tells: then nothing is refused. */
	readonly freeBytes: { readonly [place in Place]: () => number | undefined };
};

const NAMES = { host: 'of this machine', card: 'of the graphics card' } as const satisfies { readonly [place in Place]: string };

export const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;

export const placeName = (place: Place): string => NAMES[place];

export class MemoryBudget {
	readonly #options: MemoryBudgetOptions;
	readonly #budgets = new Map<Place, number>();

	constructor(options: MemoryBudgetOptions) {
		this.#options = options;
	}

	/** What lacks for streams of these sizes at once; `undefined` where there is room for them. */
	shortage(sizes: readonly PictureSize[]): Shortage | undefined {
		const each = sizes.map((size) => this.#options.bytesOf(size));
		return (['card', 'host'] as const)
			.map((place) => ({ place, neededBytes: each.reduce((sum, bytes) => sum + bytes[place], 0), budgetBytes: this.#budget(place) }))
			.find(({ neededBytes, budgetBytes }) => neededBytes > budgetBytes);
	}

	#budget(place: Place): number {
		const { configuredBytes, freeBytes, place: configured } = this.#options;
		const known = this.#budgets.get(place);
		if (known !== undefined) {
			return known;
		}
		if (configuredBytes !== undefined && place === configured) {
			return configuredBytes;
		}
		const free = freeBytes[place]();
		if (free === undefined) {
			return Infinity;
		}
		this.#budgets.set(place, free * FREE_SHARE[place]);
		return free * FREE_SHARE[place];
	}
}
