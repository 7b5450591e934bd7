/**
 * The changes of one session on their way: *waiting* from their arrival until a chunk begins, *carried* by that chunk until its
 * first frame is sent, then applied. What a chunk is made from is decided at one place, `latch`.
 */
import type { ChunkInputs } from '../engine/protocol.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Member } from './member.js';

export type Change = {
	/** Of the message that asked for it. */
	readonly eventId: string | undefined;
	readonly receivedAtMs: number;
	/** Whose message it was: to nobody else does its `eventId` mean anything. */
	readonly author?: Member;
};

/** A change that a chunk has taken up. */
export type CarriedChange = Change & {
	readonly chunkIndex: number;
	/** When generation of that chunk began. */
	readonly startedAtMs: number;
};

/** A part of the inputs; controls are merged by name. */
export type ChangedInputs = { readonly [K in keyof ChunkInputs]?: ChunkInputs[K] | undefined };

/** Changes that may wait for a chunk: half a second of a game's inputs, and as many as one frame's record can name. */
export const MAX_WAITING_CHANGES = 64;
/** About a chunk. */
const RETRY_AFTER_MS = 500;

export class ChangeLog {
	readonly #controlDefaults: { readonly [name: string]: number };
	#inputs: ChunkInputs;
	#waiting: Change[] = [];
	#nextChunkIndex = 0;
	#carried: CarriedChange[] = [];

	/** `controlDefaults`: a control that is put back to its default is as if it had never been given. */
	constructor(inputs: ChunkInputs, controlDefaults: { readonly [name: string]: number } = {}) {
		this.#inputs = inputs;
		this.#controlDefaults = controlDefaults;
	}

	get inputs(): ChunkInputs {
		return this.#inputs;
	}

	/** The chunk that a change made now will be heard in. */
	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	/** The newest value of each input counts. Throws `rate_limited` when too many changes wait. */
	add(change: Change, inputs: ChangedInputs): void {
		if (this.#waiting.length >= MAX_WAITING_CHANGES) {
			throw new TurbocastError('rate_limited', `${MAX_WAITING_CHANGES} changes already wait for the next chunk; wait until they are applied.`, { retryAfterMs: RETRY_AFTER_MS });
		}
		this.adjust(inputs);
		this.#waiting.push(change);
	}

	/** Changes inputs that nobody is to be told about. */
	adjust(inputs: ChangedInputs): void {
		this.#inputs = {
			prompt: inputs.prompt ?? this.#inputs.prompt,
			steps: inputs.steps ?? this.#inputs.steps,
			controls: Object.fromEntries(
				Object.entries({ ...this.#inputs.controls, ...inputs.controls }).filter(([name, value]) => value !== this.#controlDefaults[name]),
			),
		};
	}

	/** A chunk begins: its inputs. The changes that wait are carried by it. */
	latch(chunkIndex: number, nowMs: number): ChunkInputs {
		this.#nextChunkIndex = chunkIndex + 1;
		this.#carried.push(...this.#waiting.splice(0).map((change) => ({ ...change, chunkIndex, startedAtMs: nowMs })));
		return this.#inputs;
	}

	/** Changes that a frame of this chunk is the first to carry: its own, and those of chunks before that came to nothing. */
	carriedBy(chunkIndex: number): CarriedChange[] {
		return this.#carried.filter((entry) => entry.chunkIndex <= chunkIndex);
	}

	/** The frame was sent: its changes are applied and leave the log. */
	applied(changes: readonly CarriedChange[]): void {
		this.#carried = this.#carried.filter((entry) => !changes.includes(entry));
	}
}
