/**
 * Latents to tokens and back (Wan 2.1). The order of features differs: the channel comes first on the way in (it is a
 * convolution's), last on the way out.
 */
import type { GraphBuilder, Value } from './graph-builder.js';
import { reshape, transpose } from './operators.js';

/** Height and width of a patch. */
export type PatchSize = readonly [number, number];

/** [C, F, h, w] to tokens [L, C * ph * pw], features in the order (c, kh, kw). */
export const patchify = (g: GraphBuilder, latent: Value, [patchHeight, patchWidth]: PatchSize): Value => {
	const [channels, frames, height, width] = latent.dims as [number, number, number, number];
	const [rows, columns] = [height / patchHeight, width / patchWidth];
	const patches = reshape(g, 'patches', latent, [channels, frames, rows, patchHeight, columns, patchWidth]);
	const ordered = transpose(g, 'patches/ordered', patches, [1, 2, 4, 0, 3, 5]); // [F, hp, wp, C, ph, pw]
	return reshape(g, 'patches/tokens', ordered, [frames * rows * columns, channels * patchHeight * patchWidth]);
};

/** Tokens [L, ph * pw * C], features in the order (kh, kw, c), to [C, F, h, w]. */
export const unpatchify = (g: GraphBuilder, x: Value, size: { channels: number; frames: number; rows: number; columns: number }, [patchHeight, patchWidth]: PatchSize): Value => {
	const { channels, frames, rows, columns } = size;
	const patches = reshape(g, 'pixels', x, [frames, rows, columns, patchHeight, patchWidth, channels]);
	const ordered = transpose(g, 'pixels/ordered', patches, [5, 0, 1, 3, 2, 4]); // [C, F, hp, ph, wp, pw]
	return reshape(g, 'pixels/latent', ordered, [channels, frames, rows * patchHeight, columns * patchWidth]);
};
