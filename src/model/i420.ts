/**
 * Pictures made inside the graph: RGB in [0, 1] to I420, BT.709, limited range (ITU-R BT.709-6 section 3.5 and 4.6): Y' = 16 + 219 E'y,
 * Cb, Cr = 128 + 224 E'c. A chroma sample is the mean of its 2x2 pixels, so it sits in their centre (MPEG-1 siting).
 */
import type { GraphBuilder, Value } from './graph-builder.js';
import { add, cast, concat, convolution, multiply, pixelShuffle, reshape, split, transpose } from './operators.js';

/** Luma of red, green and blue. */
export const BT709_LUMA = [0.2126, 0.7152, 0.0722] as const;

const [RED, GREEN, BLUE] = BT709_LUMA;
/** Cb = (B - Y) / 1.8556 and Cr = (R - Y) / 1.5748, as weights of red, green and blue. */
export const BT709_CHROMA = [
	[-RED / (2 * (1 - BLUE)), -GREEN / (2 * (1 - BLUE)), 0.5],
	[0.5, -GREEN / (2 * (1 - RED)), -BLUE / (2 * (1 - RED))],
] as const;

/**
 * x [frames, 12, H / 2, W / 2] in [0, 1], channels (colour, dy, dx) as before a pixel shuffle by 2, to samples [frames, 6, H / 2, W / 2] from 0 to 256,
 * to be rounded down. At half resolution all six samples of a 2x2 block are one product: four of luma, one of each chroma.
 */
const i420Samples = (g: GraphBuilder, x: Value): Value => {
	const weight = new Float32Array(6 * 12);
	for (let colour = 0; colour < 3; colour++) {
		for (let pixel = 0; pixel < 4; pixel++) {
			weight[pixel * 12 + colour * 4 + pixel] = 219 * (BT709_LUMA[colour] ?? 0);
			for (const [plane, chroma] of BT709_CHROMA.entries()) {
				weight[(4 + plane) * 12 + colour * 4 + pixel] = (224 / 4) * (chroma[colour] ?? 0);
			}
		}
	}
	// Half a step is added because the cast rounds towards zero.
	const bias = [16, 16, 16, 16, 128, 128].map((level) => level + 0.5);
	return convolution(g, 'samples', x, g.floats('samples/weight', [6, 12, 1, 1], weight), g.floats('samples/bias', [6], bias));
};

/** Samples [frames, 6, H / 2, W / 2] in the order of the bytes of a frame: [frames, H * W * 3 / 2]. */
const inOrder = (g: GraphBuilder, samples: Value): Value => {
	const [frames, , halfHeight, halfWidth] = samples.dims as [number, number, number, number];
	const [luma, chroma] = split(g, 'planes', samples, 1, [4, 2]) as [Value, Value];
	const pixels = halfHeight * halfWidth * 4;
	const y = reshape(g, 'y', pixelShuffle(g, 'y/shuffled', luma), [frames, pixels]);
	const uv = reshape(g, 'uv', chroma, [frames, pixels / 2]);
	return concat(g, 'joined', [y, uv], 1);
};

/** x as for `i420Samples`, to uint8 [frames, H * 3 / 2, W]. */
export const toI420 = (g: GraphBuilder, x: Value): Value => {
	const [frames, , halfHeight, halfWidth] = x.dims as [number, number, number, number];
	return reshape(g, 'packed', inOrder(g, cast(g, 'bytes', i420Samples(g, x), 'uint8')), [frames, halfHeight * 3, halfWidth * 2]);
};

/**
 * The same bytes in words of four, least significant first: int32 [frames, H * W * 3 / 8]. For processors that have no smaller numbers (WGSL), which would
 * otherwise hand over four times as much. Sums wrap, so that the last byte may have its highest bit. H * W must be a multiple of 8.
 */
export const toI420Words = (g: GraphBuilder, x: Value): Value => {
	const samples = inOrder(g, i420Samples(g, x));
	const [frames, bytes] = samples.dims as [number, number];
	const parts = split(g, 'bytes', reshape(g, 'bytes/grouped', samples, [frames, bytes / 4, 4]), 2, [1, 1, 1, 1]);
	const placed = parts.map((part, place) => multiply(g, `byte${place}/placed`, cast(g, `byte${place}`, part, 'int32'), g.constant(`byte${place}/place`, 'int32', [], Int32Array.of(1 << (8 * place)))));
	// Added one by one: the WebGPU provider's sum over an axis goes through float32, which has 24 bits.
	const words = placed.reduce((total, part, place) => add(g, `words/${place}`, total, part));
	return reshape(g, 'words', words, [frames, bytes / 4]);
};

/** x [frames, 3, H, W] in [0, 1], H and W even, to bytes as of `toI420` or words as of `toI420Words`. */
export const framesToI420 = (g: GraphBuilder, x: Value, packing: 'bytes' | 'words' = 'bytes'): Value => {
	const [frames, , height, width] = x.dims as [number, number, number, number];
	const blocks = reshape(g, 'blocks', x, [frames, 3, height / 2, 2, width / 2, 2]);
	const samples = transpose(g, 'blocks/ordered', blocks, [0, 1, 3, 5, 2, 4]); // [T, 3, 2, 2, H / 2, W / 2]
	return (packing === 'words' ? toI420Words : toI420)(g, reshape(g, 'blocks/channels', samples, [frames, 12, height / 2, width / 2]));
};
