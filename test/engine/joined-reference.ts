/** What a joined model must show, in plain loops over whole clips (engine/backends/reference*): no graph, no cache, no stream. */
import assert from 'node:assert/strict';
import { rgbToI420 } from '../../src/engine/backends/reference-decoder.js';
import { ReferenceDit, type ReferenceForward } from '../../src/engine/backends/reference-dit.js';
import type { Planes } from '../../src/engine/backends/reference-math.js';
import { decodeTaehvClip } from '../../src/engine/backends/reference-taehv.js';
import { encodeText } from '../../src/engine/backends/reference-text.js';
import { decodeWanClip, encodeWanClip } from '../../src/engine/backends/reference-wan-vae.js';
import { gaussianNoise } from '../../src/engine/noise.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import type { ModelSpec } from '../../src/model/spec.js';
import { Weights } from '../../src/model/weights.js';

export type ReferenceRequest = {
	readonly path: string; readonly prompt: string; readonly seed: number; readonly steps: number; readonly latents: number; readonly width: number; readonly height: number;
	/** RGB bytes [height, width, 3] */
	readonly image?: Uint8Array;
};

/** Latent frames [C, h, w] out of [C, F, h, w]. */
const framesOf = (x: ArrayLike<number>, channels: number, frames: number, height: number, width: number): Planes[] =>
	Array.from({ length: frames }, (_, frame) => ({
		channels, height, width, data: Float64Array.from({ length: channels * height * width }, (__, index) => {
			const [channel, pixel] = [Math.floor(index / (height * width)), index % (height * width)];
			return x[(channel * frames + frame) * height * width + pixel] ?? Number.NaN;
		}),
	}));

const unit = (frame: Planes): Planes => ({ ...frame, data: Float64Array.from(frame.data, (value) => Math.min(1, Math.max(0, (value + 1) / 2))) });

const open = async ({ path, prompt }: ReferenceRequest) => {
	const { spec, tokenizer, readWeights } = await openModelFolder(path);
	const { ids, mask } = tokenizer.tokenize(prompt);
	const context = encodeText(spec.text, new Weights(await readWeights('text')), ids, mask);
	const denoiser = async (which: 'dit' | 'dit_low') => {
		const dit = new ReferenceDit(spec.dit, new Weights(await readWeights(which)));
		return { dit, text: dit.text(context, [...mask]) };
	};
	const vae = new Weights(await readWeights('vae'));
	const decode = (latents: readonly Planes[]): Uint8Array[] => {
		if (spec.vae.kind === 'group-decoder') {
			throw new Error('not a joined model');
		}
		const frames = spec.vae.kind === 'taehv' ? decodeTaehvClip(spec.vae.network, vae, latents) : decodeWanClip(spec.vae.network, vae, latents).map(unit);
		return frames.map(rgbToI420);
	};
	return { spec, denoiser, decode, readWeights };
};

/** Times of the table in the description of rCM: sigma_max, then the angles 1.5, 1.4 and 1.0. */
const timesOf = (spec: ModelSpec, steps: number): number[] =>
	[...[Math.atan(spec.clip?.sigma_max ?? 0), 1.5, 1.4, 1].slice(0, steps).map((angle) => Math.sin(angle) / (Math.sin(angle) + Math.cos(angle))), 0];

/** The frames of a clip. */
export const referenceClip = async (request: ReferenceRequest): Promise<Uint8Array[]> => {
	const { spec, denoiser, decode, readWeights } = await open(request);
	const { seed, steps, latents, image } = request;
	const channels = spec.vae.latent_channels;
	const [height, width] = [request.height / 8, request.width / 8];
	const plane = latents * height * width;
	const times = timesOf(spec, steps);
	const condition = async (): Promise<Float64Array> => {
		if (image === undefined || spec.encoder === undefined) {
			return new Float64Array(0);
		}
		const blank = { channels: 3, height: request.height, width: request.width };
		const area = request.height * request.width;
		const first = { ...blank, data: Float64Array.from({ length: 3 * area }, (_, index) => ((image[(index % area) * 3 + Math.floor(index / area)] ?? 0) / 255) * 2 - 1) };
		const clip = [first, ...Array.from({ length: 4 * (latents - 1) }, () => ({ ...blank, data: new Float64Array(3 * area) }))];
		const encoded = encodeWanClip(spec.encoder, new Weights(await readWeights('encoder')), clip);
		// Four channels of the mask, then the picture's latents, each [F, h, w].
		const mask = Float64Array.from({ length: 4 * plane }, (_, index) => (index % plane < height * width ? 1 : 0));
		const picture = Array.from({ length: channels }, (_, channel) => encoded.flatMap((frame) => [...frame.data.slice(channel * height * width, (channel + 1) * height * width)])).flat();
		return Float64Array.from([...mask, ...picture]);
	};
	const y = await condition();
	const noise = (stepIndex: number): Float32Array => gaussianNoise({ seed, chunkIndex: 0, stepIndex }, channels * plane);
	let x = Float64Array.from(noise(0), (value) => value * (times[0] ?? 0));
	for (let step = 0; step < steps; step++) {
		const [time = 0, next = 0] = [times[step], times[step + 1]];
		const { dit, text } = await denoiser(spec.clip?.boundary !== undefined && time < spec.clip.boundary ? 'dit_low' : 'dit');
		const sparse = spec.clip?.attention;
		const call: ReferenceForward = {
			latent: Float64Array.from([...Float32Array.from(x), ...y]), frames: latents, height, width, timesteps: [[988, 932, 852, 608, 996].find((label) => Math.abs(label - 1000 * time) <= 2) ?? Number.NaN],
			control: new Float64Array(0), text, firstPosition: 0, pastK: [], pastV: [], ...(sparse === undefined ? {} : { sparse }),
		};
		const { velocity } = dit.forward(call);
		const fresh = noise(step + 1);
		x = x.map((value, index) => (1 - next) * (value - time * (velocity[index] ?? Number.NaN)) + next * (fresh[index] ?? Number.NaN));
	}
	return decode(framesOf(x, channels, latents, height, width));
};

