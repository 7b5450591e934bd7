/** Steps of several streams as one forward against the same steps one by one: what a stream shows does not depend on its company. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createNativeRuntime } from '../../src/engine/backends/onnxruntime-c.js';
import { ortLibrary } from '../../src/engine/c-api/library.js';
import { EngineServer } from '../../src/engine/engine-server.js';
import { canShareSteps, loadNetworks, type Networks, type StepInputs, type StepOutputs } from '../../src/engine/networks.js';
import type { EngineEvent } from '../../src/engine/protocol.js';
import { sizesThatPay } from '../../src/engine/sizes-that-pay.js';
import { ditGraph } from '../../src/model/dit.js';
import { assertWithin } from '../model/closeness.js';
import { randomNormals, writeRandomModel, type RandomModel } from '../model/random-model.js';
import { ODD_DIT, randomDit } from '../verify/random-golden.js';

/** The largest difference allowed, of the largest number: sums of products in another order. Measured: 3e-7. */
const TOLERANCE = 1e-5;

let model: RandomModel;
let networks: Networks;

before(async () => {
	model = await writeRandomModel({ changes: { dit: { position_grid: [2, 3] }, sizes: [[48, 32]] } });
	const { width, height } = model.spec;
	networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width, height, threads: 1, batch: 4 });
});

after(async () => {
	await networks.close();
	await model[Symbol.asyncDispose]();
});

/** A stream's step with a past of so many latent frames. */
const stepOf = async (seed: number, latents: number, timestep: number, wantKeysAndValues: boolean): Promise<StepInputs> => {
	const { spec, headDim, tokensPerLatent, latentWidth, latentHeight } = networks;
	const { latents_per_chunk: frames } = spec.stream;
	const pastTokens = latents * tokensPerLatent;
	const past = (offset: number): Float32Array[] =>
		Array.from({ length: spec.dit.num_layers }, (_, layer) => randomNormals(spec.dit.num_heads * pastTokens * headDim, 1000 * seed + 10 * layer + offset));
	return {
		latent: randomNormals(spec.dit.in_dim * frames * latentWidth * latentHeight, seed), timesteps: new Array<number>(frames).fill(timestep), prompt: await networks.encodePrompt(`a ${seed % 2 === 0 ? 'cat' : 'dog'} jumps`),
		control: randomNormals(frames * spec.dit.control_dim, seed + 5), firstPosition: latents, pastK: past(1), pastV: past(2), pastTokens, wantKeysAndValues,
	};
};

const largest = (x: Float32Array): number => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

const assertSame = (actual: StepOutputs, expected: StepOutputs, what: string): void => {
	const arrays = ({ velocity, newK = [], newV = [] }: StepOutputs): Float32Array[] => [velocity, ...newK, ...newV];
	assert.equal(arrays(actual).length, arrays(expected).length, what);
	for (const [index, array] of arrays(expected).entries()) {
		const error = largest(array.map((value, place) => value - (arrays(actual)[index]?.[place] ?? Number.NaN))) / largest(array);
		assert.ok(error <= TOLERANCE, `${what}, array ${index}: ${error}`);
	}
};

test('any mixture of pasts, prompts, steps and clean passes gives each stream what it gets alone', async () => {
	const { together } = networks;
	assert.deepEqual(together?.sizes, [2, 4]);
	const mixture = [await stepOf(1, 0, 900, false), await stepOf(2, 2, 500, false), await stepOf(3, 4, 0, true), await stepOf(4, 2, 700, true)];
	const alone: StepOutputs[] = [];
	for (const inputs of mixture) {
		alone.push(await networks.step(inputs));
	}
	for (const group of [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2], [0, 3]]) {
		const outputs = await together.steps(group.map((stream) => mixture[stream] as StepInputs));
		for (const [place, stream] of group.entries()) {
			assertSame(outputs[place] as StepOutputs, alone[stream] as StepOutputs, `stream ${stream} of ${group.join()}`);
		}
	}
	await assert.rejects(together.steps(mixture.slice(0, 3)), { code: 'internal' });
});

test('8-bit linear layers are not shared: a stream would feel the scale of others', async () => {
	const { width, height } = model.spec;
	assert.equal(canShareSteps('cpu-int8'), false);
	const int8 = await loadNetworks({ folder: model.path, profile: 'cpu-int8', width, height, threads: 1, batch: 4 });
	try {
		assert.equal(int8.together, undefined);
	} finally {
		await int8.close();
	}
	const { weights } = randomDit(ODD_DIT, false, 3);
	assert.throws(() => ditGraph(ODD_DIT, { weights, linears: 'int8', mode: { kind: 'chunk', streams: 2 }, frames: 2, height: 4, width: 4 }), { code: 'model_invalid' });
});

