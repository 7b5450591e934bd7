/** Graphs against tensors of the original implementations: umT5, Self-Forcing's causal Wan, and what training exported of the shipped model. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { ReferenceDit } from '../../src/engine/backends/reference-dit.js';
import { encodeText } from '../../src/engine/backends/reference-text.js';
import type { Feeds, Tensor } from '../../src/engine/backend.js';
import { KvCache } from '../../src/engine/kv-cache.js';
import { loadNetworks } from '../../src/engine/networks.js';
import { CPU_PROFILES } from '../../src/engine/protocol.js';
import { ditGraph } from '../../src/model/dit.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { ropeTables } from '../../src/model/rope.js';
import { parseSafetensors, readFloats, type Safetensors } from '../../src/model/safetensors.js';
import { type DitDimensions, ownModel, type TextSpec } from '../../src/model/spec.js';
import { textEncoderGraph } from '../../src/model/text-encoder.js';
import { textKeysGraph } from '../../src/model/text-keys.js';
import { timeSinusoids } from '../../src/model/time-embedding.js';
import { decoderGraph } from '../../src/model/vae-decoder.js';
import { Weights } from '../../src/model/weights.js';
import { assertClose } from '../model/closeness.js';
import { repositoryRoot } from '../repository.js';

const FLOAT_TOLERANCE = 1e-4;
const INT8_TOLERANCE = 2e-2;
/** A trained network has outliers that random weights have not, and activations share one scale. */
const TRAINED_INT8_TOLERANCE = 5e-2;
const LINEARS = [['float32', FLOAT_TOLERANCE], ['int8', INT8_TOLERANCE]] as const;

const golden = join(repositoryRoot, 'test', 'fixtures', 'golden');
const open = (path: string): Safetensors => parseSafetensors(path, readFileSync(path));
const config = (kind: string): Record<string, number> => JSON.parse(readFileSync(join(golden, kind, 'config.json'), 'utf8')) as Record<string, number>;

const entry = (file: Safetensors, name: string) => file.tensors.get(name) ?? assert.fail(`no tensor ${name}`);
const floats = (file: Safetensors, name: string): Float32Array => readFloats(file, entry(file, name));
const integers = (file: Safetensors, name: string): number[] => {
	const { dtype, offset, byteLength } = entry(file, name);
	const bytes = new Uint8Array(file.bytes.subarray(offset, offset + byteLength));
	return dtype === 'I64' ? [...new BigInt64Array(bytes.buffer)].map(Number) : [...new Int32Array(bytes.buffer)];
};
const tensor = (dims: readonly number[], data: Float32Array): Tensor => ({ type: 'float32', dims, data });
const backend = createOnnxRuntime({ threads: 1 });

test('umT5: hidden states of a padded prompt, graph and reference', async () => {
	const { vocab = 0, dim = 0, dim_attn = 0, dim_ffn = 0, num_heads = 0, num_layers = 0, num_buckets = 0 } = config('umt5');
	const file = open(join(golden, 'umt5', 'case-1.safetensors'));
	const [ids, mask, hidden] = [integers(file, 'ids'), integers(file, 'mask'), floats(file, 'hidden')];
	const spec: TextSpec = { kind: 'umt5', vocab_size: vocab, dim, dim_attn, dim_ffn, num_heads, num_layers, num_buckets, max_dist: 128, eps: 1e-6, text_len: ids.length };
	const weights = new Weights(open(join(golden, 'umt5', 'weights.safetensors')));
	const session = await backend.load(textEncoderGraph(spec, weights));
	const { context } = await session.run({
		ids: { type: 'int64', dims: [1, ids.length], data: BigInt64Array.from(ids, BigInt) }, mask: tensor([1, ids.length], Float32Array.from(mask)),
	});
	await session.close();
	const used = mask.filter((value) => value === 1).length * dim;
	assert.ok(used > 0 && used < hidden.length, 'the case has padding');
	const whole = context?.data as Float32Array;
	assertClose(whole.subarray(0, used), hidden.subarray(0, used), FLOAT_TOLERANCE, 'graph');
	assert.ok(whole.subarray(used).every((value) => value === 0), 'rows of padding are zero');
	assertClose(encodeText(spec, weights, ids, mask).subarray(0, used), hidden.subarray(0, used), FLOAT_TOLERANCE, 'reference');
});

