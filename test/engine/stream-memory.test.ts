/** What a stream is counted to take, held to what lies on a device after its chunks and to the copy that the host keeps. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ResidentTensor } from '../../src/engine/backend.js';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { freeCardBytes } from '../../src/engine/card-memory.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { streamBytes } from '../../src/engine/stream-memory.js';
import { StreamCopy } from '../../src/engine/stream-state.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { repositoryRoot } from '../repository.js';
import { writeJoinedModel } from '../model/joined-model.js';
import { writeRandomModel } from '../model/random-model.js';
import { bytesOf, watched } from './watched-device.js';

for (const [profile, bytes] of [['cuda-fp32', 4], ['cuda-fp16', 2]] as const) {
	test(`a stream of ${profile} takes what is counted, however long it is, and its copy on the host too`, async () => {
		await using model = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
		const live = new Set<ResidentTensor>();
		const networks = await loadNetworks({ folder: model.path, width: 48, height: 32, threads: 1, profile, openDevice: () => watched(createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } }), live, [6, 6, model.spec.dit.dim]) });
		const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
		const copy = new StreamCopy(networks.spec);
		const memory = networks.emptyMemory().reduce((sum, tensor) => sum + (tensor as Float32Array).length, 0);
		const { dit, stream } = model.spec;
		const latentBytes = 4 * dit.in_dim * stream.latents_per_chunk * networks.latentWidth * networks.latentHeight;
		const counted = streamBytes(model.spec, { width: 48, height: 32 }, profile);
		for (let chunk = 0; chunk < 7; chunk++) {
			const { checkpoint } = await generator.generateChunk({ prompt: 'a cat jumps', steps: 2, controls: {} }, () => undefined, new AbortController().signal);
			copy.take(checkpoint ?? assert.fail('no checkpoint'));
			const there = [...live].reduce((sum, tensor) => sum + bytesOf(tensor), 0);
			assert.ok(there <= counted.card);
			if (chunk >= 3) {
				// Between chunks: without the second memory of the decoder and the latents of a chunk in the making.
				assert.equal(there, counted.card - bytes * memory - 2 * latentBytes, `chunk ${chunk}`);
			}
		}
		const { chunks, memory: copied } = copy.snapshot ?? assert.fail('no snapshot');
		const arrays = [...copied, ...chunks.flatMap(({ latent, layers = [] }) => [latent, ...layers.flatMap(({ k, v }) => [k, v])])];
		assert.equal(arrays.reduce((sum, { byteLength }) => sum + byteLength, 0), counted.host);
		generator.close();
		assert.equal(live.size, 0);
		await networks.close();
	});
}

for (const [decoder, profile] of [['taehv', 'cuda-fp16'], ['vae', 'cuda-fp32']] as const) {
	test(`a stream of a joined model (${decoder}, ${profile}) takes what is counted, too`, async () => {
		using model = await writeJoinedModel({ kind: 'self-forcing', decoder, changes: { stream: { latents_per_chunk: 1, window_latents: 3, sink_latents: 1 } } });
		const live = new Set<ResidentTensor>();
		const networks = await loadNetworks({ folder: model.path, width: 32, height: 32, threads: 1, profile, openDevice: () => watched(createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } }), live, [3, 4, model.spec.dit.dim]) });
		const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
		const copy = new StreamCopy(networks.spec);
		const counted = streamBytes(model.spec, { width: 32, height: 32 }, profile);
		let [before, ofMemory]: [number, number] = [0, 0];
		for (let chunk = 0; chunk < 5; chunk++) {
			const { checkpoint } = await generator.generateChunk({ prompt: 'a cat jumps', steps: 1, controls: {} }, () => undefined, new AbortController().signal);
			copy.take(checkpoint ?? assert.fail('no checkpoint'));
			const there = [...live].reduce((sum, tensor) => sum + bytesOf(tensor), 0);
			ofMemory = (checkpoint?.memory ?? []).reduce((sum, { byteLength }) => sum + byteLength, 0);
			const latentBytes = 4 * 16 * networks.latentWidth * networks.latentHeight;
			if (chunk >= 3) {
				assert.equal(there, counted.card - ofMemory - 2 * latentBytes, `chunk ${chunk}`);
				assert.equal(there, before);
			}
			before = there;
		}
		assert.ok(ofMemory > 0);
		const { chunks, memory: copied } = copy.snapshot ?? assert.fail('no snapshot');
		const arrays = [...copied, ...chunks.flatMap(({ latent, layers = [] }) => [latent, ...layers.flatMap(({ k, v }) => [k, v])])];
		assert.equal(arrays.reduce((sum, { byteLength }) => sum + byteLength, 0), counted.host);
		generator.close();
		await networks.close();
		assert.equal(live.size, 0);
	});
}

test('a stream of the embedded model takes megabytes; one on the processor all of them there, a clip none', async () => {
	const { spec } = await openModelFolder(join(repositoryRoot, 'models', 'toybox'), { verify: false });
	const of = (profile: EngineProfile) => streamBytes(spec, spec, profile);
	const [here, there, half] = [of('cpu-int8'), of('webgpu-fp32'), of('cuda-fp16')];
	assert.deepEqual([here.card, here.host], [0, there.card + there.host]);
	assert.ok(half.card < 0.7 * there.card && half.host === there.host);
	assert.ok(there.card > 4e6 && there.card < 40e6 && there.host < 40e6, JSON.stringify(there));
});

test('free memory of a card is asked of the driver’s own tool, for the card that is used; nobody there is no answer', async () => {
	const asked: string[] = [];
	const answering = (answer: string) => (program: string, words: readonly string[]): Promise<string> => {
		asked.push([program, ...words].join(' '));
		return Promise.resolve(answer);
	};
	assert.equal(await freeCardBytes({}, answering('80000\n')), 80_000 * 1024 * 1024);
	assert.equal(await freeCardBytes({ CUDA_VISIBLE_DEVICES: '3,1' }, answering('5')), 5 * 1024 * 1024);
	assert.deepEqual(asked.map((line) => line.slice(-5)), [' -i 0', ' -i 3']);
	assert.equal(await freeCardBytes({}, answering('[N/A]')), undefined);
	assert.equal(await freeCardBytes({}, () => Promise.reject(new Error('ENOENT'))), undefined);
});
