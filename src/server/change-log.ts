/**
 * The changes of one session on their way: *waiting* from their arrival until their chunk begins, *carried* by that chunk until its
 * first frame is sent, then applied. What a chunk is made from is decided at one place, `latch`.
 */
import type { ChunkInputs, PastMode } from '../engine/protocol.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Member } from './member.js';
import { advanceBlend, applyChange, inputsOf, stronger, type ChangedInputs, type SteeringState } from './steering-state.js';

export type { ChangedInputs } from './steering-state.js';

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

type WaitingChange = { readonly change: Change; readonly inputs: ChangedInputs; readonly atChunk: number };

/** Changes that may wait for a chunk: half a second of a game's inputs, and as many as one frame's record can name. */
export const MAX_WAITING_CHANGES = 64;
/** About a chunk. */
const RETRY_AFTER_MS = 500;

export type ChangeLogOptions = {
	/** A control that is put back to its default is as if it had never been given. */
	readonly controlDefaults?: { readonly [name: string]: number };
	readonly firstChunkIndex?: number;
	/** What another log has decided for the first chunk already, its transition included: only changes are added to it. */
	readonly decided?: PastMode | undefined;
};

export class ChangeLog {
	readonly #controlDefaults: { readonly [name: string]: number };
	#state: SteeringState;
	#waiting: WaitingChange[] = [];
	#nextChunkIndex: number;
	#carried: CarriedChange[] = [];
	/** Of the chunk that was begun last. */
	#latchedPast: PastMode = 'keep';
	#decided: PastMode | undefined;

	constructor(state: SteeringState, { controlDefaults = {}, firstChunkIndex = 0, decided }: ChangeLogOptions = {}) {
		this.#state = state;
		this.#controlDefaults = controlDefaults;
		this.#nextChunkIndex = firstChunkIndex;
		this.#decided = decided;
	}

	/** With the changes that the next chunk will bring, but for the next step of a transition. */
	get state(): SteeringState {
		return this.#due(this.#nextChunkIndex).reduce((state, { inputs }) => applyChange(state, inputs, this.#controlDefaults).state, this.#state);
	}

	/** The chunk that a change made now will be heard in. */
	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	/** Returns the chunk that the change will be heard in: `atChunk`, or the next one when that has begun. Throws `rate_limited` when too many changes wait. */
	add(change: Change, inputs: ChangedInputs, atChunk = 0): number {
		if (this.#waiting.length >= MAX_WAITING_CHANGES) {
			throw new TurbocastError('rate_limited', `${MAX_WAITING_CHANGES} changes already wait for their chunk; wait until some are applied.`, { retryAfterMs: RETRY_AFTER_MS });
		}
		this.#waiting.push({ change, inputs, atChunk });
		return Math.max(atChunk, this.#nextChunkIndex);
	}

	/** Changes inputs that nobody is to be told about, before all that wait. */
	adjust(inputs: ChangedInputs): void {
		this.#state = applyChange(this.#state, inputs, this.#controlDefaults).state;
	}

	/** A chunk begins: its inputs. The changes that wait for it are carried by it. */
	latch(chunkIndex: number, nowMs: number): ChunkInputs {
		const due = this.#due(chunkIndex);
		this.#waiting = this.#waiting.filter((entry) => !due.includes(entry));
		this.#nextChunkIndex = chunkIndex + 1;
		let past = this.#decided ?? 'keep';
		for (const { inputs } of due) {
			const changed = applyChange(this.#state, inputs, this.#controlDefaults);
			this.#state = changed.state;
			past = stronger(past, changed.past);
		}
		if (this.#decided === undefined) {
			const advanced = advanceBlend(this.#state);
			this.#state = advanced.state;
			past = stronger(past, advanced.past);
		}
		this.#decided = undefined;
		this.#latchedPast = past;
		this.#carried.push(...due.map(({ change }) => ({ ...change, chunkIndex, startedAtMs: nowMs })));
		return inputsOf(this.#state, past);
	}

	/** A log of its own that goes on from a chunk as this one does or did: its next, or the one that has just begun. What waits here stays here. */
	forkAt(chunkIndex: number): ChangeLog {
		return new ChangeLog(this.#state, {
			controlDefaults: this.#controlDefaults, firstChunkIndex: chunkIndex,
			decided: chunkIndex < this.#nextChunkIndex ? this.#latchedPast : undefined,
		});
	}

	/** Changes that a frame of this chunk is the first to carry: its own, and those of chunks before that came to nothing. */
	carriedBy(chunkIndex: number): CarriedChange[] {
		return this.#carried.filter((entry) => entry.chunkIndex <= chunkIndex);
	}

	/** The frame was sent: its changes are applied and leave the log. */
	applied(changes: readonly CarriedChange[]): void {
		this.#carried = this.#carried.filter((entry) => !changes.includes(entry));
	}

	/** In the order of their arrival. */
	#due(chunkIndex: number): WaitingChange[] {
		return this.#waiting.filter(({ atChunk }) => atChunk <= chunkIndex);
	}
}
