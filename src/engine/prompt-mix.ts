/**
 * Several prompts as one: what the denoiser is told of them, mixed token by token. A weighted mean of vectors that point in different
 * directions is shorter than they are, so keys and the pooled vector get the weighted mean of the lengths back; values are
 * read linearly and stay the plain mean. A token that only one of the prompts has fades towards the zero row that padding is.
 */
import type { PromptTensors } from './networks.js';

export type WeightedTensors = { readonly tensors: PromptTensors; readonly weight: number };

const mean = (parts: readonly { readonly array: Float32Array; readonly share: number }[]): Float32Array => {
	const mixed = new Float32Array(parts[0]?.array.length ?? 0);
	for (const { array, share } of parts) {
		for (let index = 0; index < mixed.length; index++) {
			mixed[index] = (mixed[index] ?? 0) + share * (array[index] ?? 0);
		}
	}
	return mixed;
};

/** `rows` vectors that lie strided in `[groups, rows, width]`: the length of each over all groups. */
const lengths = (array: Float32Array, groups: number, rows: number): Float64Array => {
	const width = array.length / (groups * rows);
	const squares = new Float64Array(rows);
	for (let group = 0; group < groups; group++) {
		for (let row = 0; row < rows; row++) {
			const start = (group * rows + row) * width;
			for (let index = start; index < start + width; index++) {
				squares[row] = (squares[row] ?? 0) + (array[index] ?? 0) ** 2;
			}
		}
	}
	return squares.map(Math.sqrt);
};

/** The weighted mean of `[groups, rows, width]` arrays, each row (over all groups) as long as the weighted mean of the lengths. */
const meanOfLength = (parts: readonly { readonly array: Float32Array; readonly share: number }[], groups: number, rows: number): Float32Array => {
	const mixed = mean(parts);
	const width = mixed.length / (groups * rows);
	const have = lengths(mixed, groups, rows);
	const want = new Float64Array(rows);
	for (const { array, share } of parts) {
		lengths(array, groups, rows).forEach((length, row) => {
			want[row] = (want[row] ?? 0) + share * length;
		});
	}
	for (let row = 0; row < rows; row++) {
		const length = have[row] ?? 0;
		// Opposite vectors cancel out: there is no direction to give a length to.
		const scale = length > 1e-6 * (want[row] ?? 0) ? (want[row] ?? 0) / length : 0;
		for (let group = 0; group < groups; group++) {
			const start = (group * rows + row) * width;
			for (let index = start; index < start + width; index++) {
				mixed[index] = (mixed[index] ?? 0) * scale;
			}
		}
	}
	return mixed;
};

/** The mixture by weights above 0, of which only the ratios count. One prompt alone is itself, bit for bit. */
export const mixPrompts = (prompts: readonly WeightedTensors[], heads: number): PromptTensors => {
	const [first] = prompts;
	if (first === undefined) {
		throw new Error('A mixture needs a prompt.');
	}
	if (prompts.length === 1) {
		return first.tensors;
	}
	const total = prompts.reduce((sum, { weight }) => sum + weight, 0);
	const of = (pick: (tensors: PromptTensors) => Float32Array | undefined) =>
		prompts.map(({ tensors, weight }) => ({ array: pick(tensors) ?? new Float32Array(0), share: weight / total }));
	const textLength = first.tensors.mask.length;
	return {
		context: meanOfLength(of((tensors) => tensors.context), 1, textLength),
		mask: first.tensors.mask.map((_, token) => Math.max(...prompts.map(({ tensors }) => tensors.mask[token] ?? 0))),
		// [num_heads, text_len, head_dim]
		crossK: first.tensors.crossK.map((_, layer) => meanOfLength(of((tensors) => tensors.crossK[layer]), heads, textLength)),
		crossV: first.tensors.crossV.map((_, layer) => mean(of((tensors) => tensors.crossV[layer]))),
		...(first.tensors.pooled === undefined ? {} : { pooled: meanOfLength(of((tensors) => tensors.pooled), 1, 1) }),
		unknownWords: [...new Set(prompts.flatMap(({ tensors }) => tensors.unknownWords))],
		isTruncated: prompts.some(({ tensors }) => tensors.isTruncated),
	};
};
