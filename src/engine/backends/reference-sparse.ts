/** Sparse-linear attention in plain loops; see reference.ts. Scores every block, then looks at the tokens of the best ones. */
import { type SparseShape } from '../../model/sparse-linear-attention.js';
import type { AttentionInputs, Numbers } from './reference-math.js';
import { linear } from './reference-math.js';

const at = (numbers: ArrayLike<number>, index: number): number => numbers[index] ?? Number.NaN;

/** x [rows, d] of one head out of [rows, heads * d]. */
const headOf = (x: Numbers, head: number, d: number, width: number): Float64Array[] =>
	Array.from({ length: x.length / width }, (_, row) => Float64Array.from(x.subarray(row * width + head * d, row * width + (head + 1) * d)));

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((total, value, index) => total + value * at(b, index), 0);

const mean = (rows: readonly Float64Array[]): Float64Array =>
	Float64Array.from({ length: rows[0]?.length ?? 0 }, (_, channel) => rows.reduce((total, row) => total + at(row, channel), 0) / rows.length);

const softmaxOf = (values: ArrayLike<number>): Float64Array => {
	const largest = Math.max(...Array.from(values));
	const powers = Float64Array.from(values, (value) => Math.exp(value - largest));
	const total = powers.reduce((sum, power) => sum + power, 0);
	return powers.map((power) => power / total);
};

const blocksOf = (rows: readonly Float64Array[], size: number): Float64Array[][] =>
	Array.from({ length: Math.ceil(rows.length / size) }, (_, block) => rows.slice(block * size, (block + 1) * size));

/** `chosen[head][query block]` are the key blocks that are looked at, best first. `proj` is the linear branch's, [d, d] and [d]. */
export const sparseLinearAttention = (
	inputs: Omit<AttentionInputs, 'bias' | 'scale'>, shape: SparseShape, proj: { weight: Numbers; bias: Numbers },
): { out: Float64Array; chosen: number[][][] } => {
	const { heads, width } = inputs;
	const d = width / heads;
	const out = new Float64Array(inputs.q.length);
	const chosen: number[][][] = [];
	for (let head = 0; head < heads; head++) {
		const [q, k, v] = [inputs.q, inputs.k, inputs.v].map((x) => headOf(x, head, d, width)) as [Float64Array[], Float64Array[], Float64Array[]];
		const keyMean = mean(k);
		const keyMeans = blocksOf(k, shape.blockKeys).map((rows) => mean(rows).map((value, channel) => value - at(keyMean, channel)));
		const kept = Math.max(1, Math.min(keyMeans.length, Math.floor(shape.ratio * keyMeans.length)));
		const chosenOfHead = blocksOf(q, shape.blockQueries).map((rows) => {
			const queryMean = mean(rows);
			return [...keyMeans.keys()].sort((a, b) => dot(queryMean, keyMeans[b] ?? queryMean) - dot(queryMean, keyMeans[a] ?? queryMean)).slice(0, kept);
		});
		chosen.push(chosenOfHead);
		const features = k.map(softmaxOf);
		for (const [row, query] of q.entries()) {
			const seen = (chosenOfHead[Math.floor(row / shape.blockQueries)] ?? []).flatMap((block) =>
				[...k.keys()].filter((key) => Math.floor(key / shape.blockKeys) === block));
			const weights = softmaxOf(seen.map((key) => dot(query, k[key] ?? query) / Math.sqrt(d)));
			const queryFeatures = softmaxOf(query);
			const shares = features.map((feature) => dot(queryFeatures, feature));
			const total = shares.reduce((sum, share) => sum + share, 0) + 1e-5;
			const mixed = Float64Array.from({ length: d }, (_, channel) => shares.reduce((sum, share, key) => sum + share * at(v[key] ?? [], channel), 0) / total);
			const projected = linear(mixed, proj.weight, proj.bias, d);
			for (let channel = 0; channel < d; channel++) {
				const exact = seen.reduce((sum, key, index) => sum + at(weights, index) * at(v[key] ?? [], channel), 0);
				out[row * width + head * d + channel] = exact + at(projected, channel);
			}
		}
	}
	return { out, chosen };
};
