/** What a stream on a device with memory of its own must do, held to the CPU: the same for every backend that keeps state there. */
import assert from 'node:assert/strict';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks, type NetworksOptions } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import type { CardProfile, ChunkInputs } from '../../src/engine/protocol.js';
import { StreamCopy, type StreamSnapshot } from '../../src/engine/stream-state.js';
import { assertWithin } from '../model/closeness.js';
import { writeRandomModel } from '../model/random-model.js';

const INPUTS: ChunkInputs = { prompt: 'a cat jumps on the beach', steps: 2, controls: { steer_x: 0.5 } };
const NEVER = new AbortController().signal;

const chunkOf = async (generator: Generator, inputs: ChunkInputs, copy?: StreamCopy): Promise<Uint8Array> => {
	const frames: Uint8Array[] = [];
	const { checkpoint } = await generator.generateChunk(inputs, (_, pictures) => frames.push(...pictures), NEVER);
	copy?.take(structuredClone(checkpoint ?? assert.fail('no checkpoint')));
	return Buffer.concat(frames);
};

const generatorOf = (networks: Networks): Generator => new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });

/** Over eviction and a sink, after a cancelled chunk, after `recache`, from a snapshot and on from it on the CPU. `levels`: how far apart bytes of pictures may be. */
export const holdStreamToCpu = async (profile: CardProfile, levels: number, more: Pick<NetworksOptions, 'openDevice'> = {}): Promise<void> => {
	await using model = await writeRandomModel({ changes: { stream: { window_latents: 6, sink_latents: 1 } } });
	const options = { folder: model.path, width: 48, height: 32, threads: 1 };
	const [cpu, card] = [await loadNetworks({ ...options, profile: 'cpu-fp32' }), await loadNetworks({ ...options, ...more, profile })];
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
		assertWithin(frames, await chunkOf(onCpu, inputs), levels, `chunk ${chunk}`);
		shown.push(frames);
	}
	const restored = generatorOf(card);
	assert.ok(snapshot !== undefined);
	restored.restore(snapshot);
	assert.deepEqual(await chunkOf(restored, INPUTS), shown[3]);
	// The snapshot is plain numbers: the CPU goes on from it, too.
	const elsewhere = generatorOf(cpu);
	elsewhere.restore(snapshot);
	assertWithin(await chunkOf(elsewhere, INPUTS), shown[3] ?? [], levels, 'on the CPU');
	[onCpu, onCard, restored, elsewhere].forEach((generator) => generator.close());
	await cpu.close();
	await card.close();
};
