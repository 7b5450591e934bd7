/** One stream: its state, which is data, and the making of its next chunk. */
import type { ChunkInputs, ChunkTimings } from './protocol.js';
import { controlVector } from './control-vector.js';
import { closeState, type StateTensor } from './backend.js';
import { KvCache, type LayerKv, type LayerState, type StreamKv } from './kv-cache.js';
import type { DecoderMemory, Networks } from './networks.js';
import { kvShapeOf } from './network-sizes.js';
import type { PromptEncoder } from './prompt-encoder.js';
import { cleanPass, denoiseChunk, type ChunkContext } from './sampler.js';
import { inWindow, MAX_CHECKPOINT_KV_BYTES, type Checkpoint, type ChunkMemory, type StreamSnapshot } from './stream-state.js';

/** Chunks of which one waits for its steps, on a device that goes on by itself: a little, and often enough for a mean over ten. */
const MEASURED_EVERY = 16;

/** Takes the pictures of one latent frame as soon as they are decoded; `firstIndexInChunk` is that of the first. */
export type EmitFrames = (firstIndexInChunk: number, frames: readonly Uint8Array[]) => void;

/** `checkpoint` only if it was asked for. */
export type GeneratedChunk = { readonly timings: Omit<ChunkTimings, 'queueMs'>; readonly checkpoint?: Checkpoint };

/**
 * Gives the event loop a full turn, so that a message which came during the last run of a network is heard before the next:
 * the tensor library blocks this thread for the whole of a run. An immediate fires after the poll phase, where messages arrive.
 */
export const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Sums the time of the phases of a chunk. */
export const stopwatch = (nowMs: () => number): (() => number) => {
	let lapMs = nowMs();
	return () => {
		const startMs = lapMs;
		lapMs = nowMs();
		return lapMs - startMs;
	};
};

const elements = (tensor: StateTensor): number => ('dims' in tensor ? tensor.dims.reduce((product, size) => product * size, 1) : tensor.length);

/** Keys and values as they are handed over: in float32, and not at all if they are too large. */
const readLayers = async ({ resident }: Networks, layers: readonly LayerState[]): Promise<readonly LayerKv[] | undefined> => {
	const bytes = layers.reduce((sum, { k, v }) => sum + Float32Array.BYTES_PER_ELEMENT * (elements(k) + elements(v)), 0);
	if (bytes > MAX_CHECKPOINT_KV_BYTES) {
		return undefined;
	}
	if (resident === undefined) {
		return layers as readonly LayerKv[];
	}
	const read: LayerKv[] = [];
	for (const { k, v } of layers) {
		read.push({ k: await resident.read(k), v: await resident.read(v) });
	}
	return read;
};

const readTensor = async ({ resident }: Networks, tensor: StateTensor): Promise<Float32Array> => (resident === undefined ? tensor as Float32Array : resident.read(tensor));

const readMemory = async (networks: Networks, memory: DecoderMemory): Promise<readonly Float32Array[]> => {
	const read: Float32Array[] = [];
	for (const tensor of memory) {
		read.push(await readTensor(networks, tensor));
	}
	return read;
};

/** A finished chunk as the stream remembers it, besides keys and values, which the cache holds. */
type PastChunk = Omit<ChunkMemory, 'latent' | 'layers'> & { readonly latent: StateTensor };

/** What the next chunk sees of those before. */
type Past = {
	readonly kv: StreamKv;
	readonly chunks: readonly PastChunk[];
	readonly memory: DecoderMemory;
	/** Chunks whose keys and values were just made again, for handing over; `undefined` when the past is as it was. */
	readonly rebuilt: readonly ChunkMemory[] | undefined;
};

export class Generator {
	readonly #networks: Networks;
	readonly #prompts: Pick<PromptEncoder, 'encode'>;
	readonly #nowMs: () => number;
	#seed: number;
	#nextChunkIndex: number;
	#past: Past;
	/** What the steps of a chunk took when that was measured last. */
	#measured: { readonly steps: number; readonly denoiseMs: number } | undefined;
	/** Restored without keys and values: the next chunk makes them first. */
	#mustRebuild = false;