const [BLOCKS, STEPS, FRAMES, HEIGHT, WIDTH] = [4, 3, 2, 8, 12];

for (const [linears, tolerance] of LINEARS) {
	test(`causal Wan: every step of four chunks with a window that evicts and a sink, ${linears} linears`, async () => {
		const { local_attn_size: window = 0, sink_size: sinkLatents = 0, ...dimensions } = config('wan-causal-window');
		const spec = { ...dimensions, kind: 'wan-causal', rope_theta: 10_000, control_dim: 0, pooled_text: false } as unknown as DitDimensions;
		const file = open(join(golden, 'wan-causal-window', 'case-1.safetensors'));
		const weights = new Weights(open(join(golden, 'wan-causal-window', 'weights.safetensors')));
		const { num_heads: heads, num_layers: layers, dim, text_len, text_dim, freq_dim } = spec;
		const [headDim, tokensPerLatent] = [dim / heads, (HEIGHT / 2) * (WIDTH / 2)];
		const denoiser = await backend.load(ditGraph(spec, { weights, linears, mode: { kind: 'chunk' }, frames: FRAMES, height: HEIGHT, width: WIDTH }));
		const textKeys = await backend.load(textKeysGraph(spec, weights));
		const text = await textKeys.run({ context: tensor([text_len, text_dim], floats(file, 'context')) });
		const cache = new KvCache({ layers, heads, headDim, tokensPerLatent, capacityLatents: window - FRAMES, sinkLatents });
		for (let block = 0; block < BLOCKS; block++) {
			const rope = ropeTables(headDim, spec.rope_theta, { firstPosition: block * FRAMES, frames: FRAMES, rows: HEIGHT / 2, columns: WIDTH / 2 });
			const tableDims = [FRAMES * tokensPerLatent, headDim / 2];
			for (let step = 0; step < STEPS; step++) {
				const at = `block${block}.step${step}`;
				const feeds: Feeds = {
					latent: tensor([spec.in_dim, FRAMES, HEIGHT, WIDTH], floats(file, `${at}.x`)),
					time: tensor([FRAMES, freq_dim], timeSinusoids([...floats(file, `${at}.timestep`)], freq_dim)),
					rope_cos: tensor(tableDims, rope.cos), rope_sin: tensor(tableDims, rope.sin), ...text,
					...Object.fromEntries(cache.layers.flatMap(({ k, v }, layer) =>
						[[`past_k.${layer}`, tensor([heads, cache.past, headDim], k)], [`past_v.${layer}`, tensor([heads, cache.past, headDim], v)]])),
				};
				const outputs = await denoiser.run(feeds);
				assertClose(outputs['velocity']?.data as Float32Array, floats(file, `${at}.velocity`), tolerance, at);
				if (step === STEPS - 1) { // the clean pass stays
					cache.append(Array.from({ length: layers }, (_, layer) => ({
						k: outputs[`new_k.${layer}`]?.data as Float32Array, v: outputs[`new_v.${layer}`]?.data as Float32Array,
					})), FRAMES);
				}
			}
		}
		await Promise.all([denoiser.close(), textKeys.close()]);
	});
}

test('causal Wan: the reference gives the original\'s velocity of the first two chunks', () => {
	const spec = { ...config('wan-causal-window'), kind: 'wan-causal', rope_theta: 10_000, control_dim: 0, pooled_text: false } as unknown as DitDimensions;
	const file = open(join(golden, 'wan-causal-window', 'case-1.safetensors'));
	const reference = new ReferenceDit(spec, new Weights(open(join(golden, 'wan-causal-window', 'weights.safetensors'))));
	const text = reference.text(floats(file, 'context'), []);
	const shared = { frames: FRAMES, height: HEIGHT, width: WIDTH, control: new Float32Array(0), text };
	const call = (at: string) => ({ ...shared, latent: floats(file, `${at}.x`), timesteps: [...floats(file, `${at}.timestep`)] });
	const clean = reference.forward({ ...call('block0.step2'), firstPosition: 0, pastK: [], pastV: [] });
	assertClose(clean.velocity, floats(file, 'block0.step2.velocity'), FLOAT_TOLERANCE, 'chunk 0');
	const second = reference.forward({ ...call('block1.step1'), firstPosition: FRAMES, pastK: clean.newK, pastV: clean.newV });
	assertClose(second.velocity, floats(file, 'block1.step1.velocity'), FLOAT_TOLERANCE, 'chunk 1');
});

