/**
 * Decides when a chunk may be generated and when a frame is shown. Pure: it has no timers and no clock of its own, so a
 * session and a simulation drive the same code (test/media/pacer.test.ts). One `Pacer` belongs to one stream.
 *
 * Two aims pull at it. Frames must never run out; and a change of the prompt is heard at the *start* of a chunk, so every
 * millisecond that a chunk starts earlier than needed is a millisecond of latency. The gate therefore starts a chunk as late as the
 * measured generation times allow, the servo slows the media clock down when generation cannot keep up with it, and a
 * chunk that is late stretches the frames still queued. While a change waits, those before it are shown faster instead (`Haste`), and
 * its chunk is started that much earlier.
 */
import { RTP_TICKS_PER_MS } from '../base/time.js';
import { Estimate } from './estimate.js';
import { Haste } from './haste.js';

export type PacerOptions = {
	/** Frames a second that the model was made for. */
	readonly fps: number;
	readonly framesPerChunk: number;
	/** Generation runs no further ahead of display than this, as far as generation times can be foreseen. */
	readonly maxLeadMs: number;
	/** RTP time of the first frame, 90 kHz. */
	readonly firstRtpTimestamp: number;
	/** Frames are never shown slower than made for: where generation cannot keep up, the picture stands instead. Default false. */
	readonly keepsSpeed?: boolean;
};

export type StartDecision = { readonly start: true } | { readonly start: false; readonly checkInMs: number };
export type DueDecision = { readonly dueInMs: number } | { readonly starved: true };

export type TakenFrame = {
	/** 90 kHz, modulo 2^32. */
	readonly rtpTimestamp: number;
	/** Time since the first frame of the stream on the media clock. */
	readonly mediaMs: number;
	/** On the media clock, since the frame before; 0 for the first. */
	readonly intervalMs: number;
};

export type PacerStats = {
	readonly queuedFrames: number;
	readonly chunks: number;
	/** Times that the picture stood still because no frame was there, longer than half a frame. */
	readonly stalls: number;
	readonly stalledMs: number;
	/** Media time added by stretching. */
	readonly stretchedMs: number;
	/** Mean time from the start of a chunk to its end. */
	readonly generationMs: number;
	/** Lead at which the next chunk is started. */
	readonly startLeadMs: number;
};

/**
 * The gate waits until the lead is what nearly every chunk needs, and one frame more for the timers. With 2.5 deviations the long tail
 * of a shared machine made twice the hesitations, in simulation, that it makes with 3, which cost 10 to 30 ms of latency.
 */
const SAFETY_DEVIATIONS = 3;
const SAFETY_FRAMES = 1;
/** In haste the queue is made to last until a change that takes so much longer than usual: at twice real time, 1 hesitates twice as often and is 35 ms sooner (simulated). */
const CHANGE_DEVIATIONS = 2;
/** Below this it is no longer moving pictures; then stalls are the honest thing to show. */
const LEAST_FPS = 8;
/** Share of what generation can do that display uses, so that a queue can build up again. */
const SERVO_HEADROOM = 0.99;
const SERVO_SMOOTHING = 0.5;
const MOST_STRETCH = 1.25;
/** Below this share of the model's speed generation has no time to spare, and every frame is needed. */
const LEAST_HASTY_SHARE = 0.95;
/** A caller this late takes frames at once until it has caught up; a later one gets the clock moved instead. */
const CATCH_UP_FRAMES = 4;

type Chunk = { readonly startedMs: number; readonly isChanged: boolean; arrived: number };

export class Pacer {
	readonly #options: PacerOptions;
	/** Time from the start of a chunk to the arrival of its frame number `i`. */
	readonly #arrivals: Estimate[];
	readonly #generation = new Estimate();
	/** That of the first frame of a chunk with a change: the prompt is new, and the past is seen again with it. */
	readonly #changedArrival = new Estimate();
	readonly #haste = new Haste();
	#chunk: Chunk | undefined;
	#maxLeadMs: number;
	#fps: number;
	#queued = 0;
	/** Absolute due time of the next frame; undefined until the first frame is there. */
	#dueMs: number | undefined;
	#lastDueMs: number | undefined;
	#mediaMs = 0;
	#chunks = 0;
	#stalls = 0;
	#stalledMs = 0;
	#stretchedMs = 0;

	constructor(options: PacerOptions) {
		this.#options = options;
		this.#fps = options.fps;
		this.#maxLeadMs = options.maxLeadMs;
		this.#arrivals = Array.from({ length: options.framesPerChunk }, () => new Estimate());
	}

	/** Present speed of the media clock. */
	get fps(): number {
		return this.#fps;
	}

	get stats(): PacerStats {
		return {
			queuedFrames: this.#queued,
			chunks: this.#chunks,
			stalls: this.#stalls,
			stalledMs: this.#stalledMs,
			stretchedMs: this.#stretchedMs,
			generationMs: this.#generation.meanMs,
			startLeadMs: this.#startLeadMs(),
		};
	}

	/** From the next chunk on. */
	setMaxLead(maxLeadMs: number): void {
		this.#maxLeadMs = maxLeadMs;
	}