	constructor(networks: Networks, prompts: Pick<PromptEncoder, 'encode'>, nowMs: () => number, options: { readonly seed: number; readonly firstChunkIndex: number }) {
		this.#networks = networks;
		this.#prompts = prompts;
		this.#nowMs = nowMs;
		this.#seed = options.seed;
		this.#nextChunkIndex = options.firstChunkIndex;
		this.#past = this.#nothing();
	}

	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	/**
	 * Makes the next chunk and emits its frames latent by latent, before the clean pass: the first leave as early as they can.
	 * The stream moves on only when all of it has succeeded. Throws the reason of `signal` within one run of a network,
	 * `generation_invalid`, or `invalid_request`; the stream is as before then, and the same chunk may be asked for again.
	 */
	async generateChunk(inputs: ChunkInputs, emit: EmitFrames, signal: AbortSignal, handsOver = true): Promise<GeneratedChunk> {
		const networks = this.#networks;
		const { stream } = networks.spec;
		const checkpoint = async (): Promise<void> => {
			await breathe();
			signal.throwIfAborted();
		};
		const lap = stopwatch(this.#nowMs);

		const control = controlVector(networks.spec, inputs.controls);
		await checkpoint();
		const prompt = await this.#prompts.encode(inputs.prompt);
		const textMs = lap();

		const common = { networks, prompt, seed: inputs.seed ?? this.#seed, checkpoint, signal };
		const past = await this.#pastFor(inputs.past ?? 'keep', common, handsOver);
		const recacheMs = lap();

		let { memory } = past;
		/** What is closed if the chunk does not become history. */
		let made: readonly StateTensor[] = [];
		try {
			const chunkIndex = this.#nextChunkIndex;
			const context: ChunkContext = { ...common, past: past.kv, control, chunkIndex };
			const { latent, frames } = await denoiseChunk(context, inputs.steps);
			made = [latent, ...frames];
			const isMeasured = await this.#settleNowAndThen(inputs.steps);
			const stepsMs = lap();

			let emitted = 0;
			for (const frame of frames) {
				await checkpoint();
				const decoded = await networks.decodeLatent(frame, memory);
				closeState([frame]);
				this.#closeMemory(memory);
				memory = decoded.memory;
				emit(emitted, decoded.frames);
				emitted += decoded.frames.length;
			}
			const { denoiseMs, decodeMs } = this.#phases(inputs.steps, isMeasured, stepsMs, lap());

			const handed = await this.#undisturbed(async () => {
				const layers = await cleanPass(context, latent);
				const read = handsOver ? { latent: await readTensor(networks, latent), memory: await readMemory(networks, memory), layers: await readLayers(networks, layers) } : undefined;
				// Heard before the chunk becomes history: a cancellation that came during the clean pass still counts.
				await checkpoint();
				await past.kv.append(layers, stream.latents_per_chunk);
				return read;
			});
			const chunk = { chunkIndex, ordinal: (past.chunks.at(-1)?.ordinal ?? -1) + 1, control };
			this.#enter({ kv: past.kv, chunks: inWindow(networks.spec, [...past.chunks, { ...chunk, latent }]), memory, rebuilt: undefined }, latent);
			this.#nextChunkIndex = chunkIndex + 1;
			return {
				timings: { textMs, recacheMs, denoiseMs, decodeMs, cleanMs: lap() },
				...(handed === undefined ? {} : {
					checkpoint: {
						nextChunkIndex: this.#nextChunkIndex, isWhole: past.rebuilt !== undefined, memory: handed.memory,
						chunks: [...(past.rebuilt ?? []), { ...chunk, latent: handed.latent, ...(handed.layers === undefined ? {} : { layers: handed.layers }) }],
					},
				}),
			};
		} catch (error) {
			closeState(made);
			this.#closeMemory(memory);
			if (past.kv !== this.#past.kv) {
				past.kv.close();
			}
			throw error;
		}
	}

