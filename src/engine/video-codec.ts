/** Decoders and encoders of whole clips and streams: the graphs of one VAE with the memory that goes from one run to the next. */
import { taehvFramesPerLatent, taehvGraph, type TaehvSpec } from '../model/taehv.js';
import { wanDecoderGraph, wanEncoderGraph } from '../model/wan-vae.js';
import { framesPerLatent, latentSize, spatialStride, type WanVaeSpec } from '../model/wan-vae-spec.js';
import type { Weights } from '../model/weights.js';
import type { Backend, Feeds, GraphSession, Tensor } from './backend.js';

/** Frames [count, 3, H, W], row-major. */
export type VideoFrames = { readonly count: number; readonly height: number; readonly width: number; readonly data: Float32Array };

/** One stream at a time; not for concurrent use. Closed by whoever made it. */
export type VideoDecoder = {
	/** `latent` [C, h, w], in the order of the stream. */
	readonly decode: (latent: Float32Array) => Promise<VideoFrames>;
	/** The next latent is the first of another stream. */
	readonly restart: () => void;
	/** Idempotent. */
	readonly close: () => Promise<void>;
};

export type VideoCodecOptions<Spec> = {
	readonly backend: Backend;
	readonly spec: Spec;
	readonly weights: Weights;
	/** Size of a latent. */
	readonly height: number;
	readonly width: number;
};

/** The memory of a stream: what a run leaves under `memory_out.NAME` is fed to the next as `memory.NAME`; zeros before the first. */
class StreamMemory {
	#tensors = new Map<string, Tensor>();

	/** What `session` wants to remember. */
	feeds(session: GraphSession): Feeds {
		return Object.fromEntries(session.inputs.filter(({ name }) => name.startsWith('memory.')).map(({ name, dims }) => {
			const sizes = dims as readonly number[];
			return [name, this.#tensors.get(name) ?? { type: 'float32', dims: sizes, data: new Float32Array(sizes.reduce((product, size) => product * size, 1)) }];
		}));
	}

	keep(results: { readonly [name: string]: Tensor }): void {
		for (const [name, tensor] of Object.entries(results)) {
			if (name.startsWith('memory_out.')) {
				this.#tensors.set(name.replace('memory_out.', 'memory.'), tensor);
			}
		}
	}

	clear(): void {
		this.#tensors = new Map();
	}
}

const framesOf = ({ frames }: { [name: string]: Tensor }): VideoFrames => {
	const { dims: [count = 0, , height = 0, width = 0], data } = frames as Tensor;
	return { count, height, width, data: data as Float32Array };
};

/** Loads one graph after the other; what was loaded is closed when a later one cannot be. */
const loadPair = async <First, Next>(first: Promise<First & { close: () => Promise<void> }>, next: () => Promise<Next>) => {
	const loaded = await first;
	try {
		return [loaded, await next()] as const;
	} catch (error) {
		await loaded.close();
		throw error;
	}
};

/** The Wan VAE's decoder: 1 frame of the first latent, `framesPerLatent` of each later one, in [-1, 1], unclamped. */
export const createWanDecoder = async ({ backend, spec, ...rest }: VideoCodecOptions<WanVaeSpec>): Promise<VideoDecoder> => {
	const [first, next] = await loadPair(
		backend.load(wanDecoderGraph(spec, { ...rest, position: 'first' })), () => backend.load(wanDecoderGraph(spec, { ...rest, position: 'next' })),
	);
	const memory = new StreamMemory();
	let session = first;
	let closing: Promise<unknown> | undefined;
	return {
		decode: async (latent) => {
			const results = await session.run({ latent: { type: 'float32', dims: [spec.z_dim, rest.height, rest.width], data: latent }, ...memory.feeds(session) });
			memory.keep(results);
			session = next;
			return framesOf(results);
		},
		restart: () => {
			memory.clear();
			session = first;
		},
		close: async () => {
			await (closing ??= Promise.all([first.close(), next.close()]));
		},
	};
};

/** TAEHV: frames in [0, 1]; those at the start of a stream that show nothing yet are left out. */
export const createTaehvDecoder = async ({ backend, spec, ...rest }: VideoCodecOptions<TaehvSpec>): Promise<VideoDecoder> => {
	const session = await backend.load(taehvGraph(spec, rest));
	const memory = new StreamMemory();
	let dropped = 0;
	const toDrop = taehvFramesPerLatent(spec) - 1;
	let closing: Promise<void> | undefined;
	return {
		decode: async (latent) => {
			const results = await session.run({ latent: { type: 'float32', dims: [spec.latent_channels, rest.height, rest.width], data: latent }, ...memory.feeds(session) });
			memory.keep(results);
			const { count, data, height, width } = framesOf(results);
			const skipped = Math.min(count, toDrop - dropped);
			dropped += skipped;
			return { count: count - skipped, height, width, data: data.subarray(skipped * 3 * height * width) };
		},
		restart: () => {
			memory.clear();
			dropped = 0;
		},
		close: () => (closing ??= session.close()),
	};
};

/**
 * Encodes a clip [frames, 3, H, W] in [-1, 1]: one latent [z_dim, h, w] each for the first frame and for every `framesPerLatent` after it.
 * Throws `invalid_request` for a size that the VAE cannot make.
 */
export const encodeClip = async (backend: Backend, spec: WanVaeSpec, weights: Weights, clip: VideoFrames): Promise<Float32Array[]> =>
	encodeClipWith(spec, clip, (position, size) => backend.load(wanEncoderGraph(spec, { weights, ...size, position })));

/** The same with graphs that the caller loads, one at a time; they are closed here. */
export const encodeClipWith = async (
	spec: WanVaeSpec, clip: VideoFrames, load: (position: 'first' | 'next', size: { readonly height: number; readonly width: number }) => Promise<GraphSession>,
): Promise<Float32Array[]> => {
	const { latents, height, width } = latentSize(spec, { frames: clip.count, height: clip.height, width: clip.width });
	const area = 3 * height * width * spatialStride(spec) ** 2;
	const memory = new StreamMemory();
	const encoded: Float32Array[] = [];
	const encode = async (position: 'first' | 'next', frames: number, start: number, runs: number): Promise<void> => {
		const session = await load(position, { height, width });
		try {
			for (let run = 0; run < runs; run++) {
				const from = start + run * frames;
				const results = await session.run({
					frames: { type: 'float32', dims: [frames, 3, clip.height, clip.width], data: clip.data.slice(from * area, (from + frames) * area) }, ...memory.feeds(session),
				});
				memory.keep(results);
				encoded.push(results['latent']?.data as Float32Array);
			}
		} finally {
			await session.close();
		}
	};
	await encode('first', 1, 0, 1);
	if (latents > 1) {
		await encode('next', framesPerLatent(spec), 1, latents - 1);
	}
	return encoded;
};
