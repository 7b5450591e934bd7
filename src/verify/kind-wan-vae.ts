/** `wan-vae`: the Wan 2.1 VAE, latent by latent as it streams, and its encoder. */
import { createWanDecoder, encodeClip } from '../engine/video-codec.js';
import { latentSize, parseWanVaeSpec } from '../model/wan-vae-spec.js';
import { anything } from '../protocol/schema.js';
import { readWeights } from './golden-folder.js';
import { closeTo, type CheckedOutput, type Verifier } from './verifier.js';
import { joinFrames, swapFirstAxes } from './video-tensors.js';

export const verifyWanVae: Verifier = async function* (folder, _profile, backend) {
	const spec = parseWanVaeSpec(folder.config(anything()));
	const weights = await readWeights(folder);
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const outputs: CheckedOutput[] = [];
		const [, , count = 0, height = 0, width = 0] = tensors.shape('z', [1, spec.z_dim, undefined, undefined, undefined]);
		// [C, T, h, w] to [T, C, h, w]
		const latents = swapFirstAxes(tensors.floats('z'), spec.z_dim, count);
		const decoder = await createWanDecoder({ backend, spec, weights, height, width });
		try {
			const size = spec.z_dim * height * width;
			const frames = [];
			for (let index = 0; index < count; index++) {
				frames.push(await decoder.decode(latents.slice(index * size, (index + 1) * size)));
			}
			const video = joinFrames(frames);
			outputs.push(closeTo('video', swapFirstAxes(video.data, video.count, 3), tensors.floats('video', [1, 3, video.count, video.height, video.width])));
		} finally {
			await decoder.close();
		}
		if (tensors.has('encode.video')) {
			const [, , clipFrames = 0, clipHeight = 0, clipWidth = 0] = tensors.shape('encode.video', [1, 3, undefined, undefined, undefined]);
			const clip = { count: clipFrames, height: clipHeight, width: clipWidth, data: swapFirstAxes(tensors.floats('encode.video'), 3, clipFrames) };
			const encoded = await encodeClip(backend, spec, weights, clip);
			const size = latentSize(spec, { frames: clipFrames, height: clipHeight, width: clipWidth });
			const mean = swapFirstAxes(Float32Array.from(encoded.flatMap((latent) => [...latent])), size.latents, spec.z_dim);
			outputs.push(closeTo('encode.mu', mean, tensors.floats('encode.mu', [1, spec.z_dim, size.latents, size.height, size.width])));
		}
		yield { case: name, outputs };
	}
};