	/**
	 * Goes on where the snapshot was taken: bit for bit where it has keys and values, otherwise from such as the latents give. It
	 * must come from the same model at the same size.
	 */
	restore({ nextChunkIndex, chunks, memory }: StreamSnapshot): void {
		const past = this.#nothing();
		this.close();
		const layers = chunks.flatMap((chunk) => (chunk.layers === undefined ? [] : [{ ordinal: chunk.ordinal, layers: chunk.layers }]));
		this.#mustRebuild = layers.length < chunks.length;
		if (!this.#mustRebuild) {
			past.kv.restoreChunks(layers, this.#networks.spec.stream.latents_per_chunk);
		}
		// eslint-disable-next-line @typescript-eslint/no-unused-vars
		this.#past = { ...past, chunks: chunks.map(({ layers: _, ...rest }) => rest), memory };
		this.#nextChunkIndex = nextChunkIndex;
	}

	/** Frees what lies on a device; the stream is not used again. Idempotent. */
	close(): void {
		const { kv, chunks, memory } = this.#past;
		kv.close();
		closeState([...chunks.map(({ latent }) => latent), ...memory]);
	}

	/** The stream has moved on: what only the past before had is freed, and the newest latents where no window holds them. */
	#enter(past: Past, newest: StateTensor): void {
		const before = this.#past;
		this.#past = past;
		this.#mustRebuild = false;
		if (before.kv !== past.kv) {
			before.kv.close();
		}
		const kept = new Set<StateTensor>([...past.memory, ...past.chunks.map(({ latent }) => latent)]);
		closeState([...before.memory, ...before.chunks.map(({ latent }) => latent), newest].filter((tensor) => !kept.has(tensor)));
	}

	/** Frees the memory of a chunk that is being made, unless it is that of the stream. */
	#closeMemory(memory: DecoderMemory): void {
		if (memory !== this.#past.memory) {
			closeState(memory);
		}
	}

	#nothing(): Past {
		const shape = kvShapeOf(this.#networks.spec, this.#networks.tokensPerLatent);
		const kv = this.#networks.resident?.createKv(shape) ?? new KvCache(shape);
		return { kv, chunks: [], memory: this.#networks.emptyMemory(), rebuilt: undefined };
	}

	/**
	 * A device that is given work and goes on by itself has not taken its steps when it was given them. Waiting for it would leave it idle for a moment, so one chunk of
	 * some waits, and each with another number of steps: what they take decides who is let in. Returns whether this one's time is that of its steps.
	 */
	async #settleNowAndThen(steps: number): Promise<boolean> {
		const settle = this.#networks.resident?.settle;
		if (settle === undefined) {
			return true;
		}
		const isMeasured = this.#measured?.steps !== steps || this.#nextChunkIndex % MEASURED_EVERY === 0;
		if (isMeasured) {
			await settle();
		}
		return isMeasured;
	}

	/** What went by until the steps were given, and until the last picture was there, as the time of steps and of decoding. */
	#phases(steps: number, isMeasured: boolean, stepsMs: number, restMs: number): { readonly denoiseMs: number; readonly decodeMs: number } {
		if (isMeasured) {
			this.#measured = { steps, denoiseMs: stepsMs };
		}
		const allMs = stepsMs + restMs;
		const denoiseMs = Math.min(this.#measured?.denoiseMs ?? stepsMs, allMs);
		return { denoiseMs, decodeMs: allMs - denoiseMs };
	}

	/** Keys and values that lie on a device are good until the next clean pass, which may be another stream's. */
	#undisturbed<Result>(work: () => Promise<Result>): Promise<Result> {
		const { resident, alone } = this.#networks;
		return resident === undefined || alone === undefined ? work() : alone(work);
	}

	/** A past of its own wherever it is not the one of before, so that a chunk that fails leaves that alone. */
	async #pastFor(mode: NonNullable<ChunkInputs['past']>, common: Omit<ChunkContext, 'past' | 'control' | 'chunkIndex'>, handsOver: boolean): Promise<Past> {
		if (mode === 'forget') {
			return { ...this.#nothing(), rebuilt: [] };
		}
		const isAsBefore = mode === 'keep' && !this.#mustRebuild;
		if (isAsBefore || this.#past.chunks.length === 0) {
			return this.#past;
		}
		// Chunk by chunk at the positions where they were, as when they were made: the same masks, the same order.
		const { kv } = this.#nothing();
		const rebuilt: ChunkMemory[] = [];
		try {
			for (const [ordinal, { chunkIndex, latent, control }] of this.#past.chunks.entries()) {
				await this.#undisturbed(async () => {
					const layers = await cleanPass({ ...common, past: kv, control, chunkIndex }, latent);
					if (handsOver) {
						const read = await readLayers(this.#networks, layers);
						rebuilt.push({ chunkIndex, ordinal, latent: await readTensor(this.#networks, latent), control, ...(read === undefined ? {} : { layers: read }) });
					}
					await kv.append(layers, this.#networks.spec.stream.latents_per_chunk);
				});
			}
		} catch (error) {
			kv.close();
			throw error;
		}
		return { kv, chunks: this.#past.chunks.map((chunk, ordinal) => ({ ...chunk, ordinal })), memory: this.#past.memory, rebuilt };
	}
}
