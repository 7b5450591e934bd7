/** `sla`: sparse-linear attention by itself: which blocks are kept, exactly, what the exact branch gives, and both branches. */
import type { Tensor } from '../engine/backend.js';
import { GraphBuilder, type Value } from '../model/graph-builder.js';
import type { Graph } from '../model/graph.js';
import { add, transpose } from '../model/operators.js';
import { keptBlocks, linearBranch, sparseBranch, type SparseShape } from '../model/sparse-linear-attention.js';
import { TurbocastError } from '../protocol/errors.js';
import { integer, list, number, object, optional, string } from '../protocol/schema.js';
import { closeTo, exactly, type Verifier } from './verifier.js';

const size = integer({ min: 1, max: 1_000_000 });
const CONFIG = object({
	cases: list(object({
		heads: size, tokens: size, head_dim: size, topk: number({ min: 0, max: 1 }), block_q: size, block_k: size, file: optional(string({ max: 256 })),
	}), { min: 1, max: 10_000 }),
});

type Dimensions = { readonly heads: number; readonly tokens: number; readonly headDim: number };

/** One element of a batch: `q`, `k`, `v` [L, N, d] to `out` and `sparse` [L, N, d] and `rows` [N, NQ, n]. */
const slaGraph = ({ heads, tokens, headDim }: Dimensions, shape: SparseShape): Graph => {
	const g = new GraphBuilder('sla');
	const byHead = (name: string): Value => transpose(g, `${name}/heads`, g.input(name, 'float32', [tokens, heads, headDim]), [1, 0, 2]);
	const inputs = { q: byHead('q'), k: byHead('k'), v: byHead('v') };
	const proj = { weight: g.input('weight', 'float32', [headDim, headDim]), bias: g.input('bias', 'float32', [headDim]) };
	const { out: sparse, rows } = sparseBranch(g.at('sparse-branch'), inputs, shape);
	const both = add(g, 'sum', sparse, linearBranch(g.at('linear-branch'), inputs, proj));
	g.output('out', transpose(g, 'out/tokens', both, [1, 0, 2]));
	g.output('sparse', transpose(g, 'sparse/tokens', sparse, [1, 0, 2]));
	g.output('rows', rows);
	return g.finish();
};

/** Chosen rows as a map [N, NQ, NK] of ones and zeros. */
const blockMap = (rows: Tensor, heads: number, keyBlocks: number): number[] => {
	const [, queryBlocks = 0, kept = 0] = rows.dims;
	const map = new Array<number>(heads * queryBlocks * keyBlocks).fill(0);
	for (const [index, row] of (rows.data as BigInt64Array).entries()) {
		map[Math.floor(index / kept) * keyBlocks + (Number(row) % keyBlocks)] = 1;
	}
	return map;
};

export const verifySla: Verifier = async function* (folder, _profile, backend, warn) {
	const { cases } = folder.config(CONFIG);
	for (const { name, index, read } of folder.cases) {
		const parameters = cases.find(({ file }) => file === `${name}.safetensors`) ?? cases[index];
		if (parameters === undefined) {
			throw new TurbocastError('model_invalid', `config.json has no parameters for ${name}; its cases need one entry for each file.`);
		}
		const { heads, tokens, head_dim: headDim } = parameters;
		const shape = { ratio: parameters.topk, blockQueries: parameters.block_q, blockKeys: parameters.block_k };
		const { blocks: keyBlocks, isRaised } = keptBlocks(shape, tokens);
		if (isRaised) {
			warn(`${name}: ${parameters.topk} of ${keyBlocks} key blocks is less than one; one is kept.`);
		}
		const tensors = await read();
		const [batch = 0] = tensors.shape('q', [undefined, tokens, heads, headDim]);
		const dims = [batch, tokens, heads, headDim];
		const [q, k, v] = ['q', 'k', 'v'].map((part) => tensors.floats(part, dims)) as [Float32Array, Float32Array, Float32Array];
		const element = tokens * heads * headDim;
		const session = await backend.load(slaGraph({ heads, tokens, headDim }, shape));
		try {
			const [out, sparse] = [new Float32Array(q.length), new Float32Array(q.length)];
			let map: number[] = [];
			for (let first = 0; first < q.length; first += element) {
				const part = (data: Float32Array): Tensor => ({ type: 'float32', dims: [tokens, heads, headDim], data: data.subarray(first, first + element) });
				const results = await session.run({
					q: part(q), k: part(k), v: part(v),
					weight: { type: 'float32', dims: [headDim, headDim], data: tensors.floats('proj_l.weight', [headDim, headDim]) },
					bias: { type: 'float32', dims: [headDim], data: tensors.floats('proj_l.bias', [headDim]) },
				});
				out.set(results['out']?.data as Float32Array, first);
				sparse.set(results['sparse']?.data as Float32Array, first);
				map = map.concat(blockMap(results['rows'] as Tensor, heads, keyBlocks));
			}
			yield {
				case: name,
				outputs: [
					exactly('block_map', map, tensors.integers('block_map', [batch, heads, Math.ceil(tokens / shape.blockQueries), keyBlocks])),
					closeTo('sparse_branch', sparse, tensors.floats('sparse_branch', dims)),
					closeTo('out', out, tensors.floats('out', dims)),
				],
			};
		} finally {
			await session.close();
		}
	}
};
