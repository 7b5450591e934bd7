/**
 * What attention remembers of a stream: keys and values of the latent frames in the window, layer by layer.
 *
 * The storage of a layer *is* the tensor that the network is fed, `[heads, past, head_dim]`: it grows by one chunk at a time
 * until the window is full and is a ring over latent frames from then on, so nothing is ever shifted or copied to be
 * read. Softmax does not care in which order keys come, and keys carry their position (roped at absolute positions), so
 * the ring need not be unrolled. The first `sinkLatents` frames never leave; they keep their absolute positions too, as in
 * Self-Forcing.
 */

import type { StateTensor } from './backend.js';

export type KvShape = {
	readonly layers: number;
	readonly heads: number;
	readonly headDim: number;
	readonly tokensPerLatent: number;
	/** Latent frames kept besides the chunk at hand: the model's window less one chunk. */
	readonly capacityLatents: number;
	/** Of these, how many belong to the beginning of the stream for ever. */
	readonly sinkLatents: number;
};

/** Keys and values of one layer, each `[heads, tokens, head_dim]`. */
export type LayerKv = { readonly k: Float32Array; readonly v: Float32Array };

/** The same, wherever it lies. */
export type LayerState = { readonly k: StateTensor; readonly v: StateTensor };

/** What making a chunk needs of a cache; closed by whoever made it. */
export type StreamKv = {
	/** Tokens held. */
	readonly past: number;
	/** The tensors to feed. They belong to the cache: read them, and not after the next `append`. */
	readonly layers: readonly LayerState[];
	/** Where the next chunk's frames go among `layers`, of a cache that is written in place: those tensors have room for them then, [frames, tokens, width]. */
	readonly slots?: readonly number[] | undefined;
	/** Makes `layers` ready for the next chunk; to be called before each forward. */
	readonly prepare?: () => Promise<void>;
	/** What the last forward wrote there, which is what `append` makes history. */
	readonly placed?: () => readonly LayerState[];
	/** Takes over finished latent frames. Throws `generation_invalid` for numbers that are not finite; the cache is as before then. */
	append(added: readonly LayerState[], latents: number): void | Promise<void>;
	/** Replaces the contents by chunks that were appended before. */
	restoreChunks(chunks: readonly KvChunk[], latentsPerChunk: number): void;
	/** Idempotent. */
	close(): void;
};

/** Keys and values of a chunk; `ordinal` counts the chunks that the cache had taken before it. */
export type KvChunk = { readonly ordinal: number; readonly layers: readonly LayerKv[] };

/** A cache as plain data (structured-clone safe). */
export type KvSnapshot = { readonly latents: number; readonly ringHead: number; readonly layers: readonly LayerKv[] };

export class KvCache implements StreamKv {
	readonly #shape: KvShape;
	#layers: LayerKv[];
	/** Latent frames held. */
	#latents = 0;
	/** Slot of the oldest frame of the ring, counted from the end of the sink; moves only when the window is full. */
	#ringHead = 0;

	constructor(shape: KvShape) {
		this.#shape = shape;
		this.#layers = Array.from({ length: shape.layers }, () => ({ k: new Float32Array(0), v: new Float32Array(0) }));
	}

	/** Tokens held: the `past` of the tensors. */
	get past(): number {
		return this.#latents * this.#shape.tokensPerLatent;
	}

	get latents(): number {
		return this.#latents;
	}

	/** The tensors to feed. They belong to the cache: read them, and not after the next `append`. */
	get layers(): readonly LayerKv[] {
		return this.#layers;
	}

