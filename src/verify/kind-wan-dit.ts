/** `wan-dit` and `turbo-dit`: one forward of a whole clip, with dense or with sparse-linear self-attention. */
import type { DitDimensions } from '../model/spec.js';
import type { SparseShape } from '../model/sparse-linear-attention.js';
import { type LatentSize, loadDitForward, sparseShape, TURBO_DIT_CONFIG, WAN_DIT_CONFIG, warnOfShortSequence } from './dit-forward.js';
import { type GoldenFolder, readWeights } from './golden-folder.js';
import type { GoldenTensors } from './golden-tensors.js';
import { closeTo, type Verifier } from './verifier.js';

/** The size of a latent [C, F, h, w]. Throws `model_invalid`. */
export const latentSize = (tensors: GoldenTensors, name: string, channels: number): LatentSize => {
	const [, frames = 0, height = 0, width = 0] = tensors.shape(name, [channels, undefined, undefined, undefined]);
	return { frames, height, width };
};

const clipVerifier = (configOf: (folder: GoldenFolder) => { readonly spec: DitDimensions; readonly sparse?: SparseShape }): Verifier =>
	async function* (folder, profile, backend, warn) {
		const { spec, sparse } = configOf(folder);
		const weights = await readWeights(folder);
		const [, patchHeight = 1, patchWidth = 1] = spec.patch_size;
		for (const { name, read } of folder.cases) {
			const tensors = await read();
			const size = latentSize(tensors, 'x', spec.in_dim);
			if (sparse !== undefined) {
				warnOfShortSequence(sparse, (size.frames * size.height * size.width) / (patchHeight * patchWidth), name, warn);
			}
			const context = tensors.floats('context', [spec.text_len, spec.text_dim]);
			const dit = await loadDitForward({ spec, weights, mode: { kind: 'clip', sparse }, profile, size, context, backend });
			try {
				const { velocity } = await dit.run({ latent: tensors.floats('x'), timesteps: [...tensors.floats('timestep', [1])], firstPosition: 0 });
				const golden = tensors.floats('velocity', [spec.out_dim, size.frames, size.height, size.width]);
				yield { case: name, outputs: [closeTo('velocity', velocity?.data as Float32Array, golden)] };
			} finally {
				await dit.close();
			}
		}
	};

export const verifyWanDit: Verifier = clipVerifier((folder) => ({ spec: folder.config(WAN_DIT_CONFIG) }));

export const verifyTurboDit: Verifier = clipVerifier((folder) => {
	const { sla, ...spec } = folder.config(TURBO_DIT_CONFIG);
	return { spec, sparse: sparseShape(sla) };
});
