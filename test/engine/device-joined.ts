/** What joined models must do on a device with memory of its own, held to the processor: the same for every backend that keeps state there. */
import assert from 'node:assert/strict';
import { i420Bytes } from '../../src/base/frame.js';
import type { ResidentTensor } from '../../src/engine/backend.js';
import { ClipGenerator } from '../../src/engine/clip-generator.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks, type NetworksOptions } from '../../src/engine/networks.js';
import { openDevice } from '../../src/engine/open-device.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import type { CardProfile, ChunkInputs } from '../../src/engine/protocol.js';
import { StreamCopy, type StreamSnapshot } from '../../src/engine/stream-state.js';
import { assertWithin } from '../model/closeness.js';
import { type JoinedModelOptions, writeJoinedModel } from '../model/joined-model.js';
import { createRandom } from '../model/random-model.js';
import { counted, type Crossings } from './device-stream.js';
import { watched } from './watched-device.js';

const SIDE = 32;
const PROMPT = 'a rocket flies over the snow';
const NEVER = new AbortController().signal;

export type DeviceJoined = Pick<NetworksOptions, 'openDevice' | 'residency'> & {
	readonly decoder: 'vae' | 'taehv';
	/** Of 255: how far apart bytes of pictures may be. */
	readonly levels: number;
	/** As few runs as show something: software Vulkan on a busy machine takes long for each. */
	readonly isBrief?: boolean;
};

type Loaded = { readonly cpu: Networks; readonly card: Networks; readonly crossings: Crossings; readonly live: Set<ResidentTensor>; readonly canWait: boolean; readonly isInPlace: boolean; readonly close: () => Promise<void> };

const load = async (path: string, profile: CardProfile, { openDevice: open = openDevice, residency }: DeviceJoined, latents?: number): Promise<Loaded> => {
	const options = { folder: path, width: SIDE, height: SIDE, threads: 1, latents, residency };
	const crossings: Crossings = { toDevice: 0, toHost: 0, waits: 0 };
	const live = new Set<ResidentTensor>();
	let [canWait, isInPlace] = [false, false];
	const cpu = await loadNetworks({ ...options, profile: 'cpu-fp32' });
	const card = await loadNetworks({ ...options, profile, openDevice: (...asked) => {
		const device = open(...asked);
		canWait = device.settle !== undefined;
		isInPlace = device.view !== undefined;
		return watched(counted(device, crossings), live);
	} });
	return { cpu, card, crossings, live, canWait, isInPlace, close: async () => {
		await cpu.close();
		await card.close();
		assert.equal(live.size, 0, 'tensors that nobody has closed');
	} };
};

const since = (before: Crossings, { toDevice, toHost, waits }: Crossings): Crossings => ({ toDevice: toDevice - before.toDevice, toHost: toHost - before.toHost, waits: waits - before.waits });

const collected = async (generate: (emit: (first: number, frames: readonly Uint8Array[]) => void) => Promise<unknown>): Promise<Uint8Array> => {
	const frames: Uint8Array[] = [];
	await generate((_, pictures) => frames.push(...pictures));
	return Buffer.concat(frames);
};

/** Bytes of pictures that come back for so many latents: the tiny decoder also gives those before the first, which show nothing. */
const pictureBytes = (decoder: 'vae' | 'taehv', latents: number, isStart: boolean): number =>
	i420Bytes(SIDE, SIDE) * (4 * latents - (isStart && decoder === 'vae' ? 3 : 0)) + 4 * latents;

/**
 * Clips show what the processor shows. Of all but the first there cross noise, what forwards are told, factors, and pictures; a clip that is cancelled between its steps or
 * between its latents, and one that failed, leaves no tensor behind.
 */
export const holdClipsToCpu = async (profile: CardProfile, options: DeviceJoined): Promise<void> => {
	const { decoder, levels, isBrief = false } = options;
	using model = await writeJoinedModel({ kind: 'turbodiffusion', decoder, changes: { clip: { attention: { ratio: 0.5, block_queries: 4, block_keys: 4 } } } });
	const latents = 2;
	const { cpu, card, crossings, live, canWait, close } = await load(model.path, profile, options, latents);
	const of = (networks: Networks) => new ClipGenerator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0, latents });
	const [onCpu, onCard] = [of(cpu), of(card)];
	const inputs = (steps: number): ChunkInputs => ({ prompt: PROMPT, steps, controls: {} });
	const clip = (generator: ClipGenerator, steps: number): Promise<Uint8Array> => collected((emit) => generator.generateChunk(inputs(steps), emit, NEVER));
	let staying = 0;
	for (const [index, steps] of (isBrief ? [1, 2] : [2, 1, 3]).entries()) {
		const before = { ...crossings };
		const frames = await clip(onCard, steps);
		const latentBytes = 4 * 16 * latents * card.latentWidth * card.latentHeight;
		if (index > 0) {
			assert.deepEqual(since(before, crossings), {
				// Noise, a time for each step, two or three factors, and zeros for memories that nothing has left yet.
				toDevice: steps * (latentBytes + 4 * model.spec.dit.freq_dim) + 4 * (3 * steps - 1) + 4 * (decoder === 'vae' ? 2 : 1),
				toHost: pictureBytes(decoder, latents, true), waits: canWait ? 1 : 0,
			}, `${steps} steps`);
			assert.equal(live.size, staying, 'tensors after a clip');
		}
		staying = live.size;
		assertWithin(frames, await clip(onCpu, steps), levels, `clip ${index}`);
	}
	for (const picturesUntil of isBrief ? [1] : [0, 1]) {
		const abort = new AbortController();
		let shown = 0;
		const cancelled = onCard.generateChunk(inputs(isBrief ? 1 : 2), (_, pictures) => {
			shown += pictures.length;
			abort.abort(new Error('cancelled'));
		}, abort.signal);
		if (picturesUntil === 0) {
			// Heard between two runs.
			setImmediate(() => abort.abort(new Error('cancelled')));
		}
		await assert.rejects(cancelled, /cancelled/u);
		assert.equal(shown, picturesUntil);
		assert.equal(live.size, staying, 'tensors after a cancelled clip');
	}
	if (!isBrief) {
		assertWithin(await clip(onCard, 1), await clip(onCpu, 1), levels, 'after cancelled clips');
	}
	[onCpu, onCard].forEach((generator) => generator.close());
	await close();
};