	/** Display was held on purpose and goes on now: that was no stall. */
	resume(nowMs: number): void {
		if (this.#dueMs !== undefined) {
			this.#dueMs = Math.max(this.#dueMs, nowMs);
		}
	}

	/** A frame came from the engine that was queued before, by one that was lost. */
	frameRepeated(): void {
		if (this.#chunk !== undefined) {
			this.#chunk.arrived += 1;
		}
	}

	/** How long the queue lasts: negative by how much the next frame is already late. */
	leadMs(nowMs: number): number {
		return (this.#dueMs ?? nowMs) - nowMs + this.#queued * this.#intervalMs;
	}

	/** May the next chunk be started now? `checkInMs` is when to ask again, unless a frame or a chunk comes first. */
	nextStart(nowMs: number): StartDecision {
		if (this.#chunk !== undefined) {
			return { start: false, checkInMs: this.#intervalMs };
		}
		if (this.#queued === 0) {
			return { start: true };
		}
		const startLeadMs = this.#haste.kind === 'waiting' ? Math.max(this.#startLeadMs(), this.#hastyStartLeadMs()) : this.#startLeadMs();
		const aboveMs = this.leadMs(nowMs) - startLeadMs;
		return aboveMs <= 0 ? { start: true } : { start: false, checkInMs: Math.max(1, aboveMs) };
	}

	/** A change waits that is to be seen soon; the next chunk to be started carries it. */
	changeWaits(nowMs: number): void {
		const { keepsSpeed = false, fps } = this.#options;
		if (keepsSpeed || this.#dueMs === undefined || this.#fps < LEAST_HASTY_SHARE * fps) {
			return;
		}
		this.#haste.changeWaits();
		if (this.#lastDueMs !== undefined && this.#queued > 0) {
			// The frame on display has had some of its time, too.
			const dueMs = Math.max(nowMs, this.#lastDueMs + this.#nextIntervalMs(nowMs));
			this.#haste.saved(Math.max(0, this.#dueMs - dueMs));
			this.#dueMs = Math.min(this.#dueMs, dueMs);
		}
	}

	chunkStarted(nowMs: number): void {
		this.#chunk = { startedMs: nowMs, isChanged: this.#haste.chunkStarted(), arrived: 0 };
	}

	/** A frame came from the engine and waits to be taken. */
	frameQueued(nowMs: number): void {
		if (this.#chunk !== undefined) {
			this.#arrived(this.#chunk, nowMs);
		}
		if (this.#dueMs === undefined) {
			this.#dueMs = nowMs;
		} else if (this.#queued === 0 && nowMs > this.#dueMs) {
			const lateMs = nowMs - this.#dueMs;
			this.#stalledMs += lateMs;
			this.#stalls += lateMs > this.#intervalMs / 2 ? 1 : 0;
			this.#dueMs = nowMs;
		}
		this.#queued += 1;
	}

	chunkFinished(nowMs: number): void {
		if (this.#chunk === undefined) {
			return;
		}
		const { startedMs, arrived } = this.#chunk;
		const { framesPerChunk, fps, keepsSpeed = false } = this.#options;
		// The first chunk of a stream may have fewer frames; it counts as a whole one would have.
		this.#generation.add(((nowMs - startedMs) * framesPerChunk) / (arrived === 0 ? framesPerChunk : arrived));
		this.#chunk = undefined;
		this.#chunks += 1;
		if (keepsSpeed) {
			return;
		}
		const possibleFps = (SERVO_HEADROOM * framesPerChunk * 1000) / Math.max(1, this.#generation.meanMs);
		const targetFps = Math.max(Math.min(LEAST_FPS, fps), Math.min(fps, possibleFps));
		// The first measurement is all there is to know; later ones are approached smoothly.
		this.#fps += (targetFps - this.#fps) * (this.#chunks === 1 ? 1 : SERVO_SMOOTHING);
	}

	/** The chunk ended early; what it took says nothing about the next. Its frames that are queued stay. */
	chunkFailed(): void {
		this.#chunk = undefined;
		this.#haste.chunkFailed();
	}

	/** When the next queued frame is to be shown; the first of a stream at once. */
	nextDue(nowMs: number): DueDecision {
		return this.#queued === 0 || this.#dueMs === undefined ? { starved: true } : { dueInMs: Math.max(0, this.#dueMs - nowMs) };
	}

	/** The next queued frame is being sent. Callers come when it is due; coming a little late does not move the media clock. */
	frameTaken(nowMs: number): TakenFrame {
		let dueMs = this.#dueMs ?? nowMs;
		if (nowMs - dueMs > CATCH_UP_FRAMES * this.#intervalMs) {
			dueMs = nowMs;
		}
		const intervalMs = this.#lastDueMs === undefined ? 0 : dueMs - this.#lastDueMs;
		this.#mediaMs += intervalMs;
		this.#lastDueMs = dueMs;
		this.#queued = Math.max(0, this.#queued - 1);
		this.#haste.frameTaken(intervalMs);
		const nextIntervalMs = this.#nextIntervalMs(nowMs);
		this.#haste.saved(Math.max(0, this.#intervalMs - nextIntervalMs));
		this.#dueMs = dueMs + nextIntervalMs;
		// From the whole media time, so that rounding never adds up.
		const ticks = Math.round(this.#mediaMs * RTP_TICKS_PER_MS);
		return { rtpTimestamp: (this.#options.firstRtpTimestamp + ticks) % 2 ** 32, mediaMs: this.#mediaMs, intervalMs };
	}

	get #intervalMs(): number {
		return 1000 / this.#fps;
	}

	/** The lead that a chunk needs when it is started: that its every frame arrives before it is due. */
	#startLeadMs(): number {
		const intervalMs = this.#intervalMs;
		const neededMs = this.#arrivals.reduce(
			(most, arrival, index) => Math.max(most, arrival.meanMs + SAFETY_DEVIATIONS * arrival.deviationMs - index * intervalMs),
			0,
		);
		// What the chunk will add at most, should its frames come as early as they ever do.
		const addedMs = this.#arrivals.reduce(
			(most, arrival, index) => Math.max(most, (index + 1) * intervalMs - Math.max(0, arrival.meanMs - SAFETY_DEVIATIONS * arrival.deviationMs)),
			0,
		);
		const mostMs = Math.max(0, this.#maxLeadMs - addedMs);
		return Math.min(neededMs + SAFETY_FRAMES * intervalMs, mostMs);
	}

	/** The lead at which a chunk with a change is started: shown in haste, it lasts until the first frame of the chunk is there. */
	#hastyStartLeadMs(): number {
		const { meanMs, deviationMs } = this.#changed;
		const lastsMs = this.#haste.shownInMs(meanMs + SAFETY_DEVIATIONS * deviationMs + SAFETY_FRAMES * this.#intervalMs);
		return Math.min(lastsMs, this.#maxLeadMs - this.#options.framesPerChunk * this.#intervalMs);
	}

	get #changed(): Estimate {
		const [first] = this.#arrivals;
		return this.#changedArrival.count === 0 && first !== undefined ? first : this.#changedArrival;
	}

	#arrived(chunk: Chunk, nowMs: number): void {
		const tookMs = nowMs - chunk.startedMs;
		if (!chunk.isChanged) {
			this.#arrivals[chunk.arrived]?.add(tookMs);
		} else if (chunk.arrived === 0) {
			this.#changedArrival.add(tookMs);
			this.#haste.changeQueued(this.#queued);
		}
		chunk.arrived += 1;
	}

	/** Until the next frame of the chunk at hand is expected, a deviation later than usual; `undefined` where nothing is known of it. */
	#arrivesInMs({ startedMs, isChanged, arrived }: Chunk, nowMs: number): number | undefined {
		const [first, arrival] = [this.#arrivals[0], this.#arrivals[arrived]];
		if (first === undefined || arrival === undefined || arrival.count === 0) {
			return undefined;
		}
		const plainMs = startedMs + arrival.meanMs + arrival.deviationMs - nowMs;
		// The queue was shortened in haste: what is left of it must not run dry before its time.
		return isChanged ? plainMs + this.#changed.meanMs - first.meanMs + (CHANGE_DEVIATIONS - 1) * this.#changed.deviationMs : plainMs;
	}

	/** Until the first frame of a chunk with the change that waits is expected, which begins when the chunk at hand is done. */
	#changeArrivesInMs(nowMs: number): number {
		const restMs = this.#chunk === undefined ? 0 : Math.max(0, this.#chunk.startedMs + this.#generation.meanMs - nowMs);
		return restMs + this.#changed.meanMs + CHANGE_DEVIATIONS * this.#changed.deviationMs;
	}

	/**
	 * Longer than usual, by a quarter at most, while the queue would run dry before the frames being generated arrive. Shorter while a change waits, but
	 * so that the queue lasts.
	 */
	#nextIntervalMs(nowMs: number): number {
		const intervalMs = this.#intervalMs;
		const chunk = this.#chunk;
		const leastMs = this.#haste.leastIntervalMs(intervalMs);
		const arrivesInMs = chunk === undefined ? undefined : this.#arrivesInMs(chunk, nowMs);
		if (this.#options.keepsSpeed === true || (arrivesInMs === undefined && leastMs === intervalMs)) {
			return intervalMs;
		}
		let wantedMs = leastMs;
		if (arrivesInMs !== undefined) {
			wantedMs = arrivesInMs <= 0 ? intervalMs * MOST_STRETCH : arrivesInMs / (this.#queued + 1);
		}
		if (this.#haste.kind === 'waiting') {
			const framesAhead = this.#queued + (chunk === undefined ? 0 : Math.max(0, this.#options.framesPerChunk - chunk.arrived));
			wantedMs = Math.max(wantedMs, Math.min(intervalMs, this.#changeArrivesInMs(nowMs) / (framesAhead + 1)));
		}
		const usedMs = Math.min(Math.max(wantedMs, leastMs), intervalMs * MOST_STRETCH);
		this.#stretchedMs += Math.max(0, usedMs - intervalMs);
		return usedMs;
	}
}
