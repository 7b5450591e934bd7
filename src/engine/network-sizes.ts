/** Sizes that follow from what a model is; nothing here imports the tensor library. */
import { checkSize } from '../model/sizes.js';
import type { ImportedVaeSpec, ModelSpec, OwnModelSpec } from '../model/spec.js';
import { taehvMemories } from '../model/taehv.js';
import { wanDecoderMemories } from '../model/wan-vae.js';
import type { KvShape } from './kv-cache.js';

/** The sizes that follow from a spec and an output size. Throws `invalid_request` for a size that the model does not have. */
export const networkSizes = (spec: ModelSpec, width: number, height: number, latents = spec.stream.latents_per_chunk) => {
	checkSize(spec, width, height);
	const [, patchHeight = 1, patchWidth = 1] = spec.dit.patch_size;
	const latentWidth = width / spec.vae.spatial_stride;
	const latentHeight = height / spec.vae.spatial_stride;
	const rows = latentHeight / patchHeight;
	const columns = latentWidth / patchWidth;
	return {
		width, height, latentWidth, latentHeight, rows, columns,
		tokensPerLatent: rows * columns,
		tokensPerChunk: rows * columns * latents,
		headDim: spec.dit.dim / spec.dit.num_heads,
	};
};

/** Of the cache of a stream's keys and values. */
export const kvShapeOf = ({ dit, stream }: Pick<ModelSpec, 'dit' | 'stream'>, tokensPerLatent: number): KvShape => ({
	layers: dit.num_layers, heads: dit.num_heads, headDim: dit.dim / dit.num_heads, tokensPerLatent,
	capacityLatents: stream.window_latents - stream.latents_per_chunk, sinkLatents: stream.sink_latents,
});

/** The blocks of the decoder that remember something, in order: names and shapes of their memories. */
export const memoryShapes = (spec: Pick<OwnModelSpec, 'vae'>, latentWidth: number, latentHeight: number): { name: string; dims: [number, number, number] }[] =>
	spec.vae.widths.flatMap((levelWidth, level) => Array.from({ length: spec.vae.blocks[level] ?? 0 }, (_, block) => (
		{ name: `${level}.${block}`, dims: [levelWidth, latentHeight << level, latentWidth << level] as [number, number, number] })));

/** What the graphs of a published decoder remember of a stream, in order: names and shapes. That for the first latent of a stream may remember less. */
export const importedMemories = (vae: ImportedVaeSpec, latentWidth: number, latentHeight: number): readonly { readonly name: string; readonly dims: readonly number[] }[] =>
	(vae.kind === 'taehv' ? taehvMemories(vae.network, latentHeight, latentWidth) : wanDecoderMemories(vae.network, latentHeight, latentWidth));

/** Of any decoder. */
export const decoderMemories = (vae: ModelSpec['vae'], latentWidth: number, latentHeight: number): ReturnType<typeof importedMemories> =>
	(vae.kind === 'group-decoder' ? memoryShapes({ vae }, latentWidth, latentHeight) : importedMemories(vae, latentWidth, latentHeight));
