/** The graphs of every profile, run on the CPU and held to the slow reference: what is emitted for a graphics card is right wherever it runs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { loadReferenceNetworks } from '../../src/engine/backends/reference.js';
import type { Feeds, Graph, Tensor } from '../../src/engine/backend.js';
import { decoderArithmetic, denoiserArithmetic, stateType } from '../../src/engine/profile.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { stateFeed } from '../../src/engine/resident-kv.js';
import { ditGraph } from '../../src/model/dit.js';
import { fromFloat16 } from '../../src/model/float16.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { ropeTables } from '../../src/model/rope.js';
import { timeSinusoids } from '../../src/model/time-embedding.js';
import { decoderGraph } from '../../src/model/vae-decoder.js';
import { Weights } from '../../src/model/weights.js';
import { assertClose } from '../model/closeness.js';
import { randomNormals, writeRandomModel } from '../model/random-model.js';

const TOLERANCES = { 'webgpu-fp32': 1e-5, 'webgpu-fp16': 1e-2, 'cuda-fp16': 1e-2 } as const satisfies { readonly [P in EngineProfile]?: number };

const SIZE = { width: 48, height: 32 };

const floats = (tensor: Tensor | undefined): Float32Array => (tensor?.data instanceof Uint16Array ? fromFloat16(tensor.data) : tensor?.data as Float32Array);

const run = async (graph: Graph, feeds: Feeds): Promise<{ [name: string]: Tensor }> => {
	const session = await createOnnxRuntime({ threads: 1 }).load(graph);
	try {
		return await session.run(feeds);
	} finally {
		await session.close();
	}
};

for (const [profile, tolerance] of Object.entries(TOLERANCES) as [keyof typeof TOLERANCES, number][]) {
	test(`denoiser and decoder of ${profile} agree with the reference to ${tolerance}`, async () => {
		await using model = await writeRandomModel();
		const { spec } = model;
		const folder = await openModelFolder(model.path);
		const reference = await loadReferenceNetworks({ folder: model.path, ...SIZE });
		const prompt = await reference.encodePrompt('a cat jumps over the beach');
		const type = stateType(profile);
		const { latentWidth: width, latentHeight: height, headDim, tokensPerLatent, tokensPerChunk } = reference;
		const { num_heads: heads, num_layers: layers, control_dim: controls, text_len: textLength } = spec.dit;
		const frames = spec.stream.latents_per_chunk;
		const pastTokens = 3 * tokensPerLatent;
		const past = (salt: number): Float32Array[] => Array.from({ length: layers }, (_, layer) => randomNormals(heads * pastTokens * headDim, salt + layer));
		const inputs = {
			latent: randomNormals(spec.dit.in_dim * frames * width * height, 1), timesteps: [700, 400], control: randomNormals(frames * controls, 2), prompt, firstPosition: 3,
			pastK: past(10), pastV: past(20), pastTokens, wantKeysAndValues: true,
		};
		const wanted = await reference.step(inputs);

		const dit = ditGraph(spec.dit, { weights: new Weights(await folder.readWeights('dit')), mode: { kind: 'chunk' }, ...denoiserArithmetic(profile), frames, height, width });
		const { cos, sin } = ropeTables(headDim, spec.dit.rope_theta, { firstPosition: 3, frames, rows: height / 2, columns: width / 2 });
		const states = (name: string, tensors: readonly Float32Array[], tokens: number): Feeds =>
			Object.fromEntries(tensors.map((data, layer) => [`${name}.${layer}`, stateFeed(data, [heads, tokens, headDim], type)]));
		const tensor = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
		const results = await run(dit, {
			latent: tensor([spec.dit.in_dim, frames, height, width], inputs.latent), time: tensor([frames, spec.dit.freq_dim], timeSinusoids(inputs.timesteps, spec.dit.freq_dim)),
			rope_cos: tensor([tokensPerChunk, headDim / 2], cos), rope_sin: tensor([tokensPerChunk, headDim / 2], sin), control: tensor([frames, controls], inputs.control),
			pooled: tensor([spec.dit.dim], prompt.pooled ?? assert.fail('no pooled text')),
			...states('past_k', inputs.pastK, pastTokens), ...states('past_v', inputs.pastV, pastTokens), ...states('cross_k', prompt.crossK, textLength), ...states('cross_v', prompt.crossV, textLength),
		});
		assertClose(floats(results['velocity']), wanted.velocity, tolerance, 'velocity');
		for (const [layer, k] of (wanted.newK ?? []).entries()) {
			assert.equal(results[`new_k.${layer}`]?.type, type);
			assertClose(floats(results[`new_k.${layer}`]), k, tolerance, `new k ${layer}`);
			assertClose(floats(results[`new_v.${layer}`]), wanted.newV?.[layer], tolerance, `new v ${layer}`);
		}

		const latent = randomNormals(spec.vae.latent_channels * width * height, 5);
		const decoded = await reference.decodeLatent(latent, reference.emptyMemory());
		const decoder = decoderGraph(spec.vae, { weights: new Weights(await folder.readWeights('vae')), arithmetic: decoderArithmetic(profile, false), output: 'i420 words', height, width });
		const memories = decoder.inputs.filter(({ name }) => name.startsWith('memory')).map(({ name, dims }) =>
			[name, stateFeed(new Float32Array((dims as number[]).reduce((product, size) => product * size, 1)), dims as number[], type)] as const);
		const pictures = await run(decoder, { latent: tensor([spec.vae.latent_channels, height, width], latent), ...Object.fromEntries(memories) });
		const words = pictures['frames']?.data as Int32Array;
		const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
		// Bytes: a level where float32 and float64 fall on different sides of a half, two of 255 in float16.
		const levels = tolerance < 1e-3 ? 1 : 2;
		decoded.frames.flatMap((frame) => [...frame]).forEach((byte, index) => assert.ok(Math.abs(byte - (bytes[index] ?? Number.NaN)) <= levels, `byte ${index} is ${bytes[index]}, not ${byte}`));
		assert.equal(bytes.length, decoded.frames.reduce((sum, frame) => sum + frame.length, 0));
	});
}
