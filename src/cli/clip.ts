/** A clip of fixed length: drives an engine chunk by chunk, changing the prompt and the controls at media times. */
import type { RawFrame } from '../base/frame.js';
import type { Engine } from '../engine/engine.js';
import { framesFromStart, type ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';

export type PromptChange = { readonly atMs: number; readonly prompt: string };
export type ControlChange = { readonly atMs: number; readonly name: string; readonly value: number };

export type ClipOptions = {
	readonly prompt: string;
	/** Each applies at the first chunk that starts at or after its time. */
	readonly changes: readonly PromptChange[];
	/** Each applies from the first chunk that starts at or after its time, until the same control is set again. */
	readonly actions: readonly ControlChange[];
	/** Frames to write; the last chunk is cut. */
	readonly frames: number;
	readonly steps: number;
	readonly seed: number;
	readonly width: number;
	readonly height: number;
	/** RGB bytes [height, width, 3], of models that begin with a picture. */
	readonly image?: Uint8Array | undefined;
};

/** The latent frames of a clip of at least that many frames, of models that make whole clips. */
export const clipLatents = (model: ModelSpec, frames: number): number => {
	let latents = 1 + Math.floor((frames - 1) / model.vae.frames_per_latent);
	while (framesFromStart(model, latents) < frames) {
		latents += 1;
	}
	return latents;
};

/** The prompt of a chunk that starts at `startMs`: the latest change at or before it, in order of time, later given wins ties. */
export const promptAt = (options: Pick<ClipOptions, 'prompt' | 'changes'>, startMs: number): string =>
	options.changes
		.filter((change) => change.atMs <= startMs)
		.reduce<PromptChange>((latest, change) => (change.atMs >= latest.atMs ? change : latest), { atMs: Number.NEGATIVE_INFINITY, prompt: options.prompt })
		.prompt;

/** The controls of a chunk that starts at `startMs`: of each, the latest value; later given wins ties. */
export const controlsAt = (actions: readonly ControlChange[], startMs: number): { readonly [name: string]: number } =>
	Object.fromEntries(actions.filter((action) => action.atMs <= startMs).sort((a, b) => a.atMs - b.atMs).map(({ name, value }) => [name, value]));

/**
 * Yields exactly `options.frames` frames. The same options give the same bytes on one machine. Throws what the engine throws;
 * aborting `signal` ends generation within one denoising step.
 */
export async function* renderClip(engine: Engine, options: ClipOptions, signal: AbortSignal): AsyncGenerator<RawFrame, void> {
	const { model } = engine;
	const latents = model.clip === undefined ? undefined : clipLatents(model, options.frames);
	const perChunk = latents ?? model.stream.latents_per_chunk;
	const stream = await engine.openStream({ seed: options.seed, width: options.width, height: options.height, latents, image: options.image });
	let [written, chunks] = [0, 0];
	try {
		while (written < options.frames) {
			const chunkStartMs = (written * 1000) / model.fps;
			const run = stream.generate({ prompt: promptAt(options, chunkStartMs), steps: options.steps, controls: controlsAt(options.actions, chunkStartMs) }, signal);
			for await (const frame of run.frames) {
				if (written < options.frames) {
					written += 1;
					yield frame;
				}
			}
			await run.timings;
			chunks += 1;
			const expected = framesFromStart(model, chunks * perChunk);
			if (written < options.frames && written !== expected) {
				throw new TurbocastError('internal', `Chunk ${chunks} ended after ${written} frames of the stream instead of ${expected}.`);
			}
		}
	} finally {
		await stream.close();
	}
}
