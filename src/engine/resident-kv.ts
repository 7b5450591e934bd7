/**
 * What attention remembers of a stream, on a device: the same frames as `KvCache` keeps, in the order of their making instead of a ring. A chunk
 * is added by one small graph from the old tensors to new ones, so that nothing is lost when it fails.
 */
import { kvAppendGraph, type StateType } from '../model/state-graphs.js';
import { TurbocastError } from '../protocol/errors.js';
import { closeState, type DeviceBackend, type Feeds, isResident, type ResidentSession, type StateTensor, type Tensor } from './backend.js';
import type { KvChunk, KvShape, LayerState, StreamKv } from './kv-cache.js';
import { toFloat16 } from '../model/float16.js';

/** What a graph is fed: as it lies, or our numbers in those of the device. */
export const stateFeed = (tensor: StateTensor, dims: readonly number[], type: StateType): Tensor | Feeds[string] =>
	(isResident(tensor) ? tensor : type === 'float16' ? { type, dims, data: toFloat16(tensor) } : { type, dims, data: tensor });

/** The graphs that add a chunk, one for each length of the past, shared by all streams. Closed by whoever made it. */
export class KvAppends {
	readonly type: StateType;
	readonly #device: DeviceBackend;
	readonly #sessions = new Map<string, ResidentSession>();

	constructor(device: DeviceBackend, type: StateType) {
		this.#device = device;
		this.type = type;
	}

	async of(shape: KvShape, past: number, added: number, kept: { readonly sink: number; readonly from: number }): Promise<ResidentSession> {
		const key = JSON.stringify([shape, past, added]);
		let session = this.#sessions.get(key);
		if (session === undefined) {
			const { layers, heads, headDim } = shape;
			session = await this.#device.loadResident(kvAppendGraph({ layers, heads, headDim, type: this.type, past, added, ...kept }), ['magnitudes']);
			this.#sessions.set(key, session);
		}
		return session;
	}

	async close(): Promise<void> {
		for (const session of this.#sessions.values()) {
			await session.close();
		}
		this.#sessions.clear();
	}
}

export class ResidentKv implements StreamKv {
	readonly #shape: KvShape;
	readonly #appends: KvAppends;
	#layers: readonly LayerState[];
	#latents = 0;

	constructor(shape: KvShape, appends: KvAppends) {
		this.#shape = shape;
		this.#appends = appends;
		this.#layers = this.#nothing();
	}

	get past(): number {
		return this.#latents * this.#shape.tokensPerLatent;
	}

	get layers(): readonly LayerState[] {
		return this.#layers;
	}

	async append(added: readonly LayerState[], latents: number): Promise<void> {
		const { heads, headDim, tokensPerLatent, capacityLatents } = this.#shape;
		if (capacityLatents === 0) {
			return;
		}
		const [past, count] = [this.past, latents * tokensPerLatent];
		const session = await this.#appends.of(this.#shape, past, count, this.#kept(this.#latents + latents));
		const feeds: Record<string, Feeds[string]> = {};
		for (const kind of ['k', 'v'] as const) {
			for (const [layer, state] of added.entries()) {
				feeds[`new_${kind}.${layer}`] = stateFeed(state[kind], [heads, count, headDim], this.#appends.type);
			}
			for (const [layer, state] of past === 0 ? [] : this.#layers.entries()) {
				feeds[`past_${kind}.${layer}`] = stateFeed(state[kind], [heads, past, headDim], this.#appends.type);
			}
		}
		const { host, resident } = await session.run(feeds);
		if (!(host['magnitudes']?.data as Float32Array).every(Number.isFinite)) {
			closeState(Object.values(resident));
			throw new TurbocastError('generation_invalid', 'The network produced numbers that are not a picture (keys and values); try again, or change the prompt or the seed.');
		}
		const held = Math.min(capacityLatents, this.#latents + latents);
		this.close();
		this.#layers = added.map((_, layer) => ({ k: resident[`k.${layer}`] as StateTensor, v: resident[`v.${layer}`] as StateTensor }));
		this.#latents = held;
	}

	restoreChunks(chunks: readonly KvChunk[], latentsPerChunk: number): void {
		const { layers, heads, headDim, tokensPerLatent, capacityLatents } = this.#shape;
		const frame = tokensPerLatent * headDim;
		if (chunks.some((chunk) => chunk.layers.length !== layers || chunk.layers.some(({ k, v }) => [k, v].some(({ length }) => length !== heads * latentsPerChunk * frame)))) {
			throw new Error('KV cache: the snapshot was taken of another model or size.');
		}
		const taken = ((chunks.at(-1)?.ordinal ?? -1) + 1) * latentsPerChunk;
		const { sink, from } = this.#keptLatents(taken);
		const frames = chunks.flatMap(({ ordinal, layers: states }) => Array.from({ length: latentsPerChunk }, (_, index) => ({ latent: ordinal * latentsPerChunk + index, states, index })))
			.filter(({ latent }) => latent < sink || latent >= from);
		const gathered = (layer: number, kind: 'k' | 'v'): Float32Array => {
			const to = new Float32Array(heads * frames.length * frame);
			for (let head = 0; head < heads; head++) {
				for (const [slot, { states, index }] of frames.entries()) {
					const start = (head * latentsPerChunk + index) * frame;
					to.set((states[layer]?.[kind] ?? to).subarray(start, start + frame), (head * frames.length + slot) * frame);
				}
			}
			return to;
		};
		this.close();
		// Ours until the next chunk is added, which brings them to the device.
		this.#layers = Array.from({ length: layers }, (_, layer) => ({ k: gathered(layer, 'k'), v: gathered(layer, 'v') }));
		this.#latents = Math.min(capacityLatents, frames.length);
	}

	close(): void {
		closeState(this.#layers.flatMap(({ k, v }) => [k, v]));
		this.#layers = this.#nothing();
		this.#latents = 0;
	}

	#nothing(): readonly LayerState[] {
		return Array.from({ length: this.#shape.layers }, () => ({ k: new Float32Array(0), v: new Float32Array(0) }));
	}

	/** Of `taken` latent frames in their order: the first `sink` and all from `from` on stay. */
	#keptLatents(taken: number): { readonly sink: number; readonly from: number } {
		const { capacityLatents, sinkLatents } = this.#shape;
		const sink = Math.min(sinkLatents, taken);
		return { sink, from: Math.max(sink, taken - (capacityLatents - sink)) };
	}

	/** The same in tokens of what is held and added. */
	#kept(latents: number): { readonly sink: number; readonly from: number } {
		const { sink, from } = this.#keptLatents(latents);
		return { sink: sink * this.#shape.tokensPerLatent, from: from * this.#shape.tokensPerLatent };
	}
}
