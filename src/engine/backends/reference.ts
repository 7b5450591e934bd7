/**
 * The reference: the same networks as `loadNetworks`, in plain float64 loops written from the formulas and never from the
 * graphs. Slow, exact, obvious; the oracle that every backend is tested against, kept for ever.
 */
import { openModelFolder } from '../../model/model-folder.js';
import { ownModel } from '../../model/spec.js';
import { Weights } from '../../model/weights.js';
import { memoryShapes, networkSizes } from '../network-sizes.js';
import type { Networks } from '../networks.js';
import { ReferenceDecoder, rgbToI420 } from './reference-decoder.js';
import { ReferenceDit } from './reference-dit.js';
import { encodeText } from './reference-text.js';

/** As `loadNetworks`, for small models. */
export const loadReferenceNetworks = async (options: { readonly folder: string; readonly width: number; readonly height: number }): Promise<Networks> => {
	const folder = await openModelFolder(options.folder);
	const { tokenizer } = folder;
	const spec = ownModel(folder.spec);
	const sizes = networkSizes(spec, options.width, options.height);
	const { latentWidth: width, latentHeight: height } = sizes;
	const frames = spec.stream.latents_per_chunk;
	const textWeights = new Weights(await folder.readWeights('text'));
	const dit = new ReferenceDit(spec.dit, new Weights(await folder.readWeights('dit')));
	const decoder = new ReferenceDecoder(spec.vae, new Weights(await folder.readWeights('vae')));
	return {
		spec, tokenizer, ...sizes,
		encodePrompt: (prompt) => {
			const { ids, mask, unknownWords, isTruncated } = tokenizer.tokenize(prompt);
			const context = encodeText(spec.text, textWeights, ids, mask);
			return Promise.resolve({ context, mask: Float32Array.from(mask), unknownWords, isTruncated, ...dit.text(context, mask) });
		},
		step: (inputs) => {
			const { velocity, newK, newV } = dit.forward({
				...inputs, pastK: inputs.pastK as Float32Array[], pastV: inputs.pastV as Float32Array[], frames, width, height, control: inputs.control ?? new Float32Array(frames * spec.dit.control_dim), text: { ...inputs.prompt, crossK: [...inputs.prompt.crossK], crossV: [...inputs.prompt.crossV] },
			});
			return Promise.resolve(inputs.wantKeysAndValues ? { velocity, newK, newV } : { velocity });
		},
		decodeLatent: (latent, memory) => {
			const next = [...memory as Float32Array[]];
			return Promise.resolve({ frames: decoder.decode([latent as Float32Array], height, width, next).map(rgbToI420), memory: next });
		},
		emptyMemory: () => memoryShapes(spec, width, height).map(({ dims }) => new Float32Array(dims[0] * dims[1] * dims[2])),
		close: () => Promise.resolve(),
	};
};
