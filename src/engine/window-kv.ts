/**
 * What attention remembers of a stream, on a device, in place: a tensor for the keys and one for the values of each layer, made once, with room for the window. A forward writes its
 * chunk's keys and values into the room that is left and attends to all that are there; a chunk becomes history by its room being no longer free. Nothing is copied or moved, ever: the
 * sink stays where it is, the rest is a ring (softmax does not care about the order of keys, which carry their positions). Same frames as `KvCache`, in the order of a ring.
 */
import { windowCheckGraph, windowDims, windowReadGraph, type WindowShape } from '../model/window-graphs.js';
import type { KeysPlace } from '../model/dit.js';
import type { StateType } from '../model/state-graphs.js';
import { TurbocastError } from '../protocol/errors.js';
import { closeState, type DeviceBackend, type DeviceSession, type Feeds, isResident, type ResidentTensor, type Tensor } from './backend.js';
import type { KvChunk, KvShape, LayerKv, LayerState, StreamKv } from './kv-cache.js';

/** A device on which tensors can be written in place. */
export type PlacingDevice = DeviceBackend & Required<Pick<DeviceBackend, 'view'>>;

export const canPlace = (device: DeviceBackend): device is PlacingDevice => device.view !== undefined;

/** Where outputs can be written over inputs, keys and values of streams are. */
export const keysPlace = (device: DeviceBackend | undefined): KeysPlace => (device !== undefined && canPlace(device) ? 'in place' : 'handed over');

const int64 = (values: readonly number[], dims: readonly number[]): Tensor => ({ type: 'int64', dims, data: BigInt64Array.from(values, BigInt) });

/** Where the frames of a chunk go, as a forward is told. */
export const slotsFeed = (slots: readonly number[]): Tensor => int64(slots, [slots.length, 1]);

/** What all windows of a model have in common, and the graphs that look at them. Closed by whoever made it. */
export class Windows {
	readonly device: PlacingDevice;
	readonly type: StateType;
	/** Latent frames of a chunk. */
	readonly frames: number;
	readonly #sessions = new Map<string, Promise<DeviceSession>>();

	constructor(device: PlacingDevice, type: StateType, frames: number) {
		this.device = device;
		this.type = type;
		this.frames = frames;
	}

	shapeOf({ layers, heads, headDim, tokensPerLatent, capacityLatents }: Omit<KvShape, 'sinkLatents'>): WindowShape {
		return { layers, heads, headDim, tokensPerLatent, frames: this.frames, slots: capacityLatents + this.frames, type: this.type };
	}

	/** Throws `generation_invalid` unless all numbers of the frames at `at` are finite. */
	async check(shape: WindowShape, windows: readonly LayerState[], at: readonly number[]): Promise<void> {
		const session = await this.#use('check', shape, windowCheckGraph);
		const feeds = Object.fromEntries(windows.flatMap(({ k, v }, layer) => [[`k.${layer}`, k as ResidentTensor], [`v.${layer}`, v as ResidentTensor]] as const));
		const { magnitudes } = await session.run({ ...feeds, at: int64(at, [at.length]) });
		if (!(magnitudes?.data as Float32Array).every(Number.isFinite)) {
			throw new TurbocastError('generation_invalid', 'The network produced numbers that are not a picture (keys and values); try again, or change the prompt or the seed.');
		}
	}

	/** The frames at `at`, [heads, frames * tokensPerLatent, head_dim]. */
	async read(shape: WindowShape, window: ResidentTensor, at: readonly number[]): Promise<Float32Array> {
		const session = await this.#use('read', shape, windowReadGraph);
		return (await session.run({ window, at: int64(at, [at.length]) }))['kept']?.data as Float32Array;
	}

	async close(): Promise<void> {
		for (const session of this.#sessions.values()) {
			// One that could not be loaded has nothing to close.
			await session.then(({ close }) => close(), () => undefined);
		}
		this.#sessions.clear();
	}

	#use(name: string, shape: WindowShape, graphOf: (shape: WindowShape) => ReturnType<typeof windowReadGraph>): Promise<DeviceSession> {
		const key = JSON.stringify([name, shape]);
		const session = this.#sessions.get(key) ?? this.device.load(graphOf(shape));
		this.#sessions.set(key, session);
		return session;
	}
}

