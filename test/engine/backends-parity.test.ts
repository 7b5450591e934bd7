/** Every graph against the slow reference, on random models of odd shapes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReferenceDit } from '../../src/engine/backends/reference-dit.js';
import { loadReferenceNetworks } from '../../src/engine/backends/reference.js';
import { KvCache } from '../../src/engine/kv-cache.js';
import { loadNetworks, type Networks, type PromptTensors, type StepInputs } from '../../src/engine/networks.js';
import { CPU_PROFILES, type CpuProfile } from '../../src/engine/protocol.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { Weights } from '../../src/model/weights.js';
import { assertClose, assertWithin } from '../model/closeness.js';
import { randomNormals, type RandomModelOptions, writeRandomModel } from '../model/random-model.js';

const TOLERANCE: { readonly [P in CpuProfile]: number } = { 'cpu-fp32': 1e-5, 'cpu-int8': 3e-2, 'cpu-int8-attention': 3e-2 };

/** Besides the small spec itself: shapes that a shortcut would get wrong. */
const MODELS: { readonly [what: string]: RandomModelOptions } = {
	'the small spec': {},
	'bfloat16 weights': { dtype: 'BF16' },
	'one latent a chunk, one head, no control, no pooled text': {
		changes: { dit: { num_heads: 1, dim: 26, control_dim: 0, pooled_text: false }, stream: { latents_per_chunk: 1, window_latents: 3 }, controls: [], control_present_index: 0 },
	},
	'no qk norm, no cross norm, patches of 1x1': { changes: { dit: { qk_norm: false, cross_attn_norm: false, patch_size: [1, 1, 1], dim: 24, num_heads: 2, num_layers: 1 } } },
	'learned positions': { changes: { dit: { position_grid: [2, 3] }, sizes: [[48, 32]] } },
	'oblong patches and a large base': { changes: { dit: { patch_size: [1, 1, 2], rope_theta: 10_000 } } },
};

const tokensOf = (networks: Networks, latents: number): number => latents * networks.tokensPerLatent;

const stepInputs = (networks: Networks, prompt: PromptTensors, pastLatents: number, seed: number): StepInputs => {
	const { spec, latentWidth, latentHeight, headDim } = networks;
	const frames = spec.stream.latents_per_chunk;
	const pastTokens = tokensOf(networks, pastLatents);
	const past = (salt: number): Float32Array[] =>
		Array.from({ length: spec.dit.num_layers }, (_, layer) => randomNormals(spec.dit.num_heads * pastTokens * headDim, seed * 100 + salt + layer));
	return {
		latent: randomNormals(spec.dit.in_dim * frames * latentWidth * latentHeight, seed), timesteps: Array.from({ length: frames }, (_, frame) => 700 - 300 * frame),
		control: randomNormals(frames * spec.dit.control_dim, seed + 1), prompt, firstPosition: pastLatents + 3,
		pastK: past(10), pastV: past(50), pastTokens, wantKeysAndValues: true,
	};
};

for (const [what, options] of Object.entries(MODELS)) {
	test(`prompt, denoiser (past of 0, 1 and 4 latents) and decoder agree with the reference: ${what}`, async () => {
		await using model = await writeRandomModel(options);
		const size = { folder: model.path, width: 48, height: 32 };
		const reference = await loadReferenceNetworks(size);
		for (const profile of CPU_PROFILES) {
			const networks = await loadNetworks({ ...size, profile, threads: 1 });
			const text = 'a cat jumps over zebra';
			const [prompt, expected] = [await networks.encodePrompt(text), await reference.encodePrompt(text)];
			// Text runs in float32 in both profiles.
			assertClose(prompt.context, expected.context, 1e-5, 'context');
			for (const [layer, k] of expected.crossK.entries()) {
				assertClose(prompt.crossK[layer], k, 1e-5, `cross k ${layer}`);
				assertClose(prompt.crossV[layer], expected.crossV[layer], 1e-5, `cross v ${layer}`);
			}
			assert.equal(prompt.pooled !== undefined, model.spec.dit.pooled_text);
			assert.deepEqual(prompt.unknownWords, ['zebra']);
			if (prompt.pooled !== undefined) {
				assertClose(prompt.pooled, expected.pooled, 1e-5, 'pooled');
			}
			for (const pastLatents of [0, 1, 4]) {
				const inputs = stepInputs(networks, expected, pastLatents, 7 + pastLatents);
				const [actual, wanted] = [await networks.step(inputs), await reference.step(inputs)];
				assertClose(actual.velocity, wanted.velocity, TOLERANCE[profile], `${profile} velocity, past ${pastLatents}`);
				for (const [layer, k] of (wanted.newK ?? []).entries()) {
					assertClose(actual.newK?.[layer], k, TOLERANCE[profile], `${profile} new k ${layer}`);
					assertClose(actual.newV?.[layer], wanted.newV?.[layer], TOLERANCE[profile], `${profile} new v ${layer}`);
				}
				const velocityAlone = await networks.step({ ...inputs, wantKeysAndValues: false });
				assert.deepEqual(velocityAlone, { velocity: actual.velocity }, 'fetching less changes nothing');
			}
			let [memory, expectedMemory] = [networks.emptyMemory(), reference.emptyMemory()];
			for (let latent = 0; latent < 3; latent++) {
				const z = randomNormals(model.spec.vae.latent_channels * networks.latentWidth * networks.latentHeight, 90 + latent);
				const [decoded, wanted] = [await networks.decodeLatent(z, memory), await reference.decodeLatent(z, expectedMemory)];
				[memory, expectedMemory] = [decoded.memory, wanted.memory];
				for (const [index, frame] of wanted.frames.entries()) {
					// A step of rounding where float32 and float64 fall on different sides of a half.
					assertWithin(decoded.frames[index] ?? [], frame, 1, `frame ${index} of latent ${latent}`);
				}
				for (const [index, kept] of wanted.memory.entries()) {
					assertClose(decoded.memory[index] as Float32Array, kept as Float32Array, 1e-5, `memory ${index}`);
				}
			}
			await networks.close();
		}
	});
}

