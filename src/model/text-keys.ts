/** What the denoiser needs of a text, made once per prompt: keys and values of cross-attention, and the pooled text. */
import { splitHeads } from './attention.js';
import type { Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { floatLinears } from './linear-layers.js';
import { divide, geluTanh, matMul, reshape, rmsNorm, sum } from './operators.js';
import type { DitDimensions } from './spec.js';
import type { Weights } from './weights.js';

/**
 * Inputs: `context` [T, text_dim]; `mask` [T], only of models with pooled text. Outputs: `cross_k.I`, `cross_v.I` [N, T, d] for
 * each layer (keys normalised), and `pooled` [dim]. Rows of padding take part in cross-attention, as in Wan. Throws `model_invalid`.
 */
export const textKeysGraph = (spec: DitDimensions, weights: Weights): Graph => {
	const g = weights.graph('text-keys');
	const dense = floatLinears(weights);
	const { dim, text_dim: textDim, text_len: length, num_heads: heads } = spec;
	const context = g.input('context', 'float32', [length, textDim]);
	const inner = dense(g, context, [{ name: 'text_embedding.0', outputs: dim, inputs: textDim }])[0] as Value;
	const text = dense(g, geluTanh(g, 'gelu', inner), [{ name: 'text_embedding.2', outputs: dim, inputs: dim }])[0] as Value;
	for (let block = 0; block < spec.num_layers; block++) {
		const at = `blocks.${block}.cross_attn`;
		const [k, v] = dense(g, text, ['k', 'v'].map((part) => ({ name: `${at}.${part}`, outputs: dim, inputs: dim }))) as [Value, Value];
		const normal = spec.qk_norm ? rmsNorm(g, `${at}.norm_k`, k, weights.value(g, `${at}.norm_k.weight`, [dim]), spec.eps) : k;
		g.output(`cross_k.${block}`, splitHeads(g, `blk${block}/k`, normal, heads));
		g.output(`cross_v.${block}`, splitHeads(g, `blk${block}/v`, v, heads));
	}
	if (spec.pooled_text) {
		const mask = reshape(g, 'mask/row', g.input('mask', 'float32', [length]), [1, length]);
		const mean = divide(g, 'mean', matMul(g, 'total', mask, context), sum(g, 'tokens', mask, 1)); // [1, text_dim]
		const pooled = dense(g, mean, [{ name: 'pooled_embedding', outputs: dim, inputs: textDim }])[0] as Value;
		g.output('pooled', reshape(g, 'pooled/flat', pooled, [dim]));
	}
	return g.finish();
};