/** Keys or values of a chunk as they lie in a window: read by frames, freed with the window. */
export class PlacedFrames implements ResidentTensor {
	readonly isResident = true;
	readonly type: StateType;
	/** As they are read, [heads, frames * tokensPerLatent, head_dim]. */
	readonly dims: readonly number[];
	readonly read: () => Promise<Float32Array>;

	constructor(windows: Windows, shape: WindowShape, window: ResidentTensor, at: readonly number[]) {
		this.type = shape.type;
		this.dims = [shape.heads, shape.frames * shape.tokensPerLatent, shape.headDim];
		this.read = () => windows.read(shape, window, at);
	}

	/** They are the window's. */
	close(): void {}
}

/** Arrays [heads, frames * tokensPerLatent, head_dim] put frame by frame into one as a window has it, [slots, tokensPerLatent, heads * head_dim]. */
const intoWindow = ({ heads, headDim, tokensPerLatent }: Omit<WindowShape, 'slots'>, to: Float32Array, from: Float32Array, frames: number, slotOf: (frame: number) => number | undefined): void => {
	for (let frame = 0; frame < frames; frame++) {
		const slot = slotOf(frame);
		for (let token = 0; slot !== undefined && token < tokensPerLatent; token++) {
			for (let head = 0; head < heads; head++) {
				const start = ((head * frames + frame) * tokensPerLatent + token) * headDim;
				to.set(from.subarray(start, start + headDim), ((slot * tokensPerLatent + token) * heads + head) * headDim);
			}
		}
	}
};

export class WindowKv implements StreamKv {
	readonly #kv: KvShape;
	readonly #shape: WindowShape;
	readonly #windows: Windows;
	readonly #sink: number;
	/** Whole, made when they are first needed. */
	#whole: readonly LayerState[] = [];
	/** What is there, and room for a chunk; the same tensors once that is all of them. */
	#seen: { readonly slots: number; readonly layers: readonly LayerState[] } = { slots: 0, layers: [] };
	/** Latent frames appended since the beginning. */
	#taken = 0;
	/** Numbers that are not on the device yet. */
	#restored: readonly LayerKv[] | undefined;

	constructor(shape: KvShape, windows: Windows) {
		this.#kv = shape;
		this.#shape = windows.shapeOf(shape);
		this.#windows = windows;
		this.#sink = Math.min(shape.sinkLatents, shape.capacityLatents);
	}

	get #held(): number {
		return Math.min(this.#kv.capacityLatents, this.#taken);
	}

	get past(): number {
		return this.#held * this.#kv.tokensPerLatent;
	}

	get layers(): readonly LayerState[] {
		return this.#seen.layers;
	}