/** Frames of each of three streams with two chunks, all asked for at once. */
const framesOf = async (used: Networks): Promise<Buffer[]> => {
	const events: EngineEvent[] = [];
	let isDone: () => void = () => undefined;
	const done = new Promise<void>((resolve) => {
		isDone = resolve;
	});
	const generate = (stream: number, chunkIndex: number) => ({ type: 'chunk.generate' as const, stream, chunkIndex, inputs: { prompt: `the dog ${stream}`, steps: 2, controls: {} }, dueInMs: 1000 * stream });
	const server: EngineServer = new EngineServer({
		load: () => Promise.resolve({ ...used, close: () => Promise.resolve() }), nowMs: () => performance.now(),
		send: (event) => {
			events.push(event);
			if (event.type === 'chunk.done' && event.chunkIndex === 0) {
				server.receive(generate(event.stream, 1));
			}
			if (events.filter(({ type }) => type === 'chunk.done' || type === 'chunk.failed').length === 6) {
				isDone();
			}
		},
	});
	for (const stream of [1, 2, 3]) {
		server.receive({ type: 'stream.open', stream, seed: stream, width: used.width, height: used.height, firstChunkIndex: 0, checkpoints: true });
	}
	for (const stream of [3, 2, 1]) {
		server.receive(generate(stream, 0));
	}
	await done;
	for (const stream of [1, 2, 3]) {
		server.receive({ type: 'stream.close', stream });
	}
	await server.close();
	return [1, 2, 3].map((stream) => Buffer.concat(events.flatMap((event) => (event.type === 'frames' && event.stream === stream ? event.frames : []))));
};

/** Frames with shared forwards against frames without. `levels` of 255. */
const holdToApart = async (used: Networks, levels: number): Promise<void> => {
	let shared = 0;
	const { together } = used;
	assert.deepEqual(together?.sizes, [2, 4]);
	const { resident } = used;
	const counting: Networks = {
		...used,
		together: { ...together, steps: (all) => {
			shared += 1;
			return together.steps(all);
		} },
		resident: resident === undefined ? undefined : { ...resident, advance: (all) => {
			shared += all.length > 1 ? 1 : 0;
			return resident.advance(all);
		} },
	};
	const [apart, joined] = [await framesOf({ ...used, together: undefined }), await framesOf(counting)];
	assert.ok(shared > 0);
	for (const [stream, frames] of apart.entries()) {
		assert.ok(frames.length > 0);
		assertWithin(joined[stream] ?? [], frames, levels, `stream ${stream + 1}`);
	}
};

test('an engine computes steps of its streams together, and shows of each what it shows without', () => holdToApart(networks, 2));

test('the same where keys, values and the decoder’s memory stay on a device', async () => {
	const { width, height } = model.spec;
	const openHandles = () => ortLibrary().open();
	const handlesBefore = openHandles();
	const onDevice = await loadNetworks({
		folder: model.path, profile: 'cuda-fp32', width, height, threads: 1, batch: 'auto', openDevice: () => createNativeRuntime({ threads: 1, provider: { kind: 'cpu' } }),
	});
	await holdToApart(onDevice, 2);
	await onDevice.close();
	assert.deepEqual(openHandles(), handlesBefore);
});

test('only numbers of streams that are faster together are used', async () => {
	let nowMs = 0;
	const taking = (ms: number) => () => {
		nowMs += ms;
		return Promise.resolve([]);
	};
	const measured: Networks = { ...networks, step: async () => {
		nowMs += 10;
		return Promise.resolve({ velocity: new Float32Array(1) });
	} };
	const of = (times: { readonly [size: number]: number }) => ({ sizes: [2, 4], takesCleanPasses: true, steps: (all: readonly StepInputs[]) => taking(times[all.length] ?? 0)() });
	assert.deepEqual(await sizesThatPay(measured, of({ 2: 12, 4: 20 }), () => nowMs), [2, 4]);
	assert.deepEqual(await sizesThatPay(measured, of({ 2: 19, 4: 36 }), () => nowMs), [4]);
	assert.deepEqual(await sizesThatPay(measured, of({ 2: 20, 4: 44 }), () => nowMs), []);
});
