/** 8-bit attention against plain loops: against its own arithmetic written out, and against exact attention. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { int8Attention, type Int8AttentionShape } from '../../src/model/int8-attention.js';
import { relativeError } from '../../src/verify/verifier.js';
import { randomNormals } from '../model/random-model.js';

type Size = { readonly heads: number; readonly tokens: number; readonly d: number; readonly shape: Int8AttentionShape; readonly pieceElements?: number };
type Inputs = { readonly q: Float32Array; readonly k: Float32Array; readonly v: Float32Array };

const run = async ({ heads, tokens, d, shape, pieceElements }: Size, inputs: Inputs): Promise<Float32Array> => {
	const g = new GraphBuilder('attention');
	const dims = [heads, tokens, d];
	const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, 'float32', dims));
	assert.ok(q !== undefined && k !== undefined && v !== undefined);
	g.output('out', int8Attention(g.at('int8'), { q, k, v }, shape, pieceElements));
	const session = await createOnnxRuntime({ threads: 1 }).load(g.finish());
	try {
		const { out } = await session.run(Object.fromEntries(Object.entries(inputs).map(([name, data]) => [name, { type: 'float32' as const, dims, data }])));
		return out?.data as Float32Array;
	} finally {
		await session.close();
	}
};

/** The step of bytes for each of `count` groups of elements. */
const steps = (count: number, elementsOf: (group: number) => Iterable<number>): number[] =>
	Array.from({ length: count }, (_, group) => {
		let largest = 0;
		for (const value of elementsOf(group)) {
			largest = Math.max(largest, Math.abs(value));
		}
		return largest / 127 + 1e-7;
	});

/** One head, rows of [L][d]; `isExact` leaves every number as it is. */
const attend = (q: number[][], k: number[][], v: number[][], shape: Int8AttentionShape, isExact: boolean): number[][] => {
	const [tokens, d] = [q.length, q[0]?.length ?? 0];
	const at = (rows: number[][], row: number, column: number): number => rows[row]?.[column] ?? Number.NaN;
	const means = Array.from({ length: d }, (_, column) => k.reduce((sum, row) => sum + (row[column] ?? 0), 0) / tokens);
	const smooth = k.map((row) => row.map((value, column) => value - (isExact ? 0 : means[column] ?? 0)));
	const blockSteps = (rows: number[][], block: number): number[] => steps(Math.ceil(tokens / block), (index) => rows.slice(index * block, (index + 1) * block).flat());
	const rounded = (rows: number[][], stepOf: (row: number, column: number) => number): number[][] =>
		rows.map((row, r) => row.map((value, c) => (isExact ? value : Math.round(value / stepOf(r, c)) * stepOf(r, c))));
	const [qSteps, kSteps, vSteps] = [blockSteps(q, shape.blockQueries), blockSteps(smooth, shape.blockKeys), steps(d, (column) => v.map((row) => row[column] ?? 0))];
	const [q8, k8] = [rounded(q, (row) => qSteps[Math.floor(row / shape.blockQueries)] ?? 1), rounded(smooth, (row) => kSteps[Math.floor(row / shape.blockKeys)] ?? 1)];
	const v8 = rounded(v, (_row, column) => vSteps[column] ?? 1);
	return q8.map((query, row) => {
		const scores = k8.map((_key, index) => query.reduce((sum, value, column) => sum + value * at(k8, index, column), 0) / Math.sqrt(d));
		const largest = Math.max(...scores);
		const weights = scores.map((score) => Math.exp(score - largest));
		const total = weights.reduce((sum, weight) => sum + weight, 0);
		const shares = weights.map((weight) => (isExact ? weight : Math.round(weight * 255) / 255) / total);
		return Array.from({ length: d }, (_, column) => shares.reduce((sum, share, index) => sum + share * at(v8, index, column), 0)).map((value) => (row < tokens ? value : Number.NaN));
	});
};

const byLoops = ({ heads, tokens, d, shape }: Size, { q, k, v }: Inputs, isExact: boolean): number[] =>
	Array.from({ length: heads }, (_, head) => {
		const rows = (data: Float32Array): number[][] => Array.from({ length: tokens }, (_row, token) => [...data.subarray((head * tokens + token) * d, (head * tokens + token + 1) * d)]);
		return attend(rows(q), rows(k), rows(v), shape, isExact);
	}).flat(2);

const random = ({ heads, tokens, d }: Size, seed: number, keyOffset = 0): Inputs => ({
	q: randomNormals(heads * tokens * d, seed), k: randomNormals(heads * tokens * d, seed + 1).map((value, index) => value + (index % d === 3 ? keyOffset : 0)), v: randomNormals(heads * tokens * d, seed + 2),
});

const SIZES: { readonly [what: string]: Size } = {
	'tails of queries and keys': { heads: 3, tokens: 53, d: 10, shape: { blockQueries: 16, blockKeys: 9 } },
	'whole blocks, one head': { heads: 1, tokens: 64, d: 16, shape: { blockQueries: 16, blockKeys: 8 } },
	'one token': { heads: 2, tokens: 1, d: 4, shape: { blockQueries: 4, blockKeys: 4 } },
	'several pieces, the last one shorter': { heads: 2, tokens: 50, d: 8, shape: { blockQueries: 32, blockKeys: 16 }, pieceElements: 50 * 7 },
};

for (const [what, size] of Object.entries(SIZES)) {
	test(`8-bit attention is its arithmetic written out, and near exact attention: ${what}`, async () => {
		const inputs = random(size, 5);
		const out = await run(size, inputs);
		const [own, exact] = [relativeError(out, byLoops(size, inputs, false)), relativeError(out, byLoops(size, inputs, true))];
		// A value halfway between two bytes may fall to either side.
		assert.ok(own < 2e-3, `own arithmetic: ${own}`);
		assert.ok(exact > 1e-6 && exact < 5e-2, `exact attention: ${exact}`);
	});
}

test('keys that share a large offset cost nothing: it is taken away before they become bytes', async () => {
	const size: Size = { heads: 2, tokens: 80, d: 16, shape: { blockQueries: 16, blockKeys: 16 } };
	const [plain, offset] = [random(size, 9), random(size, 9, 40)];
	const errorOf = async (inputs: Inputs): Promise<number> => relativeError(await run(size, inputs), byLoops(size, inputs, true));
	assert.ok(await errorOf(offset) < 1.3 * await errorOf(plain));
});

test('zeros are no trouble', async () => {
	const size: Size = { heads: 1, tokens: 20, d: 8, shape: { blockQueries: 8, blockKeys: 8 } };
	const zeros = new Float32Array(160);
	assert.deepEqual(await run(size, { q: zeros, k: zeros, v: zeros }), zeros);
});
