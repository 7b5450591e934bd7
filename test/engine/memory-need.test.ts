/** What a clip needs is known before anything is loaded: at the true dimensions, and with a model on disk. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ResidentTensor } from '../../src/engine/backend.js';
import { Generator } from '../../src/engine/generator.js';
import { type MemoryRequest, memoryNeed, planResidency } from '../../src/engine/memory-need.js';
import { loadNetworks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../../src/model/checkpoint/network-tensors.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import type { MappedSafetensors } from '../../src/model/safetensors.js';
import type { ModelSpec } from '../../src/model/spec.js';
import { parseTaehvSpec } from '../../src/model/taehv.js';
import { parseWanVaeSpec } from '../../src/model/wan-vae-spec.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { native } from './native-device.js';
import { bytesOf, watched } from './watched-device.js';

const DIT = {
	kind: 'wan-clip' as const, dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const TEXT = { kind: 'umt5' as const, vocab_size: 256_384, dim: 4096, dim_attn: 4096, dim_ffn: 10_240, num_heads: 64, num_layers: 24, num_buckets: 32, max_dist: 128, eps: 1e-6, text_len: 512 };
const VAE = parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });
const TAEHV = parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 });

const headers = (shapes: Shapes): MappedSafetensors =>
	({ label: 'x', path: '/x', tensors: new Map(Object.entries(shapes).map(([name, shape]) => [name, { name, dtype: 'BF16', shape, offset: 0, byteLength: 0 }])) });

const request = (changes: { dense?: boolean; taehv?: boolean; latents?: number; width?: number; height?: number; profile?: 'cpu-int8' | 'cpu-fp32' | 'cuda-int8' } = {}): MemoryRequest => {
	const { dense = false, taehv = false, latents = 21, width = 832, height = 480, profile = 'cpu-int8' } = changes;
	const spec = {
		name: 'wan', dit: DIT, text: TEXT, stream: { latents_per_chunk: 21, window_latents: 21, sink_latents: 0, context_timestep: 0 },
		vae: taehv ? { kind: 'taehv', network: TAEHV, latent_channels: 16, spatial_stride: 8, frames_per_latent: 4 } : { kind: 'wan-vae', network: VAE, latent_channels: 16, spatial_stride: 8, frames_per_latent: 4 },
		clip: { sigma_max: 80, ...(dense ? {} : { attention: { ratio: 0.1, blockQueries: 128, blockKeys: 64 } }) },
	} as unknown as ModelSpec;
	return {
		spec, profile, latents, width, height,
		files: { text: headers(textTensors(TEXT)), dit: headers(ditTensors(DIT, !dense)), vae: headers(taehv ? taehvTensors(TAEHV) : wanVaeTensors(VAE)) },
	};
};

const GB = 1e9;
const between = (value: number, low: number, high: number): void => assert.ok(value >= low * GB && value <= high * GB, `${(value / GB).toFixed(2)} GB is not from ${low} to ${high}`);

test('weights: 4 bytes a number in fp32, 1 in the linear layers of the blocks in int8; the encoder of text a layer at a time', () => {
	const small = { latents: 1, width: 16, height: 16 };
	const fp32 = memoryNeed(request({ ...small, dense: true, profile: 'cpu-fp32' }));
	// 1.419 billion parameters, of which 0.142 billion make keys and values of the text, and 0.009 billion embed it.
	between(fp32.denoiser, 4 * 1.26, 4 * 1.29);
	between(memoryNeed(request({ ...small, dense: true })).denoiser, 1.26, 1.45);
	// Queries and keys of sparse attention stay float32.
	between(memoryNeed(request(small)).denoiser, 1.26 + 30 * 2 * 3 * 1536 ** 2 / GB, 2.3);
	// 256x256 and 9 frames are 768 tokens, of whose 12 blocks one is kept: all blocks but the last are in float32 then.
	const delicate = memoryNeed(request({ latents: 3, width: 256, height: 256 })).denoiser;
	const exact = memoryNeed(request({ latents: 3, width: 256, height: 256, profile: 'cpu-fp32' })).denoiser;
	between(exact - delicate, 0.105, 0.115);
	// On a card as well: at least what the processor needs, where 1 byte a number would be 4 GB less.
	assert.ok(memoryNeed(request({ latents: 3, width: 256, height: 256, profile: 'cuda-int8' })).denoiser >= delicate);
	// Scores of 64 heads, three times, and twice a matrix of 4096 x 10240.
	between(fp32.textAsStored, 0.6, 1);
	between(fp32.text, 4 * 4.6, 4 * 4.8);
});

test('dense attention grows with the square of the tokens and is what makes a full clip impossible, sparse attention is not', () => {
	// [12, 32760, 32760] scores, twice.
	between(memoryNeed(request({ dense: true })).denoiser, 100, 110);
	between(memoryNeed(request()).denoiser, 5, 12);
	// 59.9 kB a pixel, as measured between 128x128 and 256x256, and its weights 1.27 times.
	between(memoryNeed(request()).decoder, 23.9 + 0.37, 25);
	between(memoryNeed(request({ taehv: true })).decoder, 1, 3);
});

test('the encoder of pictures is counted from its own file, whatever decodes', () => {
	const tiny = request({ taehv: true, latents: 1, width: 16, height: 16 });
	const wanFile = headers(wanVaeTensors(VAE));
	const spec = { ...tiny.spec, encoder: VAE };
	// 53.6 million parameters of the encoder and what mixes its latents, 2.98 times and more while they are loaded.
	between(memoryNeed({ ...tiny, spec, files: { ...tiny.files, encoder: wanFile } }).encoder, 0.64, 0.7);
	assert.equal(memoryNeed({ ...tiny, files: { ...tiny.files, encoder: wanFile } }).encoder, 0);
});

test('all stay where all fit, each makes room where only that fits, and else it is said how much is needed and what there is room for', () => {
	const { textAsStored, ...together } = memoryNeed(request());
	const sum = Object.values(together).reduce((total, bytes) => total + bytes, 0);
	assert.ok(textAsStored < together.text / 10);
	assert.equal(planResidency(request(), 'auto', sum), 'all');
	assert.equal(planResidency(request(), 'auto', sum - 1), 'one');
	assert.equal(planResidency(request(), 'one', sum), 'one');
	assert.throws(() => planResidency(request(), 'all', sum - 1), { code: 'not_enough_memory', message: /81 frames of 832x480 needs about 5\d\.\d GB .* with engine\.residency: one it needs 2\d\.\d GB/u });
	const full = request({ dense: true, taehv: true });
	// As if the text were encoded elsewhere.
	const tiny = { ...full, files: { ...full.files, text: headers({}) } };
	assert.throws(() => planResidency(tiny, 'auto', 24 * GB), (error: Error) => {
		const [, frames = '0'] = /there is room for (\d+) frames/u.exec(error.message) ?? [];
		assert.match(error.message, /needs about 1[01]\d\.\d GB of memory with the model wan, and 24\.0 GB are free/u);
		assert.equal((Number(frames) - 1) % 4, 0);
		assert.equal(planResidency({ ...tiny, latents: 1 + (Number(frames) - 1) / 4 }, 'auto', 24 * GB), 'one');
		assert.throws(() => planResidency({ ...tiny, latents: 2 + (Number(frames) - 1) / 4 }, 'auto', 24 * GB));
		return true;
	});
	assert.throws(() => planResidency(request({ latents: 1 }), 'auto', GB), { code: 'not_enough_memory', message: /ask for a smaller size/u });
});

test('a clip that does not fit is refused before anything is loaded', async () => {
	using model = await writeJoinedModel({ kind: 'turbodiffusion' });
	const load = (latents: number) => loadNetworks({ folder: model.path, profile: 'cpu-fp32', width: 832, height: 480, threads: 1, latents, availableBytes: 1.4 * GB });
	await assert.rejects(load(401), { code: 'not_enough_memory', message: /1601 frames of 832x480.*1\.4 GB are free; there is room for \d+ frames/u });
	const networks = await load(1);
	await networks.close();
});

for (const profile of ['cuda-fp32', 'cuda-fp16'] as const) {
	test(`keys and values in place are counted as they are allocated, whole with the first chunk and no more while the window grows: ${profile}`, async () => {
		using model = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv', changes: { stream: { latents_per_chunk: 1, window_latents: 4, sink_latents: 1 } } });
		const folder = await openModelFolder(model.path);
		const [spec, files] = [folder.spec, { text: folder.mapWeights('text'), dit: folder.mapWeights('dit'), vae: folder.mapWeights('vae') }];
		const state = (windowLatents: number): number =>
			memoryNeed({ spec: { ...spec, stream: { ...spec.stream, window_latents: windowLatents } }, profile, files, width: 32, height: 32, latents: 1 }).state;
		const live = new Set<ResidentTensor>();
		const windowDims = [4, 4, spec.dit.dim];
		const networks = await loadNetworks({ folder: model.path, width: 32, height: 32, threads: 1, profile, openDevice: () => watched(native(), live, windowDims) });
		const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
		const seen: number[] = [];
		const look = (): void => void seen.push([...live].filter(({ dims }) => String(dims) === String(windowDims)).reduce((sum, tensor) => sum + bytesOf(tensor), 0));
		for (let chunk = 0; chunk < 5; chunk++) {
			// Once in the middle of it, and once when it is history.
			await generator.generateChunk({ prompt: 'a cat jumps', steps: 1, controls: {} }, look, new AbortController().signal, false);
			look();
		}
		assert.deepEqual(new Set(seen), new Set([state(4) - state(0)]));
		generator.close();
		await networks.close();
	});
}