const toybox = join(repositoryRoot, 'models', 'toybox');
const shipped = open(join(toybox, 'golden.safetensors'));

for (const profile of CPU_PROFILES) {
	test(`the shipped model: prompt, four clean passes and a step after the first eviction as PyTorch computed them, ${profile}`, async () => {
		const networks = await loadNetworks({ folder: toybox, profile, width: 128, height: 128, threads: 1 });
		try {
			const { spec, headDim, tokensPerLatent } = networks;
			const { latents_per_chunk: frames, window_latents: window, sink_latents: sinkLatents } = spec.stream;
			const prompt = spec.examples.find((example) =>
				networks.tokenizer.tokenize(example).ids.every((id, index) => id === integers(shipped, 'text.ids')[index])) ?? assert.fail('no example has the golden ids');
			const encoded = await networks.encodePrompt(prompt);
			assertClose(encoded.context, floats(shipped, 'text.context'), FLOAT_TOLERANCE, 'context');
			const cache = new KvCache({ layers: spec.dit.num_layers, heads: spec.dit.num_heads, headDim, tokensPerLatent, capacityLatents: window - frames, sinkLatents });
			const run = async (at: string, chunk: number) => networks.step({
				latent: floats(shipped, `${at}.x`), timesteps: [...floats(shipped, `${at}.timestep`)], control: floats(shipped, `${at}.control`), prompt: encoded,
				firstPosition: chunk * frames, pastK: cache.layers.map(({ k }) => k), pastV: cache.layers.map(({ v }) => v), pastTokens: cache.past, wantKeysAndValues: true,
			});
			let chunk = 0;
			for (; shipped.tensors.has(`dit.past.${chunk}.x`); chunk++) {
				const { newK = [], newV = [] } = await run(`dit.past.${chunk}`, chunk);
				cache.append(newK.map((k, layer) => ({ k, v: newV[layer] ?? new Float32Array(0) })), frames);
			}
			assert.ok(chunk * frames > window - frames, 'the window has evicted');
			const { velocity } = await run('dit.step', chunk);
			assertClose(velocity, floats(shipped, 'dit.step.velocity'), profile !== 'cpu-fp32' ? TRAINED_INT8_TOLERANCE : FLOAT_TOLERANCE, 'velocity');
		} finally {
			await networks.close();
		}
	});
}

test('the shipped model: three latents decoded as PyTorch decoded them', async () => {
	const folder = await openModelFolder(toybox);
	const { vae } = ownModel(folder.spec);
	const [height, width] = [16, 16];
	const session = await backend.load(decoderGraph(vae, { weights: new Weights(await folder.readWeights('vae')), arithmetic: 'float32', height, width, output: 'rgb' }));
	const latents = floats(shipped, 'decoder.latents'); // [C, 3, h, w]
	const decoded: Float32Array[] = [];
	let memory: Record<string, Tensor> = Object.fromEntries(session.inputs.filter(({ name }) => name.startsWith('memory')).map(({ name, dims }) => {
		const known = dims.map(Number);
		return [name, tensor(known, new Float32Array(known.reduce((product, size) => product * size, 1)))];
	}));
	for (let index = 0; index < 3; index++) {
		const area = height * width;
		const latent = new Float32Array(vae.latent_channels * area);
		for (let channel = 0; channel < vae.latent_channels; channel++) {
			latent.set(latents.subarray((channel * 3 + index) * area, (channel * 3 + index + 1) * area), channel * area);
		}
		const { frames, ...next } = await session.run({ latent: tensor([vae.latent_channels, height, width], latent), ...memory });
		memory = Object.fromEntries(Object.entries(next).map(([name, value]) => [name.replace('memory_out', 'memory'), value]));
		const size = (frames?.data.length ?? 0) / vae.frames_per_latent;
		decoded.push(...Array.from({ length: vae.frames_per_latent }, (_, frame) => (frames?.data as Float32Array).slice(frame * size, (frame + 1) * size)));
	}
	await session.close();
	const expected = floats(shipped, 'decoder.frames');
	const indices = integers(shipped, 'decoder.frame_index');
	const size = expected.length / indices.length;
	for (const [position, index] of indices.entries()) {
		assertClose(decoded[index], expected.subarray(position * size, (position + 1) * size), FLOAT_TOLERANCE, `frame ${index}`);
	}
});