/** A clip that begins with a picture and changes its expert on the way; with `residency: one` every network makes room for the next. */
export const holdPictureClipToCpu = async (profile: CardProfile, options: DeviceJoined): Promise<void> => {
	using model = await writeJoinedModel({ kind: 'image-to-video', decoder: options.decoder });
	const random = createRandom(3);
	const image = Uint8Array.from({ length: 3 * SIDE * SIDE }, () => Math.floor(256 * random()));
	const { cpu, card, live, close } = await load(model.path, profile, options, 2);
	const of = (networks: Networks) => new ClipGenerator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 2, firstChunkIndex: 0, latents: 2, image });
	const [onCpu, onCard] = [of(cpu), of(card)];
	let staying = 0;
	for (let clip = 0; clip < 2; clip++) {
		const [shown, expected] = await Promise.all([onCard, onCpu].map((generator) => collected((emit) => generator.generateChunk({ prompt: PROMPT, steps: 3, controls: {} }, emit, NEVER)))) as [Uint8Array, Uint8Array];
		assertWithin(shown, expected, options.levels, `clip ${clip}`);
		assert.ok(clip === 0 || live.size === staying);
		staying = live.size;
	}
	[onCpu, onCard].forEach((generator) => generator.close());
	await close();
};

const SMALL_WINDOW: JoinedModelOptions['changes'] = { stream: { latents_per_chunk: 1, window_latents: 3, sink_latents: 1 } };

/** A stream shows what the processor shows, over eviction and a sink, after a cancelled chunk and, where there is time, after `recache`; from a snapshot it goes on bit for bit. What crosses is counted. */
export const holdJoinedStreamToCpu = async (profile: CardProfile, options: DeviceJoined): Promise<void> => {
	const { decoder, levels, isBrief = false } = options;
	const [steps, chunks] = isBrief ? [1, 4] as const : [2, 5] as const;
	using model = await writeJoinedModel({ kind: 'self-forcing', decoder, changes: SMALL_WINDOW });
	const { cpu, card, crossings, live, canWait, isInPlace, close } = await load(model.path, profile, options);
	const of = (networks: Networks) => new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 7, firstChunkIndex: 0 });
	const [onCpu, onCard, restored] = [of(cpu), of(card), of(card)];
	const inputs: ChunkInputs = { prompt: PROMPT, steps, controls: {} };
	const next = (generator: Generator, asked: ChunkInputs, copy?: StreamCopy): Promise<Uint8Array> => collected(async (emit) => {
		const { checkpoint } = await generator.generateChunk(asked, emit, NEVER, copy !== undefined);
		if (checkpoint !== undefined) {
			copy?.take(structuredClone(checkpoint));
		}
	});
	const copy = new StreamCopy(card.spec);
	const shown: Uint8Array[] = [];
	let snapshot: StreamSnapshot | undefined;
	for (let chunk = 0; chunk < chunks; chunk++) {
		if (chunk === 3) {
			snapshot = copy.snapshot;
			const [abort, staying] = [new AbortController(), live.size];
			await assert.rejects(onCard.generateChunk(inputs, () => abort.abort(new Error('cancelled')), abort.signal), /cancelled/u);
			assert.equal(live.size, staying, 'tensors after a cancelled chunk');
		}
		const asked: ChunkInputs = chunk === 4 ? { ...inputs, past: 'recache' } : inputs;
		shown.push(await next(onCard, asked, isBrief ? undefined : copy));
		assertWithin(shown[chunk] ?? [], await next(onCpu, asked), levels, `chunk ${chunk}`);
	}
	if (!isBrief) {
		restored.restore(snapshot ?? assert.fail('no snapshot'));
		assert.deepEqual(await next(restored, inputs), shown[3]);
	}

	// The window is full and nothing is handed over: what crosses for a chunk.
	if (!isBrief) {
		await next(onCard, inputs);
	}
	const before = { ...crossings };
	await next(onCard, inputs);
	const { dit } = model.spec;
	assert.deepEqual(since(before, crossings), {
		// Noise of each step, times of these and the clean pass, the tables of positions once, factors; in place also where the chunk's frame goes, for each forward and for the look at it.
		toDevice: steps * 4 * 16 * card.latentWidth * card.latentHeight + (steps + 1) * 4 * dit.freq_dim + 4 * card.tokensPerChunk * card.headDim + 4 * (3 * steps - 1) + (isInPlace ? 8 * (steps + 2) : 0),
		toHost: pictureBytes(decoder, 1, false) + 4 * 2 * dit.num_layers, waits: 0,
	});
	assert.ok(canWait || crossings.waits === 0);
	[onCpu, onCard, restored].forEach((generator) => generator.close());
	await close();
};
