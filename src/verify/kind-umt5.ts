/** `umt5`: the text encoder. Rows of padding are nobody's business and are not compared. */
import { textEncoderGraph } from '../model/text-encoder.js';
import { integer, literal, number, object, withDefault } from '../protocol/schema.js';
import { readWeights } from './golden-folder.js';
import { closeTo, type Verifier } from './verifier.js';

const dimension = integer({ min: 1, max: 1_000_000 });

const UMT5_CONFIG = object({
	vocab: dimension, dim: dimension, dim_attn: dimension, dim_ffn: dimension, num_heads: dimension, num_layers: dimension, num_buckets: dimension,
	/** umT5 has a table of relative positions in every layer; a shared one would be T5's. */
	shared_pos: withDefault(literal(false), false),
	max_dist: withDefault(dimension, 128),
	eps: withDefault(number({ min: 0, max: 1 }), 1e-6),
});

export const verifyUmt5: Verifier = async function* (folder, _profile, backend) {
	const { vocab, dim, dim_attn, dim_ffn, num_heads, num_layers, num_buckets, max_dist, eps } = folder.config(UMT5_CONFIG);
	const spec = { kind: 'umt5', vocab_size: vocab, dim, dim_attn, dim_ffn, num_heads, num_layers, num_buckets, max_dist, eps } as const;
	const weights = await readWeights(folder);
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const [prompts = 0, length = 0] = tensors.shape('ids', [undefined, undefined]);
		const ids = tensors.integers('ids');
		const mask = tensors.integers('mask', [prompts, length]);
		const session = await backend.load(textEncoderGraph({ ...spec, text_len: length }, weights));
		try {
			const hidden = new Float32Array(prompts * length * dim);
			for (let prompt = 0; prompt < prompts; prompt++) {
				const part = <T>(values: readonly T[]): readonly T[] => values.slice(prompt * length, (prompt + 1) * length);
				const { context } = await session.run({
					ids: { type: 'int64', dims: [1, length], data: BigInt64Array.from(part(ids), (id) => BigInt(id)) },
					mask: { type: 'float32', dims: [1, length], data: Float32Array.from(part(mask)) },
				});
				hidden.set(context?.data as Float32Array, prompt * length * dim);
			}
			const rowsOf = (data: Float32Array): Float32Array => data.filter((_value, index) => mask[Math.floor(index / dim)] === 1);
			yield { case: name, outputs: [closeTo('hidden', rowsOf(hidden), rowsOf(tensors.floats('hidden', [prompts, length, dim])))] };
		} finally {
			await session.close();
		}
	}
};
