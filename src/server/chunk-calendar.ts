/**
 * At which frame a chunk begins. Of published decoders the first chunk of a past is shorter (its first latent is a single picture), so each
 * `cut`, `session.reset` and loss of the past moves all chunks after it forward.
 */
import { framesBeforeChunk, framesPerChunk, type ModelSpec } from '../model/spec.js';

export class ChunkCalendar {
	readonly #model: ModelSpec;
	/** Frames by which chunks begin earlier than in a stream whose past was never forgotten. */
	#earlier = 0;

	/** `nextFrameId`: of the first frame of chunk `chunkIndex`, where it goes on. */
	constructor(model: ModelSpec, chunkIndex = 0, nextFrameId = 0) {
		this.#model = model;
		this.completed(chunkIndex - 1, nextFrameId);
	}

	/** A chunk is whole, and the next begins with that frame. */
	completed(chunkIndex: number, nextFrameId: number): void {
		this.#earlier = framesBeforeChunk(this.#model, chunkIndex + 1) - nextFrameId;
	}

	/** Milliseconds before the chunk's first frame; of one to come, if the past is not forgotten until then. */
	mediaMsOf(chunkIndex: number): number {
		return ((framesBeforeChunk(this.#model, chunkIndex) - this.#earlier) * 1000) / this.#model.fps;
	}

	/** The first chunk that begins then or later. */
	chunkAt(mediaMs: number): number {
		const frames = (mediaMs * this.#model.fps) / 1000 + this.#earlier;
		// The first chunk of some models is shorter than the others.
		const guess = Math.max(0, Math.floor(frames / framesPerChunk(this.#model)));
		return [guess, guess + 1, guess + 2].find((chunk) => framesBeforeChunk(this.#model, chunk) >= frames) ?? guess + 2;
	}
}