	get slots(): readonly number[] {
		return Array.from({ length: this.#shape.frames }, (_, frame) => this.#slotOf(this.#taken + frame));
	}

	async prepare(): Promise<void> {
		const { device } = this.#windows;
		if (this.#whole.length === 0) {
			const dims = windowDims(this.#shape);
			const empty = new Float32Array(dims[0] * dims[1] * dims[2]);
			const made: LayerState[] = [];
			try {
				for (let layer = 0; layer < this.#shape.layers; layer++) {
					const { k = empty, v = empty } = this.#restored?.[layer] ?? {};
					const keys = await device.upload(k, dims, this.#shape.type);
					made.push({ k: keys, v: new Float32Array(0) });
					made[layer] = { k: keys, v: await device.upload(v, dims, this.#shape.type) };
				}
			} catch (error) {
				closeState(made.flatMap(({ k, v }) => [k, v]));
				throw error;
			}
			this.#whole = made;
			this.#restored = undefined;
		}
		const slots = this.#held + this.#shape.frames;
		if (this.#seen.slots !== slots) {
			this.#closeSeen();
			const [, tokens, width] = windowDims(this.#shape);
			const view = (tensor: LayerState['k']): ResidentTensor => device.view(tensor as ResidentTensor, [slots, tokens, width]);
			this.#seen = { slots, layers: slots === this.#shape.slots ? this.#whole : this.#whole.map(({ k, v }) => ({ k: view(k), v: view(v) })) };
		}
	}

	/** What the last forward has written, for handing over. */
	placed(): readonly LayerState[] {
		const at = this.slots;
		const frames = (window: LayerState['k']): PlacedFrames => new PlacedFrames(this.#windows, this.#shape, window as ResidentTensor, at);
		return this.#whole.map(({ k, v }) => ({ k: frames(k), v: frames(v) }));
	}

	async append(_: readonly LayerState[], latents: number): Promise<void> {
		await this.#windows.check(this.#shape, this.#whole, this.slots);
		this.#taken += latents;
	}

	restoreChunks(chunks: readonly KvChunk[], latentsPerChunk: number): void {
		const { layers, heads, headDim, tokensPerLatent, capacityLatents } = this.#kv;
		if (chunks.some((chunk) => chunk.layers.length !== layers || chunk.layers.some(({ k, v }) => [k, v].some(({ length }) => length !== heads * latentsPerChunk * tokensPerLatent * headDim)))) {
			throw new Error('KV cache: the snapshot was taken of another model or size.');
		}
		this.close();
		this.#taken = ((chunks.at(-1)?.ordinal ?? -1) + 1) * latentsPerChunk;
		const from = Math.max(this.#sink, this.#taken - (capacityLatents - this.#sink));
		const size = windowDims(this.#shape).reduce((product, length) => product * length, 1);
		this.#restored = Array.from({ length: layers }, (_, layer) => {
			const restored = { k: new Float32Array(size), v: new Float32Array(size) };
			for (const { ordinal, layers: states } of chunks) {
				const slotOf = (frame: number): number | undefined => {
					const latent = ordinal * latentsPerChunk + frame;
					return latent < this.#sink || latent >= from ? this.#slotOf(latent) : undefined;
				};
				for (const kind of ['k', 'v'] as const) {
					intoWindow(this.#shape, restored[kind], states[layer]?.[kind] ?? new Float32Array(0), latentsPerChunk, slotOf);
				}
			}
			return restored;
		});
	}

	close(): void {
		this.#closeSeen();
		closeState(this.#whole.flatMap(({ k, v }) => [k, v]));
		this.#whole = [];
		this.#restored = undefined;
		this.#taken = 0;
	}

	#closeSeen(): void {
		if (this.#seen.layers !== this.#whole) {
			closeState(this.#seen.layers.flatMap(({ k, v }) => [k, v]));
		}
		this.#seen = { slots: 0, layers: [] };
	}

	/** Those of the sink have places of their own; all others take turns. */
	#slotOf(latent: number): number {
		return latent < this.#sink ? latent : this.#sink + ((latent - this.#sink) % (this.#shape.slots - this.#sink));
	}
}

/** A past as `StepInputs` has it without a window, [heads, past, head_dim] each: put into one for a forward. Closed by whoever asked for it. */
export const placePast = async (windows: Windows, shape: Omit<KvShape, 'capacityLatents' | 'sinkLatents'>, past: readonly LayerKv[], latents: number): Promise<WindowKv> => {
	const kv = new WindowKv({ ...shape, capacityLatents: latents, sinkLatents: 0 }, windows);
	if (latents > 0) {
		kv.restoreChunks([{ ordinal: 0, layers: past }], latents);
	}
	await kv.prepare();
	return kv;
};

/** Inputs and outputs of a forward that lie in a window. */
export const windowFeeds = (layers: readonly LayerState[], slots: readonly number[]): { readonly feeds: Feeds; readonly into: { readonly [name: string]: ResidentTensor } } => {
	const named = (kind: 'window' | 'held') => layers.flatMap(({ k, v }, layer) => [[`${kind}_k.${layer}`, k], [`${kind}_v.${layer}`, v]] as const)
		.map(([name, tensor]): [string, ResidentTensor] => {
			if (!isResident(tensor)) {
				throw new TurbocastError('internal', `${name} is not on the device.`);
			}
			return [name, tensor];
		});
	return { feeds: { ...Object.fromEntries(named('window')), slots: slotsFeed(slots) }, into: Object.fromEntries(named('held')) };
};
