/** The published decoders and the encoder of pictures as graphs of a stream, and their memory as plain arrays. */
import { taehvGraph } from '../model/taehv.js';
import { wanDecoderGraph, wanEncoderGraph } from '../model/wan-vae.js';
import { framesPerLatent, spatialStride, type WanVaeSpec } from '../model/wan-vae-spec.js';
import type { Weights } from '../model/weights.js';
import type { ImportedVaeSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Feeds, Graph, GraphSession, Tensor } from './backend.js';
import { importedMemories } from './network-sizes.js';
import { encodeClipWith } from './video-codec.js';

const product = (dims: readonly number[]): number => dims.reduce((total, size) => total * size, 1);

export type JoinedDecoder = {
	/** Name of the graph that decodes the first latent of a stream, or the later ones; one of the decoders has a single graph. */
	readonly graphName: (position: 'first' | 'next') => string;
	/** Gives `frames` as I420 bytes, or in words and with the magnitude of the latent, as a device has them. */
	readonly graph: (weights: Weights, position: 'first' | 'next', output: 'bytes' | 'words') => Graph;
	/** What the graphs remember, in order: names and shapes. */
	readonly memories: ReturnType<typeof importedMemories>;
	/** On the host: what the graph of `session` wants of it, zeros where nothing was there yet. */
	readonly memoryFeeds: (session: GraphSession, memory: readonly Float32Array[]) => Feeds;
	/** Empty where the graph has left nothing. */
	readonly memoryOf: (results: { readonly [name: string]: Tensor }) => readonly Float32Array[];
};

export const joinedDecoder = (vae: ImportedVaeSpec, height: number, width: number): JoinedDecoder => {
	const memories = importedMemories(vae, width, height);
	return {
		memories,
		graphName: (position) => (vae.kind === 'taehv' ? 'next' : position),
		graph: (weights, position, output) => {
			const options = { weights, height, width, ...(output === 'words' ? { output: 'i420 words' as const, checksLatent: true } : { output: 'i420' as const }) };
			return vae.kind === 'taehv' ? taehvGraph(vae.network, options) : wanDecoderGraph(vae.network, { ...options, position });
		},
		memoryFeeds: (session, memory) => Object.fromEntries(memories.flatMap(({ name, dims }, index): [string, Tensor][] => {
			const known = memory[index];
			const data = known === undefined || known.length === 0 ? new Float32Array(product(dims)) : known;
			return session.inputs.some((input) => input.name === `memory.${name}`) ? [[`memory.${name}`, { type: 'float32', dims, data }]] : [];
		})),
		memoryOf: (results) => memories.map(({ name }) => (results[`memory_out.${name}`]?.data as Float32Array | undefined) ?? new Float32Array(0)),
	};
};

export type ImageLatentsOptions = {
	readonly network: WanVaeSpec;
	readonly load: (build: (weights: Weights) => Graph) => Promise<GraphSession>;
	/** [height, width, 3] */
	readonly rgb: Uint8Array;
	/** Latent frames. */
	readonly frames: number;
	readonly width: number;
	readonly height: number;
};

/** Latents [C, F, h, w] of a clip that begins with the picture and goes on in grey (0 in [-1, 1]), as Wan's image-to-video networks read them. */
export const imageLatents = async ({ network, load, rgb, frames, width, height }: ImageLatentsOptions): Promise<Float32Array> => {
	if (rgb.length !== 3 * width * height) {
		throw new TurbocastError('internal', `A picture of ${rgb.length} bytes is not ${width}x${height} RGB.`);
	}
	const pixels = width * height;
	const count = 1 + (frames - 1) * framesPerLatent(network);
	const data = new Float32Array(count * 3 * pixels);
	for (let pixel = 0; pixel < pixels; pixel++) {
		for (let colour = 0; colour < 3; colour++) {
			data[colour * pixels + pixel] = ((rgb[pixel * 3 + colour] ?? 0) / 255 - 0.5) / 0.5;
		}
	}
	const latents = await encodeClipWith(network, { count, height, width, data }, (position, size) =>
		load((weights) => wanEncoderGraph(network, { weights, ...size, position })));
	const plane = (height * width) / spatialStride(network) ** 2;
	const joined = new Float32Array(network.z_dim * frames * plane);
	for (const [frame, latent] of latents.entries()) {
		for (let channel = 0; channel < network.z_dim; channel++) {
			joined.set(latent.subarray(channel * plane, (channel + 1) * plane), (channel * frames + frame) * plane);
		}
	}
	return joined;
};
