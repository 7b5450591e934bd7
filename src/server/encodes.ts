/**
 * Which encode each viewer gets, and at what rate. All viewers of a codec share one encode, whose rate follows the slowest of them down to a floor; a viewer
 * whose way carries less than that gets a smaller picture, shared with others like it, so that it does not spoil theirs.
 */
import type { VideoCodec } from '../base/frame.js';
import type { Viewer } from '../transport/transport.js';

/** An encode of the whole picture is named as its codec. */
export type EncodeName = VideoCodec | `${VideoCodec}-small`;

export const codecOf = (name: EncodeName): VideoCodec => (name.startsWith('h264') ? 'h264' : 'vp8');
export const isSmall = (name: EncodeName): boolean => name.endsWith('-small');

/** What the rate of a codec's encodes may be, bits a second. */
export type RateBounds = { readonly floorBps: number; readonly mostBps: number };

/** A quarter of the pixels at this is a picture still; below it nothing is. */
export const LEAST_SMALL_BPS = 80_000;
/** A viewer goes back to the whole picture when its way has carried this much more than the floor for so long: going to and fro costs a key frame each time. */
const RETURN_FACTOR = 1.3;
const RETURN_AFTER_MS = 3000;
/** And leaves it when its way has carried less than the floor for so long, or at once when it carries far less. */
const LEAVE_FACTOR = 0.6;
const LEAVE_AFTER_MS = 1000;
/** Changes smaller than this are not worth telling the encoder. */
const LEAST_CHANGE = 0.05;
/** Where a new rate costs a key frame: down only when it must be, up only when it is worth it, and not at once again. */
const COSTLY = { down: 0.15, up: 0.3, upAfterMs: 5000 } as const;

/** `sinceMs`: since when its way is on the other side of the bound. */
type Place = { isSmall: boolean; sinceMs: number | undefined };

export class Encodes {
	readonly #bounds: RateBounds;
	readonly #places = new WeakMap<Viewer, Place>();

	/** A floor above the most is the most. */
	constructor({ floorBps, mostBps }: RateBounds) {
		this.#bounds = { floorBps: Math.min(floorBps, mostBps), mostBps };
	}

	/** The encode that a viewer gets. */
	of(viewer: Viewer): EncodeName {
		return this.#places.get(viewer)?.isSmall === true ? `${viewer.codec}-small` : viewer.codec;
	}

	/** Looks at the way of a viewer once a frame. Whether it gets another encode from now on. */
	update(viewer: Viewer, nowMs: number): boolean {
		const place = this.#places.get(viewer) ?? { isSmall: false, sinceMs: undefined };
		this.#places.set(viewer, place);
		const bps = viewer.bandwidthBps ?? Number.POSITIVE_INFINITY;
		const { floorBps } = this.#bounds;
		const wantsOther = place.isSmall ? bps >= floorBps * RETURN_FACTOR : bps < floorBps;
		if (!wantsOther) {
			place.sinceMs = undefined;
			return false;
		}
		place.sinceMs ??= nowMs;
		const isUrgent = !place.isSmall && bps < floorBps * LEAVE_FACTOR;
		if (!isUrgent && nowMs - place.sinceMs < (place.isSmall ? RETURN_AFTER_MS : LEAVE_AFTER_MS)) {
			return false;
		}
		place.isSmall = !place.isSmall;
		place.sinceMs = undefined;
		return true;
	}

	/** The rate at which the slowest of them can follow. */
	rateFor(name: EncodeName, viewers: readonly Viewer[]): number {
		const { floorBps, mostBps } = this.#bounds;
		const slowestBps = viewers.reduce((least, { bandwidthBps }) => Math.min(least, bandwidthBps ?? Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY);
		// A viewer that waits to go back has more than the floor, and the small picture would be no better for it.
		return isSmall(name)
			? Math.max(Math.min(LEAST_SMALL_BPS, floorBps), Math.min(floorBps, slowestBps))
			: Math.max(floorBps, Math.min(mostBps, slowestBps));
	}
}

/** The rate of one encode: what is wanted, less the changes that cost more than they bring. */
export class RateFollower {
	readonly #isCostly: boolean;
	#bps: number;
	#changedAtMs = Number.NEGATIVE_INFINITY;

	/** `isCostly`: the encoder answers a new rate with a key frame. */
	constructor(bps: number, isCostly: boolean) {
		this.#bps = bps;
		this.#isCostly = isCostly;
	}

	get bps(): number {
		return this.#bps;
	}

	/** Whether the encoder is to be told. */
	follow(wantedBps: number, nowMs: number): boolean {
		const change = wantedBps / this.#bps - 1;
		const isWorth = this.#isCostly
			? change < -COSTLY.down || (change > COSTLY.up && nowMs - this.#changedAtMs > COSTLY.upAfterMs)
			: Math.abs(change) > LEAST_CHANGE;
		if (isWorth) {
			this.#bps = Math.round(wantedBps);
			this.#changedAtMs = nowMs;
		}
		return isWorth;
	}
}
