/** Named control values to the numbers the denoiser reads. */
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';

/**
 * `[latents_per_chunk, control_dim]`, the same for every latent frame of the chunk: values are latched when a chunk begins.
 * All zeros when no control is given to a model that is told so (`control_present_index`), as in training; otherwise
 * those left out have their default. Throws `invalid_request` naming a control that is unknown or out of range.
 */
export const controlVector = (spec: ModelSpec, values: { readonly [name: string]: number }): Float32Array => {
	const width = spec.dit.control_dim;
	const vector = new Float32Array(spec.stream.latents_per_chunk * width);
	const names = Object.keys(values);
	for (const name of names) {
		const control = spec.controls.find((each) => each.name === name);
		const value = values[name] ?? Number.NaN;
		if (control === undefined) {
			const known = spec.controls.map((each) => each.name).join(', ');
			throw new TurbocastError('invalid_request', `The model ${spec.name} has no control "${name}"; it has ${known === '' ? 'none' : known}.`, { param: `controls.${name}` });
		}
		// Written so that NaN fails too.
		if (!(value >= control.min && value <= control.max)) {
			throw new TurbocastError('invalid_request', `The control ${name} must be from ${control.min} to ${control.max}.`, { param: `controls.${name}` });
		}
	}
	if (names.length === 0 && spec.control_present_index !== undefined) {
		return vector;
	}
	for (let latent = 0; latent < spec.stream.latents_per_chunk; latent++) {
		for (const control of spec.controls) {
			vector[latent * width + control.index] = values[control.name] ?? control.default;
		}
		if (spec.control_present_index !== undefined) {
			vector[latent * width + spec.control_present_index] = 1;
		}
	}
	return vector;
};
