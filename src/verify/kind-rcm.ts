/**
 * `rcm`: the whole sampling loop around a `turbo-dit` network: times, timesteps as the network gets them, and the state after each
 * step. It is the sampler that is checked, so the network runs in float32 in every profile.
 */
import { resolve } from 'node:path';
import { RCM_SOLVERS, rcmLoop, rcmTimes, rcmTimestep } from '../engine/rcm.js';
import { TurbocastError } from '../protocol/errors.js';
import { integer, list, number, object, oneOf, string } from '../protocol/schema.js';
import { loadDitForward, sparseShape, TURBO_DIT_CONFIG, warnOfShortSequence } from './dit-forward.js';
import { parseConfig, readConfig, readWeights } from './golden-folder.js';
import { latentSize } from './kind-wan-dit.js';
import { type CheckedOutput, closeTo, type Verifier } from './verifier.js';

const path = string({ min: 1, max: 4096 });
const CONFIG = object({
	sigma_max: number({ min: 1e-6, max: 1e9 }),
	cases: list(object({ steps: integer({ min: 1, max: 1000 }), solver: oneOf(RCM_SOLVERS) }), { min: 1, max: 10_000 }),
	/** Of the network; relative to this folder. */
	weights: path, config: path,
});

export const verifyRcm: Verifier = async function* (folder, _profile, backend, warn) {
	const { sigma_max: sigmaMax, cases, weights: weightsFile, config: configFile } = folder.config(CONFIG);
	const configPath = resolve(folder.path, configFile);
	const { sla, ...spec } = parseConfig(configPath, await readConfig(configPath), TURBO_DIT_CONFIG);
	if (spec.in_dim !== spec.out_dim) {
		throw new TurbocastError('model_invalid', `${configPath}: in_dim ${spec.in_dim} and out_dim ${spec.out_dim} must be equal for the loop to feed its own output back.`);
	}
	const weights = await readWeights(folder, weightsFile);
	const sparse = sparseShape(sla);
	for (const { name, index, read } of folder.cases) {
		const parameters = cases[index];
		if (parameters === undefined) {
			throw new TurbocastError('model_invalid', `${resolve(folder.path, 'config.json')} has no parameters for ${name}; its cases need one entry for each file.`);
		}
		const tensors = await read();
		const size = latentSize(tensors, 'noise', spec.in_dim);
		const dims = [spec.in_dim, size.frames, size.height, size.width];
		const context = tensors.floats('context', [spec.text_len, spec.text_dim]);
		const times = rcmTimes(sigmaMax, parameters.steps);
		const dit = await loadDitForward({ spec, weights, mode: { kind: 'clip', sparse }, profile: 'cpu-fp32', size, context, backend });
		try {
			warnOfShortSequence(sparse, size.frames * dit.tokensPerLatent, name, warn);
			const outputs: CheckedOutput[] = [
				closeTo('times', times, tensors.doubles('times', [parameters.steps + 1])),
				closeTo('timesteps', times.slice(0, -1).map(rcmTimestep), tensors.floats('timesteps', [parameters.steps])),
			];
			const loop = rcmLoop({
				times, solver: parameters.solver, noise: tensors.floats('noise', dims),
				freshNoise: (step) => tensors.floats(`noise.step${step}`, dims),
				forward: async (latent, timestep) => (await dit.run({ latent, timesteps: [timestep], firstPosition: 0 }))['velocity']?.data as Float32Array,
			});
			for await (const x of loop) {
				const step = outputs.length - 2;
				outputs.push(closeTo(`x.step${step}`, x, tensors.floats(`x.step${step}`, dims)));
			}
			yield { case: name, outputs };
		} finally {
			await dit.close();
		}
	}
};
