/** Joins what comes from four places: the record of a frame, its chunk, its picture on the screen and the clocks. */
import { TurbocastError } from '../src/protocol/errors.js';
import type { FrameMeta, ServerMessages } from '../src/protocol/messages.js';
import type { ClockOffset } from './clock-sync.js';
import type { ShownFrame } from './platform.js';
import { changeTimelineOf, frameTimelineOf, type ChangeTimeline, type FrameTimeline } from './timeline.js';

/** Ten seconds at 30 frames a second: a picture is shown within one of its record. */
const KEPT_RECORDS = 300;
/** A chunk is reported at most some chunks after its first frame was shown. */
const KEPT_CHUNKS = 32;
/** Records overtake their frames or follow at once, and the report of a chunk comes some of them later at most: what is missing after so many other chunks was lost. */
const PATIENCE_CHUNKS = 3;
/** Changes that wait for the rest of their times: some chunks of as many changes as a server takes, `MAX_WAITING_CHANGES`. */
const MOST_WAITING = 256;

type Waiting = {
	readonly askedAtMs: number;
	readonly serverLatencyMs: number | undefined;
	readonly shown: ShownFrame;
	readonly resolve: (timeline: ChangeTimeline) => void;
	readonly reject: (error: Error) => void;
};

const LOST = 'The record of its frame or the report of its chunk was lost on the way; the time of this change is known, but not where it went.';

/** A map that forgets its oldest entries. */
const remember = <K, V>(map: Map<K, V>, key: K, value: V, most: number): void => {
	map.set(key, value);
	for (const oldest of map.keys()) {
		if (map.size <= most) {
			return;
		}
		map.delete(oldest);
	}
};

export class TimelineBook {
	readonly #clock: () => ClockOffset | undefined;
	readonly #metas = new Map<number, FrameMeta>();
	readonly #chunks = new Map<number, ServerMessages['chunk.completed']>();
	/** With the chunks that were reported since. */
	readonly #waiting = new Map<Waiting, number>();

	constructor(clock: () => ClockOffset | undefined) {
		this.#clock = clock;
	}

	/** A change is on the screen with this frame. */
	add(waiting: Waiting): void {
		this.#waiting.set(waiting, 0);
		this.#settle();
		for (const oldest of this.#waiting.keys()) {
			if (this.#waiting.size <= MOST_WAITING) {
				break;
			}
			this.#giveUp(oldest);
		}
	}

	meta(meta: FrameMeta): void {
		remember(this.#metas, meta.rtp_timestamp, meta, KEPT_RECORDS);
		this.#settle();
	}

	chunk(chunk: ServerMessages['chunk.completed']): void {
		remember(this.#chunks, chunk.chunk_index, chunk, KEPT_CHUNKS);
		this.#settle();
		for (const [waiting, chunks] of this.#waiting) {
			if (chunks >= PATIENCE_CHUNKS) {
				this.#giveUp(waiting);
			} else {
				this.#waiting.set(waiting, chunks + 1);
			}
		}
	}

	/** `undefined` when its record was lost, came late or the clocks are not compared yet. */
	frame(shown: ShownFrame): { readonly meta: FrameMeta; readonly timeline: FrameTimeline | undefined } | undefined {
		const meta = this.#metas.get(shown.rtpTimestamp);
		const clock = this.#clock();
		return meta === undefined ? undefined : { meta, timeline: clock === undefined ? undefined : frameTimelineOf({ meta, shown, clock }) };
	}

	end(error: TurbocastError): void {
		for (const { reject } of this.#waiting.keys()) {
			reject(error);
		}
		this.#waiting.clear();
	}

	#settle(): void {
		const clock = this.#clock();
		for (const waiting of this.#waiting.keys()) {
			const meta = this.#metas.get(waiting.shown.rtpTimestamp);
			const chunk = meta === undefined ? undefined : this.#chunks.get(meta.chunk_index);
			if (meta !== undefined && chunk !== undefined && clock !== undefined) {
				this.#waiting.delete(waiting);
				waiting.resolve(changeTimelineOf({ ...waiting, meta, chunk, clock }));
			}
		}
	}

	#giveUp(waiting: Waiting): void {
		this.#waiting.delete(waiting);
		waiting.reject(new TurbocastError('transport_failed', LOST));
	}
}