const CHUNKS = 5;

for (const [what, window, sink] of [['before any eviction', 12, 0], ['with a window that evicts', 6, 0], ['with a window that evicts and a sink', 6, 2]] as const) {
	test(`chunk by chunk with cached keys equals one forward over the whole sequence, ${what}`, async () => {
		await using model = await writeRandomModel({ changes: { stream: { window_latents: window, sink_latents: sink } } });
		const { spec } = model;
		const frames = spec.stream.latents_per_chunk;
		const networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width: 48, height: 32, threads: 1 });
		const { latentWidth: width, latentHeight: height, headDim, tokensPerLatent } = networks;
		const prompt = await networks.encodePrompt('the dog flies');
		const [channels, area] = [spec.dit.in_dim, width * height];
		const latent = randomNormals(channels * CHUNKS * frames * area, 5); // [C, all frames, h, w]
		const control = randomNormals(CHUNKS * frames * spec.dit.control_dim, 6);
		const timesteps = Array.from({ length: CHUNKS * frames }, (_, frame) => 100 * frame);

		const whole = new ReferenceDit(spec.dit, new Weights(await (await openModelFolder(model.path)).readWeights('dit'))).forward({
			latent, frames: CHUNKS * frames, height, width, timesteps, control, text: { ...prompt, crossK: [...prompt.crossK], crossV: [...prompt.crossV] },
			firstPosition: 0, pastK: [], pastV: [],
			// The window counts back from the end of the query's chunk.
			sees: (query, key) => {
				const end = (Math.floor(query / frames) + 1) * frames;
				return key < end && (key >= end - window + sink || key < sink);
			},
		});

		const cache = new KvCache({ layers: spec.dit.num_layers, heads: spec.dit.num_heads, headDim, tokensPerLatent, capacityLatents: window - frames, sinkLatents: sink });
		const part = (from: Float32Array, chunk: number): Float32Array => // frames of a chunk out of [C, all frames, h, w]
			Float32Array.from(Array.from({ length: channels }, (_, channel) =>
				[...from.subarray((channel * CHUNKS + chunk) * frames * area, (channel * CHUNKS + chunk + 1) * frames * area)]).flat());
		for (let chunk = 0; chunk < CHUNKS; chunk++) {
			const perChunk = frames * spec.dit.control_dim;
			const { velocity, newK = [], newV = [] } = await networks.step({
				latent: part(latent, chunk), timesteps: timesteps.slice(chunk * frames, (chunk + 1) * frames), control: control.slice(chunk * perChunk, (chunk + 1) * perChunk),
				prompt, firstPosition: chunk * frames, pastK: cache.layers.map(({ k }) => k), pastV: cache.layers.map(({ v }) => v), pastTokens: cache.past, wantKeysAndValues: true,
			});
			assertClose(velocity, part(whole.velocity, chunk), 1e-4, `chunk ${chunk}`);
			cache.append(newK.map((k, layer) => ({ k, v: newV[layer] ?? new Float32Array(0) })), frames);
		}
		await networks.close();
	});
}

test('the same inputs give the same bits with one thread and two, run after run', async () => {
	await using model = await writeRandomModel();
	for (const profile of CPU_PROFILES) {
		const results: unknown[] = [];
		for (const threads of [1, 2]) {
			const networks = await loadNetworks({ folder: model.path, profile, width: 48, height: 32, threads });
			const prompt = await networks.encodePrompt('a cat on the beach');
			for (let run = 0; run < 2; run++) {
				results.push(await networks.step(stepInputs(networks, prompt, 2, 3)));
			}
			await networks.close();
		}
		for (const result of results) {
			assert.deepEqual(result, results[0]);
		}
	}
});

test('a size that the model does not have is invalid_request and names those it has', async () => {
	await using model = await writeRandomModel();
	await assert.rejects(loadNetworks({ folder: model.path, profile: 'cpu-int8', width: 64, height: 64, threads: 1 }), { code: 'invalid_request', message: /48x32, 32x32/u });
});
