/**
 * How the way to a receiver fills: packets sent in bursts, one a picture, and when they arrived, make two measurements. The first packet of a burst
 * finds the queue that the bursts before have left (as LEDBAT measures it, RFC 6817 section 3.4.2); the distance of the packets behind it is what the
 * narrowest link takes for one (packet trains: Dovrolis, Ramanathan, Moore 2001).
 */

/** One packet that arrived. Times are of two clocks; only their differences are used. */
export type Arrival = { readonly burst: number; readonly bytes: number; readonly sentAtMs: number; readonly arrivedAtMs: number };

type Burst = {
	readonly burst: number;
	readonly sentAtMs: number;
	/** Of its first packet: delay above the least that was seen. */
	readonly queuedMs: number;
	lastSentAtMs: number;
	lastArrivedAtMs: number;
	/** Of packets right behind one that was sent with them: how many, how big, and how far behind they arrived. */
	train: { packets: number; bytes: number; ms: number };
};

/** The least delay is that of this long, so that a way that became longer is known as such after it. */
const BASE_WINDOW_MS = 10_000;
const BASE_SLICES = 10;
/** Bursts of the last second, at 16 pictures a second. */
const MOST_BURSTS = 16;
/** A rate is told from bursts with so many distances; fewer say more of the receiver's scheduling than of the link. */
const LEAST_DISTANCES = 3;
/** Packets sent further apart are not a train. */
const TRAIN_GAP_MS = 2;
/** Arrivals closer than this cannot be told apart: feedback counts in 0.25 ms. */
const LEAST_DISTANCE_MS = 0.25;
/** Bursts over which the trend is drawn. */
const TREND_BURSTS = 6;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

export class DelayTrend {
	#bursts: Burst[] = [];
	#base: { readonly slice: number; leastMs: number }[] = [];

	add({ burst, bytes, sentAtMs, arrivedAtMs }: Arrival): void {
		const delayMs = arrivedAtMs - sentAtMs;
		const baseMs = this.#least(delayMs, sentAtMs);
		const last = this.#bursts.at(-1);
		if (last === undefined || burst > last.burst) {
			this.#bursts = [...this.#bursts.slice(1 - MOST_BURSTS), { burst, sentAtMs, queuedMs: delayMs - baseMs, lastSentAtMs: sentAtMs, lastArrivedAtMs: arrivedAtMs, train: { packets: 0, bytes: 0, ms: 0 } }];
			return;
		}
		if (burst < last.burst) {
			return;
		}
		const distanceMs = arrivedAtMs - last.lastArrivedAtMs;
		if (sentAtMs - last.lastSentAtMs <= TRAIN_GAP_MS) {
			last.train.packets += 1;
			last.train.bytes += bytes;
			last.train.ms += Math.max(LEAST_DISTANCE_MS, distanceMs);
		}
		last.lastSentAtMs = sentAtMs;
		last.lastArrivedAtMs = Math.max(last.lastArrivedAtMs, arrivedAtMs);
	}

	/** The queue that the newest burst found, milliseconds. */
	get queuedMs(): number {
		return this.#bursts.at(-1)?.queuedMs ?? 0;
	}

	/** Whether the last two bursts both found more than that: one alone may have met a receiver that was busy with something else. */
	hasQueued(leastMs: number): boolean {
		return this.#bursts.length >= 2 && this.#bursts.slice(-2).every(({ queuedMs }) => queuedMs > leastMs);
	}

	/** Growth of that queue, milliseconds in each millisecond (the slope of the regression line); 0 while too little is known. */
	get slope(): number {
		const points = this.#bursts.slice(-TREND_BURSTS);
		if (points.length < 3) {
			return 0;
		}
		const meanX = points.reduce((sum, { sentAtMs }) => sum + sentAtMs, 0) / points.length;
		const meanY = points.reduce((sum, { queuedMs }) => sum + queuedMs, 0) / points.length;
		const square = points.reduce((sum, { sentAtMs }) => sum + (sentAtMs - meanX) ** 2, 0);
		return square === 0 ? 0 : points.reduce((sum, { sentAtMs, queuedMs }) => sum + (sentAtMs - meanX) * (queuedMs - meanY), 0) / square;
	}

	/**
	 * What the narrowest link carries by the last so many bursts, bits a second; `undefined` when they were too short to tell. Of each burst as a whole: a
	 * receiver that is busy reads several packets at once, so that single distances are of its reading, some nothing and some too long.
	 */
	linkBps(bursts: number): number | undefined {
		const rates = this.#bursts.filter(({ train }) => train.packets >= LEAST_DISTANCES).slice(-bursts).map(({ train }) => (train.bytes * 8000) / train.ms);
		return rates.length === 0 ? undefined : median(rates);
	}

	#least(delayMs: number, nowMs: number): number {
		const slice = Math.floor(nowMs / (BASE_WINDOW_MS / BASE_SLICES));
		const newest = this.#base.at(-1);
		if (newest?.slice === slice) {
			newest.leastMs = Math.min(newest.leastMs, delayMs);
		} else {
			this.#base = [...this.#base.filter((entry) => entry.slice > slice - BASE_SLICES), { slice, leastMs: delayMs }];
		}
		return this.#base.reduce((least, { leastMs }) => Math.min(least, leastMs), delayMs);
	}
}