	/**
	 * Takes over the keys and values of finished latent frames, each layer `[heads, latents * tokensPerLatent, head_dim]`,
	 * evicting the oldest frames outside the sink where there is no room. Call it after the clean pass alone.
	 */
	append(added: readonly LayerKv[], latents: number): void {
		const { layers, heads, headDim, tokensPerLatent, capacityLatents } = this.#shape;
		const size = heads * latents * tokensPerLatent * headDim;
		// Checked before anything is written: a cache is never left half updated.
		if (added.length !== layers || added.some(({ k, v }) => k.length !== size || v.length !== size)) {
			throw new Error(`KV cache: ${latents} latent frames need ${layers} layers of ${size} keys and values.`);
		}
		const slots = this.#takeSlots(latents);
		const grown = Math.min(capacityLatents, this.#latents + latents);
		this.#layers = this.#layers.map(({ k, v }, layer) => ({
			k: this.#write(this.#resized(k, grown), added[layer]?.k, slots, grown),
			v: this.#write(this.#resized(v, grown), added[layer]?.v, slots, grown),
		}));
		this.#latents = grown;
	}

	/** A copy that later appends leave alone. */
	snapshot(): KvSnapshot {
		return { latents: this.#latents, ringHead: this.#ringHead, layers: this.#layers.map(({ k, v }) => ({ k: k.slice(), v: v.slice() })) };
	}

	/**
	 * Replaces the contents by chunks that were appended before, each in the slots that it had: `ordinal` counts the chunks appended to that
	 * cache before it. In order; those that have left the window may be missing.
	 */
	restoreChunks(chunks: readonly KvChunk[], latentsPerChunk: number): void {
		const { layers, heads, headDim, tokensPerLatent, capacityLatents, sinkLatents } = this.#shape;
		const size = heads * latentsPerChunk * tokensPerLatent * headDim;
		if (chunks.some((chunk) => chunk.layers.length !== layers || chunk.layers.some(({ k, v }) => k.length !== size || v.length !== size))) {
			throw new Error('KV cache: the snapshot was taken of another model or size.');
		}
		const taken = ((chunks.at(-1)?.ordinal ?? -1) + 1) * latentsPerChunk;
		const held = Math.min(capacityLatents, taken);
		const ring = capacityLatents - sinkLatents;
		const slotOf = (latent: number): number | undefined =>
			latent < capacityLatents ? latent : ring <= 0 ? undefined : sinkLatents + ((latent - capacityLatents) % ring);
		const empty = (): Float32Array => new Float32Array(heads * held * tokensPerLatent * headDim);
		this.#layers = Array.from({ length: layers }, () => ({ k: empty(), v: empty() }));
		for (const chunk of chunks) {
			const slots = Array.from({ length: latentsPerChunk }, (_, index) => slotOf(chunk.ordinal * latentsPerChunk + index));
			this.#layers.forEach(({ k, v }, layer) => {
				this.#write(k, chunk.layers[layer]?.k, slots, held);
				this.#write(v, chunk.layers[layer]?.v, slots, held);
			});
		}
		this.#latents = held;
		this.#ringHead = ring <= 0 ? 0 : Math.max(0, taken - capacityLatents) % ring;
	}

	/** Nothing lies anywhere else. */
	close(): void {}

	/** The slot of each new frame, oldest first; `undefined` for one that a shorter window could not hold anyway. */
	#takeSlots(latents: number): (number | undefined)[] {
		const { capacityLatents, sinkLatents } = this.#shape;
		const ring = capacityLatents - sinkLatents;
		let held = this.#latents;
		return Array.from({ length: latents }, () => {
			if (held < capacityLatents) {
				return held++;
			}
			if (ring <= 0) {
				return undefined;
			}
			const slot = sinkLatents + this.#ringHead;
			this.#ringHead = (this.#ringHead + 1) % ring;
			return slot;
		});
	}

	/** `[heads, held, head_dim]` with room for more frames behind each head's; the same array when it is large enough. */
	#resized(from: Float32Array, latents: number): Float32Array {
		if (latents === this.#latents) {
			return from;
		}
		const { heads, headDim, tokensPerLatent } = this.#shape;
		const frame = tokensPerLatent * headDim;
		const to = new Float32Array(heads * latents * frame);
		for (let head = 0; head < heads; head++) {
			const held = this.#latents * frame;
			to.set(from.subarray(head * held, (head + 1) * held), head * latents * frame);
		}
		return to;
	}

	#write(to: Float32Array, from: Float32Array | undefined, slots: readonly (number | undefined)[], latents: number): Float32Array {
		const { heads, headDim, tokensPerLatent } = this.#shape;
		const frame = tokensPerLatent * headDim;
		for (let head = 0; head < heads; head++) {
			for (const [index, slot] of slots.entries()) {
				if (slot !== undefined && from !== undefined) {
					const start = (head * slots.length + index) * frame;
					to.set(from.subarray(start, start + frame), (head * latents + slot) * frame);
				}
			}
		}
		return to;
	}
}
