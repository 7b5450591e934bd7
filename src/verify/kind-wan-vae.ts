/** `wan-vae`: the Wan 2.1 VAE, latent by latent as it streams, and its encoder. */
import type { Backend } from '../engine/backend.js';
import { createWanDecoder, encodeClip } from '../engine/video-codec.js';
import { latentSize, parseWanVaeSpec, type WanVaeSpec } from '../model/wan-vae-spec.js';
import type { Weights } from '../model/weights.js';
import { anything } from '../protocol/schema.js';
import { readWeights } from './golden-folder.js';
import type { GoldenTensors } from './golden-tensors.js';
import { closeTo, type CheckedOutput, type Verifier } from './verifier.js';
import { joinFrames, swapFirstAxes } from './video-tensors.js';

/** `z` [1, C, T, h, w] to `video`. */
const checkDecoder = async (spec: WanVaeSpec, weights: Weights, tensors: GoldenTensors, backend: Backend): Promise<CheckedOutput> => {
	const [, , count = 0, height = 0, width = 0] = tensors.shape('z', [1, spec.z_dim, undefined, undefined, undefined]);
	const latents = swapFirstAxes(tensors.floats('z'), spec.z_dim, count); // [T, C, h, w]
	const size = spec.z_dim * height * width;
	const decoder = await createWanDecoder({ backend, spec, weights, height, width });
	try {
		const frames = [];
		for (let index = 0; index < count; index++) {
			frames.push(await decoder.decode(latents.slice(index * size, (index + 1) * size)));
		}
		const video = joinFrames(frames);
		return closeTo('video', swapFirstAxes(video.data, video.count, 3), tensors.floats('video', [1, 3, video.count, video.height, video.width]));
	} finally {
		await decoder.close();
	}
};

/** `encode.video` [1, 3, F, H, W] to `encode.mu`. */
const checkEncoder = async (spec: WanVaeSpec, weights: Weights, tensors: GoldenTensors, backend: Backend): Promise<CheckedOutput> => {
	const [, , count = 0, height = 0, width = 0] = tensors.shape('encode.video', [1, 3, undefined, undefined, undefined]);
	const size = latentSize(spec, { frames: count, height, width });
	const encoded = await encodeClip(backend, spec, weights, { count, height, width, data: swapFirstAxes(tensors.floats('encode.video'), 3, count) });
	const area = size.height * size.width;
	const { data } = joinFrames(encoded.map((latent) => ({ count: 1, height: size.height, width: size.width, data: latent })));
	return closeTo('encode.mu', swapFirstAxes(data, data.length / (spec.z_dim * area), spec.z_dim), tensors.floats('encode.mu', [1, spec.z_dim, size.latents, size.height, size.width]));
};

/** A case has a clip to decode, one to encode, or both. */
export const verifyWanVae: Verifier = async function* (folder, _profile, backend) {
	const spec = parseWanVaeSpec(folder.config(anything()));
	const weights = await readWeights(folder);
	for (const { name, read } of folder.cases) {
		const tensors = await read();
		const isEncoded = tensors.has('encode.video');
		yield {
			case: name,
			outputs: [
				...(isEncoded && !tensors.has('z') ? [] : [await checkDecoder(spec, weights, tensors, backend)]),
				...(isEncoded ? [await checkEncoder(spec, weights, tensors, backend)] : []),
			],
		};
	}
};