/** The frames of the first chunks of a stream, as long as everything made is still seen: attention over one growing sequence. */
export const referenceStream = async (request: ReferenceRequest): Promise<Uint8Array[]> => {
	const { spec, denoiser, decode } = await open(request);
	const { dit, text } = await denoiser('dit');
	const perChunk = spec.stream.latents_per_chunk;
	const channels = spec.vae.latent_channels;
	const [height, width] = [request.height / 8, request.width / 8];
	const size = channels * perChunk * height * width;
	const schedule = spec.schedules[String(request.steps)] ?? [];
	const layers = spec.dit.num_layers;
	const { num_heads: heads } = spec.dit;
	let [pastK, pastV]: [Float32Array[], Float32Array[]] = [Array.from({ length: layers }, () => new Float32Array(0)), Array.from({ length: layers }, () => new Float32Array(0))];
	const all: Planes[] = [];
	/** [heads, tokens, d] behind [heads, past, d]. */
	const appended = (past: Float32Array, added: Float32Array): Float32Array =>
		Float32Array.from(Array.from({ length: heads }, (_, head) => [
			...past.subarray((head * past.length) / heads, ((head + 1) * past.length) / heads), ...added.subarray((head * added.length) / heads, ((head + 1) * added.length) / heads),
		]).flat());
	for (let chunkIndex = 0; chunkIndex < request.latents / perChunk; chunkIndex++) {
		const forward = (latent: Float32Array, timestep: number) => dit.forward({
			latent, frames: perChunk, height, width, timesteps: Array.from({ length: perChunk }, () => timestep), control: new Float64Array(0), text,
			firstPosition: chunkIndex * perChunk, pastK, pastV,
		});
		const noise = (stepIndex: number): Float32Array => gaussianNoise({ seed: request.seed, chunkIndex, stepIndex }, size);
		let x: Float32Array = noise(0);
		for (const [step, label] of schedule.entries()) {
			const [sigma, next] = [label / 1000, (schedule[step + 1] ?? 0) / 1000];
			const { velocity } = forward(x, label);
			const fresh = noise(step + 1);
			x = x.map((value, index) => (1 - next) * (value - sigma * (velocity[index] ?? Number.NaN)) + next * (fresh[index] ?? Number.NaN));
		}
		all.push(...framesOf(x, channels, perChunk, height, width));
		const { newK, newV } = forward(x, 0);
		pastK = pastK.map((past, layer) => appended(past, newK[layer] ?? new Float32Array(0)));
		pastV = pastV.map((past, layer) => appended(past, newV[layer] ?? new Float32Array(0)));
	}
	return decode(all);
};

/** Rounding to a byte may fall to either side. */
export const assertSameFrames = (frames: readonly Uint8Array[], expected: readonly Uint8Array[]): void => {
	assert.equal(frames.length, expected.length, 'number of frames');
	for (const [index, frame] of frames.entries()) {
		const differences = frame.map((value, at) => Math.abs(value - (expected[index]?.[at] ?? -1000)));
		assert.equal(frame.length, expected[index]?.length);
		assert.ok(Math.max(...differences) <= 1, `frame ${index} is off by ${Math.max(...differences)}`);
		assert.ok(differences.filter((value) => value > 0).length < 0.02 * frame.length, `frame ${index} is off in ${differences.filter((value) => value > 0).length} places`);
	}
	// A grey picture would agree with anything.
	const [first] = expected;
	assert.ok(first !== undefined && new Set(first).size > 20);
};
