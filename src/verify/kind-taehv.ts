/** `taehv`: the tiny decoder of Wan's latents, latent by latent as it streams. */
import { createTaehvDecoder } from '../engine/video-codec.js';
import { parseTaehvSpec } from '../model/taehv.js';
import { anything } from '../protocol/schema.js';
import { readWeights } from './golden-folder.js';
import { closeTo, type Verifier } from './verifier.js';
import { joinFrames } from './video-tensors.js';

export const verifyTaehv: Verifier = async function* (folder, _profile, backend) {
	const spec = parseTaehvSpec(folder.config(anything()));
	const weights = await readWeights(folder);
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const [, count = 0, , height = 0, width = 0] = tensors.shape('z', [1, undefined, spec.latent_channels, undefined, undefined]);
		const latents = tensors.floats('z');
		const size = spec.latent_channels * height * width;
		const decoder = await createTaehvDecoder({ backend, spec, weights, height, width });
		try {
			const frames = [];
			for (let index = 0; index < count; index++) {
				frames.push(await decoder.decode(latents.slice(index * size, (index + 1) * size)));
			}
			const video = joinFrames(frames);
			yield { case: name, outputs: [closeTo('video', video.data, tensors.floats('video', [1, video.count, 3, video.height, video.width]))] };
		} finally {
			await decoder.close();
		}
	}
};
