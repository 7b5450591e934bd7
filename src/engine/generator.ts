/** One stream: its state, which is data, and the making of its next chunk. */
import type { ChunkInputs, ChunkTimings } from './protocol.js';
import { controlVector } from './control-vector.js';
import { KvCache, type KvSnapshot } from './kv-cache.js';
import type { DecoderMemory, Networks } from './networks.js';
import type { PromptEncoder } from './prompt-encoder.js';
import { cleanPass, denoiseChunk, latentFrame, type ChunkContext } from './sampler.js';

/** Everything that the future of a stream depends on besides its inputs (structured-clone safe). */
export type StreamSnapshot = {
	readonly seed: number;
	readonly nextChunkIndex: number;
	readonly kv: KvSnapshot;
	readonly memory: DecoderMemory;
};

/** Takes the pictures of one latent frame as soon as they are decoded; `firstIndexInChunk` is that of the first. */
export type EmitFrames = (firstIndexInChunk: number, frames: readonly Uint8Array[]) => void;

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

export class Generator {
	readonly #networks: Networks;
	readonly #prompts: PromptEncoder;
	readonly #nowMs: () => number;
	readonly #kv: KvCache;
	#seed: number;
	#nextChunkIndex: number;
	#memory: DecoderMemory;

	constructor(networks: Networks, prompts: PromptEncoder, nowMs: () => number, options: { readonly seed: number; readonly firstChunkIndex: number }) {
		const { dit, stream } = networks.spec;
		this.#networks = networks;
		this.#prompts = prompts;
		this.#nowMs = nowMs;
		this.#seed = options.seed;
		this.#nextChunkIndex = options.firstChunkIndex;
		this.#memory = networks.emptyMemory();
		this.#kv = new KvCache({
			layers: dit.num_layers,
			heads: dit.num_heads,
			headDim: networks.headDim,
			tokensPerLatent: networks.tokensPerLatent,
			capacityLatents: stream.window_latents - stream.latents_per_chunk,
			sinkLatents: stream.sink_latents,
		});
	}

	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	/**
	 * Makes the next chunk and emits its frames latent by latent, before the clean pass: the first leave as early as they can.
	 * The stream moves on only when all of it has succeeded. Throws the reason of `signal` within one run of a network,
	 * `generation_invalid`, or `invalid_request`; the stream is as before then, and the same chunk may be asked for again.
	 */
	async generateChunk(inputs: ChunkInputs, emit: EmitFrames, signal: AbortSignal): Promise<Omit<ChunkTimings, 'queueMs'>> {
		const networks = this.#networks;
		const { stream, vae } = networks.spec;
		const checkpoint = async (): Promise<void> => {
			await breathe();
			signal.throwIfAborted();
		};
		const lap = stopwatch(this.#nowMs);

		const control = controlVector(networks.spec, inputs.controls);
		await checkpoint();
		const prompt = await this.#prompts.encode(inputs.prompt);
		const textMs = lap();

		const context: ChunkContext = {
			networks, past: this.#kv, prompt, control, seed: this.#seed, chunkIndex: this.#nextChunkIndex, checkpoint,
		};
		const chunk = await denoiseChunk(context, inputs.steps);
		const denoiseMs = lap();

		let memory = this.#memory;
		let emitted = 0;
		for (let index = 0; index < stream.latents_per_chunk; index++) {
			await checkpoint();
			const decoded = await networks.decodeLatent(latentFrame(chunk, vae.latent_channels, stream.latents_per_chunk, index), memory);
			memory = decoded.memory;
			emit(emitted, decoded.frames);
			emitted += decoded.frames.length;
		}
		const decodeMs = lap();

		const keysAndValues = await cleanPass(context, chunk);
		// Heard before the chunk becomes history: a cancellation that came during the clean pass still counts.
		await checkpoint();
		this.#kv.append(keysAndValues, stream.latents_per_chunk);
		this.#memory = memory;
		this.#nextChunkIndex += 1;
		return { textMs, denoiseMs, decodeMs, cleanMs: lap() };
	}

	snapshot(): StreamSnapshot {
		return {
			seed: this.#seed,
			nextChunkIndex: this.#nextChunkIndex,
			kv: this.#kv.snapshot(),
			memory: this.#memory.map((array) => array.slice()),
		};
	}

	/** Goes on where the snapshot was taken, bit for bit. It must come from the same model at the same size. */
	restore(snapshot: StreamSnapshot): void {
		this.#kv.restore(snapshot.kv);
		this.#seed = snapshot.seed;
		this.#nextChunkIndex = snapshot.nextChunkIndex;
		this.#memory = snapshot.memory.map((array) => array.slice());
	}
}
