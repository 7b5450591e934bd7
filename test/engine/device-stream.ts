/** What a stream on a device with memory of its own must do, held to the CPU: the same for every backend that keeps state there. */
import assert from 'node:assert/strict';
import { type DeviceBackend, type Feeds, isResident, type Tensor } from '../../src/engine/backend.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks, type NetworksOptions } from '../../src/engine/networks.js';
import { openDevice } from '../../src/engine/open-device.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import type { CardProfile, ChunkInputs } from '../../src/engine/protocol.js';
import { StreamCopy, type StreamSnapshot } from '../../src/engine/stream-state.js';
import { i420Bytes } from '../../src/base/frame.js';
import { assertWithin } from '../model/closeness.js';
import { type SpecChanges, writeRandomModel } from '../model/random-model.js';
import { POISONED, poisonWord } from './poisoned-model.js';

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
export const holdStreamToCpu = async (profile: CardProfile, levels: number, { changes = {}, ...more }: Pick<NetworksOptions, 'openDevice'> & { readonly changes?: SpecChanges } = {}): Promise<void> => {
	await using model = await writeRandomModel({ changes: { ...changes, stream: { window_latents: 6, sink_latents: 1 } } });
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

/** Bytes that crossed between host and device, and how often the device was waited for. */
export type Crossings = { toDevice: number; toHost: number; waits: number };

/** The same device; what crosses is added up: tensors of ours that graphs are fed, those that they give back, uploads and downloads. */
export const counted = (device: DeviceBackend, crossings: Crossings): DeviceBackend => {
	const sent = (feeds: Feeds): void => Object.values(feeds).forEach((tensor) => {
		crossings.toDevice += isResident(tensor) ? 0 : tensor.data.byteLength;
	});
	const brought = <Results extends { readonly [name: string]: Tensor }>(results: Results): Results => {
		Object.values(results).forEach(({ data }) => {
			crossings.toHost += data.byteLength;
		});
		return results;
	};
	const { settle } = device;
	return {
		...device,
		...(settle === undefined ? {} : { settle: () => {
			crossings.waits += 1;
			return settle();
		} }),
		load: async (graph, options) => {
			const session = await device.load(graph, options);
			return {
				...session,
				run: async (feeds, ...rest) => {
					sent(feeds);
					return brought(await session.run(feeds, ...rest));
				},
				runInto: async (feeds, ...rest) => {
					sent(feeds);
					return brought(await session.runInto(feeds, ...rest));
				},
			};
		},
		loadResident: async (graph, host) => {
			const session = await device.loadResident(graph, host);
			return {
				...session,
				run: async (feeds, signal) => {
					sent(feeds);
					const results = await session.run(feeds, signal);
					brought(results.host);
					return results;
				},
			};
		},
		upload: (data, ...rest) => {
			crossings.toDevice += data.byteLength;
			return device.upload(data, ...rest);
		},
		download: async (tensor) => {
			const data = await device.download(tensor);
			crossings.toHost += data.byteLength;
			return data;
		},
	};
};

type DeviceChunks = Pick<NetworksOptions, 'openDevice'> & { readonly sampler?: 'renoise' | 'euler'; /** Steps of each. */ readonly chunks?: readonly number[] };

/**
 * A chunk is made on the device, whatever the number of steps: to the host come the bytes of its pictures, a number for each latent and one for each layer's keys and
 * values; to the device goes what steps are told, and noise, once. What it shows is what the CPU shows. Numbers that are no picture are found before any picture of the
 * chunk is shown, although no latent comes back, and the stream goes on as if nothing had been.
 */
export const holdChunkToDevice = async (profile: CardProfile, levels: number, { sampler = 'renoise', chunks = [4, 2, 2, 1], openDevice: open = openDevice }: DeviceChunks = {}): Promise<void> => {
	// As small as it may be: software Vulkan on a busy machine takes long for each run.
	await using model = await writeRandomModel({ changes: { sampler, dit: { num_layers: 1 }, vae: { blocks: [1, 0, 1] } } });
	await poisonWord(model);
	const options = { folder: model.path, width: 48, height: 32, threads: 1 };
	const crossings: Crossings = { toDevice: 0, toHost: 0, waits: 0 };
	let canWait = false;
	let isInPlace = false;
	const [cpu, card] = [
		await loadNetworks({ ...options, profile: 'cpu-fp32' }),
		await loadNetworks({ ...options, profile, openDevice: (...asked) => {
			const device = open(...asked);
			canWait = device.settle !== undefined;
			isInPlace = device.view !== undefined;
			return counted(device, crossings);
		} }),
	];
	const [onCpu, onCard] = [generatorOf(cpu), generatorOf(card)];
	const { dit, stream, vae } = model.spec;
	const [latents, layers] = [stream.latents_per_chunk, dit.num_layers];
	const latentBytes = 4 * dit.in_dim * latents * card.latentWidth * card.latentHeight;
	// Sinusoids of the times, two tables of positions, controls, the pooled text.
	const told = 4 * (latents * dit.freq_dim + card.tokensPerChunk * card.headDim + latents * dit.control_dim + dit.dim);
	// Where keys and values are written in place: the places of the chunk's frames, for each forward and for the look at what they are.
	const slots = isInPlace ? 8 * latents : 0;
	const drawn = sampler === 'renoise';
	// The first brings the prompt and the empty memory of the decoder, and makes places on the device.
	for (const [chunk, steps] of chunks.entries()) {
		const before = { ...crossings };
		const frames: Uint8Array[] = [];
		await onCard.generateChunk({ ...INPUTS, steps }, (_, pictures) => frames.push(...pictures), NEVER, false);
		if (chunk > 0) {
			assert.deepEqual({ toDevice: crossings.toDevice - before.toDevice, toHost: crossings.toHost - before.toHost, waits: crossings.waits - before.waits }, {
				// Noise, the steps and the clean pass, and two or three factors a step.
				toDevice: (drawn ? steps : 1) * latentBytes + (steps + 1) * (told + slots) + slots + 4 * (drawn ? 3 * steps - 1 : 2 * steps),
				toHost: latents * (vae.frames_per_latent * i420Bytes(48, 32) + 4) + 4 * 2 * layers,
				// For the time of as many steps, the first time.
				waits: canWait && steps !== chunks[chunk - 1] ? 1 : 0,
			}, `${steps} steps`);
		}
		assertWithin(Buffer.concat(frames), await chunkOf(onCpu, { ...INPUTS, steps }), levels, `chunk ${chunk}`);
	}
	const shown: unknown[] = [];
	await assert.rejects(onCard.generateChunk({ ...INPUTS, prompt: `the ${POISONED} flies` }, (_, pictures) => shown.push(...pictures), NEVER, false), { code: 'generation_invalid' });
	assert.deepEqual(shown, []);
	assertWithin(await chunkOf(onCard, INPUTS), await chunkOf(onCpu, INPUTS), levels, 'after numbers that were no picture');
	[onCpu, onCard].forEach((generator) => generator.close());
	await cpu.close();
	await card.close();
};
