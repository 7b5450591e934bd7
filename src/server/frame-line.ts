/** The frames between generation and playout of one session: the pacer that times both ends, and the queue between them. */
import type { RawFrame } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import { Pacer } from '../media/pacer.js';
import { chunkMs, framesPerChunk, type ModelSpec } from '../model/spec.js';

export type FrameLineOptions = { readonly model: ModelSpec; readonly maxLeadMs: number; readonly firstRtpTimestamp: number; readonly clock: Clock };

/** The clip being shown, and the one being made. */
const CLIPS_AHEAD = 2;

export class FrameLine {
	readonly pacer: Pacer;
	readonly #options: FrameLineOptions;
	/** Bounded by `mayGenerate`: never more than the lead and a chunk. */
	readonly #frames: RawFrame[] = [];
	/** Those that wait for anything to happen here. */
	#wakers: (() => void)[] = [];
	#isWatched = false;
	#isPaused = false;
	#wantedLeadMs: number;

	constructor(options: FrameLineOptions) {
		this.#options = options;
		this.#wantedLeadMs = options.maxLeadMs;
		this.pacer = new Pacer({
			fps: options.model.fps, framesPerChunk: framesPerChunk(options.model), maxLeadMs: this.maxLeadMs, firstRtpTimestamp: options.firstRtpTimestamp,
			// A clip is shown at its own speed; between two clips the last picture stands.
			keepsSpeed: options.model.clip !== undefined,
		});
	}

	/** In use. Of clips, one may be made while another is shown. */
	get maxLeadMs(): number {
		const { model } = this.#options;
		return model.clip === undefined ? this.#wantedLeadMs : Math.max(this.#wantedLeadMs, CLIPS_AHEAD * chunkMs(model));
	}

	setMaxLead(maxLeadMs: number): void {
		this.#wantedLeadMs = maxLeadMs;
		this.pacer.setMaxLead(this.maxLeadMs);
		this.#wake();
	}

	get isPaused(): boolean {
		return this.#isPaused;
	}

	/** While paused no frame is taken and no chunk begun; one that has begun is finished. */
	setPaused(isPaused: boolean): void {
		this.#isPaused = isPaused;
		if (!isPaused) {
			this.pacer.resume(this.#options.clock.nowMs());
		}
		this.#wake();
	}

	get isWatched(): boolean {
		return this.#isWatched;
	}

	/** Whether a viewer is there to take frames. Without one nothing is taken, and generation stops at the lead. */
	setWatched(isWatched: boolean): void {
		this.#isWatched = isWatched;
		this.#wake();
	}

	/** A change waits for the next chunk that is to be seen soon. */
	changeWaits(): void {
		this.pacer.changeWaits(this.#options.clock.nowMs());
		this.#wake();
	}

	push(frame: RawFrame): void {
		this.#frames.push(frame);
		this.pacer.frameQueued(this.#options.clock.nowMs());
		this.#wake();
	}

	/** Resolves when the next chunk may begin. */
	async waitForStart(signal: AbortSignal): Promise<void> {
		const { clock, model } = this.#options;
		const perChunk = framesPerChunk(model);
		for (;;) {
			signal.throwIfAborted();
			// Without a viewer the media clock stands still, and only what is queued can be counted.
			const mostUnwatched = Math.max(perChunk, Math.floor((this.maxLeadMs * model.fps) / 1000));
			if (this.#isPaused || (!this.#isWatched && this.#frames.length + perChunk > mostUnwatched)) {
				await this.#changed(undefined, signal);
				continue;
			}
			const decision = this.#isWatched ? this.pacer.nextStart(clock.nowMs()) : { start: true as const };
			if (decision.start) {
				return;
			}
			await this.#changed(decision.checkInMs, signal);
		}
	}

	/** Resolves with the next frame when it is due and somebody watches. */
	async takeDue(signal: AbortSignal): Promise<RawFrame> {
		const { clock } = this.#options;
		for (;;) {
			signal.throwIfAborted();
			const decision = this.pacer.nextDue(clock.nowMs());
			if (!this.#isWatched || this.#isPaused || 'starved' in decision) {
				await this.#changed(undefined, signal);
				continue;
			}
			if (decision.dueInMs > 0) {
				await this.#changed(decision.dueInMs, signal);
				continue;
			}
			const frame = this.#frames.shift();
			if (frame !== undefined) {
				return frame;
			}
			await this.#changed(undefined, signal);
		}
	}

	/** Tells those who wait that a chunk has begun or ended. */
	chunkStarted(): void {
		this.pacer.chunkStarted(this.#options.clock.nowMs());
	}

	chunkFinished(): void {
		this.pacer.chunkFinished(this.#options.clock.nowMs());
		this.#wake();
	}

	chunkFailed(): void {
		this.pacer.chunkFailed();
		this.#wake();
	}

	#wake(): void {
		for (const wake of this.#wakers.splice(0)) {
			wake();
		}
	}

	/** Resolves at the next change, after `atMostMs`, or rejects when the signal aborts. */
	async #changed(atMostMs: number | undefined, signal: AbortSignal): Promise<void> {
		const ended = new AbortController();
		const stop = (): void => ended.abort();
		signal.addEventListener('abort', stop, { once: true });
		this.#wakers.push(stop);
		try {
			// A day stands for "until something changes".
			await this.#options.clock.sleep(atMostMs ?? 86_400_000, ended.signal).catch(() => undefined);
		} finally {
			signal.removeEventListener('abort', stop);
			this.#wakers = this.#wakers.filter((waker) => waker !== stop);
		}
		signal.throwIfAborted();
	}
}
