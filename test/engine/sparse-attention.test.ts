/** What the sparse branch does beyond its numbers (those are held to the plain loops in test/verify): it skips, and works in pieces. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { sparseLinearAttention } from '../../src/engine/backends/reference-sparse.js';
import type { Tensor } from '../../src/engine/backend.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { keptBlocks, sparseBranch, type SparseShape } from '../../src/model/sparse-linear-attention.js';
import { assertClose } from '../model/closeness.js';
import { randomNormals } from '../model/random-model.js';

const [TOKENS, D] = [45, 6];
const SHAPE: SparseShape = { ratio: 0.4, blockQueries: 8, blockKeys: 7 };
const dims = [1, TOKENS, D];
const [q, k, v] = [1, 2, 3].map((seed) => randomNormals(TOKENS * D, seed)) as [Float32Array, Float32Array, Float32Array];

const run = async (values: Float32Array, pieceElements?: number): Promise<Float32Array> => {
	const g = new GraphBuilder('sparse');
	const inputs = { q: g.input('q', 'float32', dims), k: g.input('k', 'float32', dims), v: g.input('v', 'float32', dims) };
	g.output('out', sparseBranch(g.at('branch'), inputs, SHAPE, pieceElements).out);
	const session = await createOnnxRuntime({ threads: 1 }).load(g.finish());
	try {
		const tensor = (data: Float32Array): Tensor => ({ type: 'float32', dims, data });
		return (await session.run({ q: tensor(q), k: tensor(k), v: tensor(values) }))['out']?.data as Float32Array;
	} finally {
		await session.close();
	}
};

test('blocks that are not chosen are not read: what stands in them reaches no result', async () => {
	const { chosen } = sparseLinearAttention({ q, k, v, heads: 1, width: D }, SHAPE, { weight: new Float32Array(D * D), bias: new Float32Array(D) });
	const rows = chosen[0] ?? [];
	const blocks = [...new Set(rows.flat())];
	const poisoned = blocks.find((block) => !rows.every((row) => row.includes(block))) ?? assert.fail('every block is chosen by all');
	const poison = v.map((value, index) => (Math.floor(index / D / SHAPE.blockKeys) === poisoned ? Number.NaN : value));
	const out = await run(poison);
	const isHit = rows.map((_, row) => out.subarray(row * SHAPE.blockQueries * D, (row + 1) * SHAPE.blockQueries * D).some(Number.isNaN));
	assert.deepEqual(isHit, rows.map((row) => row.includes(poisoned)));
});

test('the work in pieces gives what the work in one gives', async () => {
	const whole = await run(v);
	for (const pieceElements of [1, 200, 300]) {
		assertClose(await run(v, pieceElements), whole, 1e-6, `pieces of ${pieceElements}`);
	}
});

test('shares are rounded down, but one block is always kept', () => {
	assert.deepEqual([[0.1, 32_760], [0.15, 32_760], [0.1, 75_600]].map(([ratio = 0, tokens = 0]) => keptBlocks({ ratio, blockQueries: 128, blockKeys: 64 }, tokens)), [
		{ kept: 51, blocks: 512, isRaised: false }, { kept: 76, blocks: 512, isRaised: false }, { kept: 118, blocks: 1182, isRaised: false },
	]);
	assert.deepEqual(keptBlocks({ ratio: 0.1, blockQueries: 64, blockKeys: 64 }, 639), { kept: 1, blocks: 10, isRaised: false });
	assert.deepEqual(keptBlocks({ ratio: 0.1, blockQueries: 64, blockKeys: 64 }, 576), { kept: 1, blocks: 9, isRaised: true });
	assert.deepEqual(keptBlocks({ ratio: 1, blockQueries: 64, blockKeys: 64 }, 130), { kept: 3, blocks: 3, isRaised: false });
});
