/** TAEHV's decoder in plain loops, whole clips at once, level by level; see reference.ts. */
import { taehvFramesPerLatent, taehvLayout, type TaehvSpec } from '../../model/taehv.js';
import type { Weights } from '../../model/weights.js';
import { convolution, map, type Planes, relu, sum } from './reference-math.js';

/** Latents [C, h, w] to frames [3, H, W] in [0, 1], the first ones, which show nothing yet, left out. */
export const decodeTaehvClip = (spec: TaehvSpec, weights: Weights, latents: readonly Planes[]): Planes[] => {
	const { first, levels, last } = taehvLayout(spec);
	const conv = (name: string, x: Planes, outputs: number, kernel = 3, hasBias = true): Planes =>
		convolution(x, weights.floats(`${name}.weight`, [outputs, x.channels, kernel, kernel]), hasBias ? weights.floats(`${name}.bias`, [outputs]) : new Float32Array(outputs), kernel);
	const relued = (x: Planes): Planes => ({ ...x, data: map(x.data, relu) });
	let frames = latents.map((latent) => relued(conv(first, { ...latent, data: map(latent.data, (value) => 3 * Math.tanh(value / 3)) }, spec.widths[0] ?? 0)));
	for (const { width, nextWidth, grow, blocks, growth, narrow } of levels) {
		for (const block of blocks) {
			frames = frames.map((x, time) => {
				const past = frames[time - 1]?.data ?? new Float64Array(x.data.length);
				const both = { ...x, channels: 2 * width, data: Float64Array.from([...x.data, ...past]) };
				const y = conv(`${block}.conv.4`, relued(conv(`${block}.conv.2`, relued(conv(`${block}.conv.0`, both, width)), width)), width);
				return relued({ ...y, data: sum(y.data, x.data) });
			});
		}
		frames = frames.flatMap((x) => {
			const [height, columns] = [2 * x.height, 2 * x.width];
			const large = {
				channels: width, height, width: columns, data: Float64Array.from({ length: width * height * columns }, (_, index) =>
					x.data[(Math.floor(index / (height * columns)) * x.height + Math.floor((Math.floor(index / columns) % height) / 2)) * x.width + Math.floor((index % columns) / 2)] ?? Number.NaN),
			};
			const grown = conv(growth, large, grow * width, 1, false);
			const size = grown.data.length / grow;
			return Array.from({ length: grow }, (_, part) => conv(narrow, { ...grown, channels: width, data: grown.data.slice(part * size, (part + 1) * size) }, nextWidth, 3, false));
		});
	}
	return frames.map((x) => {
		const rgb = conv(last, relued(x), 3);
		return { ...rgb, data: map(rgb.data, (value) => (Number.isNaN(value) ? value : Math.min(1, Math.max(0, value)))) };
	}).slice(taehvFramesPerLatent(spec) - 1);
};
