/**
 * Whole clips, TurboDiffusion's way: a chunk is a clip, made in one to four forwards over all of its frames, and nothing is remembered from
 * one to the next. Its frames leave one latent after the other, as the decoder, which is causal, makes them.
 */
import { TurbocastError } from '../protocol/errors.js';
import { closeState, type StateTensor } from './backend.js';
import { denoiseClip } from './clip-sampler.js';
import { controlVector } from './control-vector.js';
import { breathe, type EmitFrames, type GeneratedChunk, stopwatch } from './generator.js';
import type { Networks } from './networks.js';
import type { PromptEncoder } from './prompt-encoder.js';
import type { ChunkInputs } from './protocol.js';
import type { StreamSnapshot } from './stream-state.js';
import { rcmTimes } from './rcm.js';

export type ClipGeneratorOptions = {
	readonly seed: number;
	readonly firstChunkIndex: number;
	/** Latent frames of a clip. */
	readonly latents: number;
	/** RGB bytes [height, width, 3]: the picture that every clip begins with; only of models that want one. */
	readonly image?: Uint8Array | undefined;
};

export class ClipGenerator {
	readonly #networks: Networks;
	readonly #prompts: PromptEncoder;
	readonly #nowMs: () => number;
	readonly #options: ClipGeneratorOptions;
	readonly #seed: number;
	#nextChunkIndex: number;
	#imageLatents: Float32Array | undefined;

	/** Throws `invalid_request` when a picture is missing, or given to a model that takes none. */
	constructor(networks: Networks, prompts: PromptEncoder, nowMs: () => number, options: ClipGeneratorOptions) {
		this.#networks = networks;
		this.#prompts = prompts;
		this.#nowMs = nowMs;
		this.#options = options;
		this.#seed = options.seed;
		this.#nextChunkIndex = options.firstChunkIndex;
	}

	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	/** As `Generator.generateChunk`. The noise is named by (seed, clip, step), so that a clip comes out the same whenever it is made. */
	async generateChunk(inputs: ChunkInputs, emit: EmitFrames, signal: AbortSignal): Promise<GeneratedChunk> {
		const networks = this.#networks;
		const { spec } = networks;
		const { clip } = spec;
		if (clip === undefined) {
			throw new TurbocastError('internal', `The model ${spec.name} makes no clips.`);
		}
		const checkpoint = async (): Promise<void> => {
			await breathe();
			signal.throwIfAborted();
		};
		const lap = stopwatch(this.#nowMs);
		controlVector(spec, inputs.controls);
		// Refused before anything is encoded.
		rcmTimes(clip.sigma_max, inputs.steps);
		await checkpoint();
		const prompt = await this.#prompts.encode(inputs.prompt);
		await checkpoint();
		const image = await this.#encodedImage();
		const textMs = lap();

		/** What is closed when the clip is made, or given up. */
		const made: StateTensor[] = [];
		let denoiseMs = 0;
		try {
			const { latent, frames } = await denoiseClip({
				networks, clip, prompt, image, seed: inputs.seed ?? this.#seed, clipIndex: this.#nextChunkIndex, latents: this.#options.latents, checkpoint, signal,
			}, inputs.steps);
			made.push(latent, ...frames);
			denoiseMs = lap();

			let memory = networks.emptyMemory();
			let emitted = 0;
			for (const frame of frames) {
				await checkpoint();
				const decoded = await networks.decodeLatent(frame, memory);
				closeState([frame, ...memory]);
				memory = decoded.memory;
				made.push(...memory);
				emit(emitted, decoded.frames);
				emitted += decoded.frames.length;
			}
		} finally {
			closeState(made);
		}
		// Heard before the clip counts: a cancellation that came during the last decoding still does.
		await checkpoint();
		this.#nextChunkIndex += 1;
		return {
			timings: { textMs, recacheMs: 0, denoiseMs, decodeMs: lap(), cleanMs: 0 },
			checkpoint: { nextChunkIndex: this.#nextChunkIndex, isWhole: true, chunks: [], memory: [] },
		};
	}

	/** Nothing but the count of clips: what is remembered of a clip is its seed and its inputs. */
	restore({ nextChunkIndex }: StreamSnapshot): void {
		this.#nextChunkIndex = nextChunkIndex;
	}

	async #encodedImage(): Promise<Float32Array | undefined> {
		const { encodeImage, spec } = this.#networks;
		const { image } = this.#options;
		if ((encodeImage === undefined) !== (image === undefined)) {
			throw new TurbocastError('invalid_request', image === undefined
				? `The model ${spec.name} makes a picture move; give it one (generate --image FILE).`
				: `The model ${spec.name} makes videos of text alone; leave the picture out.`, { param: 'image' });
		}
		if (encodeImage !== undefined && image !== undefined) {
			this.#imageLatents ??= await encodeImage(image);
		}
		return this.#imageLatents;
	}

	/** Nothing of a clip outlives it. */
	close(): void {}
}
