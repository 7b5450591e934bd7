/** `wan-causal-full` and `wan-causal-window`: a stream, chunk by chunk, whose clean passes stay in the cache. */
import type { Feeds } from '../engine/backend.js';
import { KvCache } from '../engine/kv-cache.js';
import { stateType } from '../engine/profile.js';
import { stateFeed } from '../engine/resident-kv.js';
import { fromFloat16 } from '../model/float16.js';
import type { StateType } from '../model/state-graphs.js';
import { TurbocastError } from '../protocol/errors.js';
import { integer, object, withDefault } from '../protocol/schema.js';
import { DIT_CONFIG, loadDitForward } from './dit-forward.js';
import { readWeights } from './golden-folder.js';
import type { GoldenTensors } from './golden-tensors.js';
import { type CheckedOutput, closeTo, type Verifier } from './verifier.js';

const MAX_FRAMES = 100_000;

const CONFIG = object({
	...DIT_CONFIG,
	num_frame_per_block: integer({ min: 1, max: MAX_FRAMES }),
	/** Latent frames that attention sees, the chunk included; -1 for all. */
	local_attn_size: withDefault(integer({ min: -1, max: MAX_FRAMES }), -1),
	sink_size: withDefault(integer({ min: 0, max: MAX_FRAMES }), 0),
});

/** How many chunks a case has, and how many steps each; the last step is the clean pass. */
const chunksAndSteps = (tensors: GoldenTensors): { chunks: number; steps: number } => {
	let [chunks, steps] = [0, 0];
	while (tensors.has(`block${chunks}.step0.x`)) {
		chunks += 1;
	}
	while (tensors.has(`block0.step${steps}.x`)) {
		steps += 1;
	}
	// Asking for the name gives the message for a case without any.
	tensors.shape('block0.step0.x');
	return { chunks, steps };
};

const pastFeeds = (cache: KvCache, heads: number, headDim: number, type: StateType): Feeds => {
	const dims = [heads, cache.past, headDim];
	return Object.fromEntries(cache.layers.flatMap(({ k, v }, layer): [string, Feeds[string]][] => [[`past_k.${layer}`, stateFeed(k, dims, type)], [`past_v.${layer}`, stateFeed(v, dims, type)]]));
};

export const verifyWanCausal: Verifier = async function* (folder, profile, backend) {
	const { num_frame_per_block: frames, local_attn_size: window, sink_size: sinkLatents, ...spec } = folder.config(CONFIG);
	if (window !== -1 && window < frames + sinkLatents) {
		throw new TurbocastError('model_invalid', `config.json: a window of ${window} latent frames does not hold ${sinkLatents} of the beginning and a chunk of ${frames}.`);
	}
	const weights = await readWeights(folder);
	const { num_heads: heads, num_layers: layers, in_dim: channels, out_dim: outChannels } = spec;
	const headDim = spec.dim / heads;
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const { chunks, steps } = chunksAndSteps(tensors);
		const [, , , height = 0, width = 0] = tensors.shape('block0.step0.x', [1, channels, frames, undefined, undefined]);
		const context = tensors.floats('context', [1, spec.text_len, spec.text_dim]);
		const dit = await loadDitForward({ spec, weights, mode: { kind: 'chunk' }, profile, size: { frames, height, width }, context, backend });
		try {
			const capacityLatents = window === -1 ? chunks * frames : window - frames;
			const cache = new KvCache({ layers, heads, headDim, tokensPerLatent: dit.tokensPerLatent, capacityLatents, sinkLatents });
			const outputs: CheckedOutput[] = [];
			for (let chunk = 0; chunk < chunks; chunk++) {
				for (let step = 0; step < steps; step++) {
					const at = `block${chunk}.step${step}`;
					const latent = tensors.floats(`${at}.x`, [1, channels, frames, height, width]);
					const timesteps = [...tensors.floats(`${at}.timestep`, [1, frames])];
					const results = await dit.run({ latent, timesteps, firstPosition: chunk * frames, past: pastFeeds(cache, heads, headDim, stateType(profile)) });
					outputs.push(closeTo(at, results['velocity']?.data as Float32Array, tensors.floats(`${at}.velocity`, [1, outChannels, frames, height, width])));
					if (step === steps - 1) {
						const floats = (key: string): Float32Array => {
							const data = results[key]?.data;
							return data instanceof Uint16Array ? fromFloat16(data) : data as Float32Array;
						};
						cache.append(Array.from({ length: layers }, (_, layer) => ({ k: floats(`new_k.${layer}`), v: floats(`new_v.${layer}`) })), frames);
					}
				}
			}
			yield { case: name, outputs };
		} finally {
			await dit.close();
		}
	}
};
