/** The Wan VAE and TAEHV as streams against the same networks in plain loops over whole clips. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { decodeTaehvClip } from '../../src/engine/backends/reference-taehv.js';
import { decodeWanClip, encodeWanClip } from '../../src/engine/backends/reference-wan-vae.js';
import type { Planes } from '../../src/engine/backends/reference-math.js';
import { createTaehvDecoder, createWanDecoder, encodeClip, type VideoDecoder, type VideoFrames } from '../../src/engine/video-codec.js';
import { taehvTensors, wanVaeTensors } from '../../src/model/checkpoint/network-tensors.js';
import { parseTaehvSpec } from '../../src/model/taehv.js';
import { framesPerLatent, parseWanVaeSpec, spatialStride } from '../../src/model/wan-vae-spec.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { assertClose } from '../model/closeness.js';
import { randomNormals } from '../model/random-model.js';
import { randomWeights } from '../model/random-weights.js';

const backend = createOnnxRuntime({ threads: 1 });
const TOLERANCE = 1e-5;

const planes = (channels: number, height: number, width: number, seed: number): Planes & { data: Float32Array } =>
	({ channels, height, width, data: randomNormals(channels * height * width, seed) });

const clipOf = (count: number, channels: number, height: number, width: number) =>
	Array.from({ length: count }, (_, index) => planes(channels, height, width, 700 + index));

const streamed = async (decoder: VideoDecoder, latents: readonly { data: Float32Array }[]): Promise<VideoFrames[]> => {
	const parts: VideoFrames[] = [];
	for (const { data } of latents) {
		parts.push(await decoder.decode(data));
	}
	return parts;
};

const assertSameVideo = (parts: readonly VideoFrames[], expected: readonly Planes[], what: string): void => {
	const frames = parts.flatMap(({ count, data }) => Array.from({ length: count }, (_, index) => data.subarray((index * data.length) / count, ((index + 1) * data.length) / count)));
	assert.equal(frames.length, expected.length, `${what}: number of frames`);
	for (const [index, frame] of frames.entries()) {
		assertClose(frame, expected[index]?.data, TOLERANCE, `${what}: frame ${index}`);
	}
};

const WAN = { dim: 4, z_dim: 3, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_scales: [], temperal_downsample: [false, true, true] };
const VARIANTS: { readonly [what: string]: object } = {
	'the layout of Wan 2.1': {},
	'two levels, time first, normalised latents': { dim_mult: [1, 3], num_res_blocks: 1, temperal_downsample: [true], latent_mean: [0.1, -0.2, 0.3], latent_std: [1.5, 0.5, 2] },
	'no time at all, attention between the levels': { dim_mult: [1, 2, 2], num_res_blocks: 1, temperal_downsample: [false, false], attn_scales: [0.5] },
};

for (const [what, changes] of Object.entries(VARIANTS)) {
	test(`Wan VAE: latent by latent equals the whole clip for 1 to 4 latents, and a restart begins anew: ${what}`, async () => {
		const spec = parseWanVaeSpec({ ...WAN, ...changes });
		const weights = randomWeights(wanVaeTensors(spec), 1);
		const decoder = await createWanDecoder({ backend, spec, weights, height: 2, width: 3 });
		try {
			for (const count of [1, 2, 4]) {
				const latents = clipOf(count, spec.z_dim, 2, 3);
				const parts = await streamed(decoder, latents);
				assert.deepEqual(parts.map((part) => part.count), latents.map((_, index) => (index === 0 ? 1 : framesPerLatent(spec))));
				assertSameVideo(parts, decodeWanClip(spec, weights, latents), `${count} latents`);
				decoder.restart();
			}
		} finally {
			await decoder.close();
		}
	});

	test(`Wan VAE: encoding chunk by chunk equals the whole clip: ${what}`, async () => {
		const spec = parseWanVaeSpec({ ...WAN, ...changes });
		const weights = randomWeights(wanVaeTensors(spec), 2);
		const count = 1 + 2 * framesPerLatent(spec);
		const [height, width] = [2 * spatialStride(spec), spatialStride(spec)];
		const frames = clipOf(count, 3, height, width);
		const data = Float32Array.from(frames.flatMap((frame) => [...frame.data]));
		const latents = await encodeClip(backend, spec, weights, { count, height, width, data });
		const expected = encodeWanClip(spec, weights, frames);
		assert.equal(latents.length, 3);
		for (const [index, latent] of latents.entries()) {
			assertClose(latent, expected[index]?.data, TOLERANCE, `latent ${index}`);
		}
	});
}

test('sizes that the VAE cannot make are refused with the nearest one it can', async () => {
	const spec = parseWanVaeSpec(WAN);
	const weights = randomWeights(wanVaeTensors(spec), 3);
	const refusal = (count: number, height: number, width: number, pattern: RegExp) =>
		assert.rejects(encodeClip(backend, spec, weights, { count, height, width, data: new Float32Array(0) }), (error: unknown) => error instanceof TurbocastError && error.code === 'invalid_request' && pattern.test(error.message));
	await refusal(5, 16, 21, /multiples of 8, not 21x16; the nearest size is 24x16/u);
	await refusal(7, 16, 16, /not 7; the nearest number is 9/u);
	await refusal(0, 16, 16, /nearest number is 1\./u);
});

test('a configuration whose fields do not fit each other is refused', () => {
	assert.throws(() => parseWanVaeSpec({ ...WAN, temperal_downsample: [true] }), /temperal_downsample needs one entry less/u);
	assert.throws(() => parseWanVaeSpec({ ...WAN, latent_mean: [1, 2, 3] }), /need 3 numbers each/u);
	assert.throws(() => parseTaehvSpec({ widths: [4, 4, 4], latent_channels: 3, grow: [1] }), /grow needs 2 numbers/u);
});

const TAEHV: { readonly [what: string]: object } = {
	'the layout of taew2_1': { widths: [10, 8, 6, 6], latent_channels: 4 },
	'two levels of one block, time first': { widths: [6, 5, 4], latent_channels: 3, grow: [3, 1], blocks: 1 },
};

for (const [what, config] of Object.entries(TAEHV)) {
	test(`TAEHV: latent by latent equals the whole clip, without the frames before its start: ${what}`, async () => {
		const spec = parseTaehvSpec(config);
		const weights = randomWeights(taehvTensors(spec), 4);
		const latents = clipOf(3, spec.latent_channels, 3, 2);
		const expected = decodeTaehvClip(spec, weights, latents);
		const decoder = await createTaehvDecoder({ backend, spec, weights, height: 3, width: 2 });
		try {
			for (const run of ['first', 'second']) {
				const parts = await streamed(decoder, latents);
				assert.equal(parts[0]?.count, 1);
				assertSameVideo(parts, expected, `${run} stream`);
				decoder.restart();
			}
		} finally {
			await decoder.close();
		}
	});
}
