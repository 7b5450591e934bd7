/** The WebGPU backend on software Vulkan (or whichever driver VK_ICD_FILENAMES names): real shaders, held to the CPU. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOnnxRuntime, createWebGpu } from '../../src/engine/backends/onnxruntime.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import type { ChunkInputs } from '../../src/engine/protocol.js';
import { StreamCopy, type StreamSnapshot } from '../../src/engine/stream-state.js';
import { transferGraph } from '../../src/model/state-graphs.js';
import { assertWithin } from '../model/closeness.js';
import { randomNormals, writeRandomModel } from '../model/random-model.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();
const INPUTS: ChunkInputs = { prompt: 'a cat jumps on the beach', steps: 2, controls: { steer_x: 0.5 } };
const NEVER = new AbortController().signal;

const chunkOf = async (generator: Generator, inputs: ChunkInputs, copy?: StreamCopy): Promise<Uint8Array> => {
	const frames: Uint8Array[] = [];
	const { checkpoint } = await generator.generateChunk(inputs, (_, pictures) => frames.push(...pictures), NEVER);
	copy?.take(structuredClone(checkpoint ?? assert.fail('no checkpoint')));
	return Buffer.concat(frames);
};

const generatorOf = (networks: Networks): Generator => new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });

test('tensors stay on the card: they are read back, fed on, refused by the CPU, and dead once they are closed', { skip }, async () => {
	const device = createWebGpu({ threads: 1 });
	const numbers = randomNormals(24, 1);
	const tensor = await device.upload(numbers, [2, 3, 4]);
	assert.deepEqual([tensor.type, tensor.dims], ['float32', [2, 3, 4]]);
	assert.deepEqual(await device.download(tensor), numbers);
	const copy = await device.loadResident(transferGraph('copy', 'float32', 'float32'));
	const flat = await device.upload(numbers, [24]);
	const { resident: { y } } = await copy.run({ x: flat });
	assert.deepEqual(await device.download(y ?? assert.fail('no y')), numbers);

	const cpu = await createOnnxRuntime({ threads: 1 }).load(transferGraph('copy', 'float32', 'float32'));
	await assert.rejects(cpu.run({ x: flat }), { code: 'internal', message: /on a graphics card is fed to a graph on the CPU/u });
	flat.close();
	flat.close();
	await assert.rejects(copy.run({ x: flat }), { code: 'internal', message: /after it was closed/u });
	await copy.close();
	await cpu.close();
	await device.close();
});

test('a stream on the card shows what it shows on the CPU, over eviction and a sink; goes on bit for bit from a snapshot; and loses nothing to a cancelled chunk', { skip }, async () => {
	await using model = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
	const options = { folder: model.path, width: 48, height: 32, threads: 1 };
	const [cpu, card] = [await loadNetworks({ ...options, profile: 'cpu-fp32' }), await loadNetworks({ ...options, profile: 'webgpu-fp32' })];
	const [onCpu, onCard] = [generatorOf(cpu), generatorOf(card)];
	const copy = new StreamCopy(card.spec);
	const shown: Uint8Array[] = [];
	let snapshot: StreamSnapshot | undefined;
	for (let chunk = 0; chunk < 5; chunk++) {
		if (chunk === 3) {
			snapshot = copy.snapshot;
			// Its pictures are decoded when it is cancelled: the memory of the stream must be the one before.
			const abort = new AbortController();
			await assert.rejects(onCard.generateChunk(INPUTS, () => abort.abort(new Error('cancelled')), abort.signal), /cancelled/u);
		}
		// The fourth with everything seen again.
		const inputs: ChunkInputs = chunk === 4 ? { ...INPUTS, prompt: 'the dog flies', past: 'recache' } : INPUTS;
		const frames = await chunkOf(onCard, inputs, copy);
		assertWithin(frames, await chunkOf(onCpu, inputs), 2, `chunk ${chunk}`);
		shown.push(frames);
	}
	const restored = generatorOf(card);
	assert.ok(snapshot !== undefined);
	restored.restore(snapshot);
	assert.deepEqual(await chunkOf(restored, INPUTS), shown[3]);
	// The snapshot is plain numbers: the CPU goes on from it, too.
	const elsewhere = generatorOf(cpu);
	elsewhere.restore(snapshot);
	assertWithin(await chunkOf(elsewhere, INPUTS), shown[3] ?? [], 2, 'on the CPU');
	[onCpu, onCard, restored, elsewhere].forEach((generator) => generator.close());
	await cpu.close();
	await card.close();
});
