/** The decoder: streaming against the whole clip, bytes against BT.709, 8 bits against float. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { GraphSession, Tensor } from '../../src/engine/backend.js';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { ReferenceDecoder, rgbToI420 } from '../../src/engine/backends/reference-decoder.js';
import { memoryShapes } from '../../src/engine/network-sizes.js';
import { loadNetworks } from '../../src/engine/networks.js';
import type { EngineProfile } from '../../src/engine/protocol.js';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import { toI420 } from '../../src/model/i420.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { parseSafetensors, readFloats } from '../../src/model/safetensors.js';
import { type OwnModelSpec, ownModel, type VaeSpec } from '../../src/model/spec.js';
import { type DecoderOptions, decoderGraph } from '../../src/model/vae-decoder.js';
import { activationNames } from '../../src/model/vae-decoder-int8.js';
import { Weights } from '../../src/model/weights.js';
import { calibrated, zeroMemory } from '../model/calibration.js';
import { assertClose, assertWithin } from '../model/closeness.js';
import { randomNormals, type SpecChanges, writeRandomModel } from '../model/random-model.js';
import { repositoryRoot } from '../repository.js';

const backend = createOnnxRuntime({ threads: 1 });
const [WIDTH, HEIGHT, LATENTS] = [6, 4, 4];

const weightsOf = async (path: string): Promise<Weights> => new Weights(await (await openModelFolder(path)).readWeights('vae'));

const clipOf = (spec: Pick<VaeSpec, 'latent_channels'>): Float32Array[] => Array.from({ length: LATENTS }, (_, index) => randomNormals(spec.latent_channels * WIDTH * HEIGHT, 40 + index));

/** Latent by latent, memory carried; all frames of the clip one after the other. */
const stream = async (session: GraphSession, spec: OwnModelSpec, clip: readonly Float32Array[]): Promise<(Float32Array | Uint8Array)[]> => {
	let memory: Record<string, Tensor> = Object.fromEntries(memoryShapes(spec, WIDTH, HEIGHT).map(({ name, dims }) =>
		[`memory.${name}`, { type: 'float32', dims, data: new Float32Array(dims[0] * dims[1] * dims[2]) }]));
	const all: (Float32Array | Uint8Array)[] = [];
	for (const latent of clip) {
		const { frames, ...next } = await session.run({ latent: { type: 'float32', dims: [spec.vae.latent_channels, HEIGHT, WIDTH], data: latent }, ...memory });
		memory = Object.fromEntries(Object.entries(next).map(([name, tensor]) => [name.replace('memory_out', 'memory'), tensor]));
		const data = frames?.data as Float32Array | Uint8Array;
		const size = data.length / spec.vae.frames_per_latent;
		all.push(...Array.from({ length: spec.vae.frames_per_latent }, (_, index) => data.slice(index * size, (index + 1) * size)));
	}
	return all;
};

const load = (spec: VaeSpec, weights: Weights, options: Pick<DecoderOptions, 'arithmetic' | 'output'>): Promise<GraphSession> =>
	backend.load(decoderGraph(spec, { weights, height: HEIGHT, width: WIDTH, ...options }));

const SHAPES: { readonly [what: string]: SpecChanges } = {
	'three levels that grow twice': {},
	'growth at the first level alone, several blocks': { vae: { grow: [4, 1], blocks: [1, 2, 2], widths: [8, 6, 4] } },
	'no growth, a level without blocks': { vae: { grow: [1, 1], blocks: [1, 0, 1], frames_per_latent: 1 } },
};

for (const [what, changes] of Object.entries(SHAPES)) {
	test(`latent by latent equals the whole clip at once: ${what}`, async () => {
		await using model = await writeRandomModel({ changes });
		const weights = await weightsOf(model.path);
		const clip = clipOf(model.spec.vae);
		const whole = new ReferenceDecoder(model.spec.vae, weights).decode(clip, HEIGHT, WIDTH, zeroMemory(model.spec, WIDTH, HEIGHT));
		const session = await load(model.spec.vae, weights, { arithmetic: 'float32', output: 'rgb' });
		const streamed = await stream(session, model.spec, clip);
		await session.close();
		assert.equal(streamed.length, LATENTS * model.spec.vae.frames_per_latent);
		for (const [index, frame] of whole.entries()) {
			assertClose(streamed[index], frame.data, 1e-5, `frame ${index}`);
		}
	});
}

test('I420 bytes are those of BT.709 in limited range, for every corner of the colour cube and random pictures', async () => {
	const [frames, halfHeight, halfWidth] = [2, 3, 5];
	const g = new GraphBuilder('bytes');
	g.output('bytes', toI420(g.at('i420'), g.input('blocks', 'float32', [frames, 12, halfHeight, halfWidth])));
	const session = await backend.load(g.finish());
	const random = randomNormals(frames * 12 * halfHeight * halfWidth, 3).map((value) => Math.min(1, Math.max(0, 0.5 + 0.3 * value)));
	const corners = random.map((_, index) => (Math.floor(index / (4 * halfHeight * halfWidth)) + index * 7 + Math.floor(index / 3)) % 2);
	for (const [what, blocks] of [['random', random], ['corners', corners], ['black', random.map(() => 0)], ['white', random.map(() => 1)]] as const) {
		const { bytes } = await session.run({ blocks: { type: 'float32', dims: [frames, 12, halfHeight, halfWidth], data: blocks } });
		const [height, width] = [2 * halfHeight, 2 * halfWidth];
		assert.deepEqual(bytes?.dims, [frames, (height * 3) / 2, width]);
		for (let frame = 0; frame < frames; frame++) {
			// Channel (c, dy, dx) of a block is pixel (2y + dy, 2x + dx) of colour c.
			const data = Float64Array.from({ length: 3 * height * width }, (_, index) => {
				const [c, y, x] = [Math.floor(index / (height * width)), Math.floor(index / width) % height, index % width];
				const channel = c * 4 + (y % 2) * 2 + (x % 2);
				return blocks[((frame * 12 + channel) * halfHeight + Math.floor(y / 2)) * halfWidth + Math.floor(x / 2)] ?? Number.NaN;
			});
			const expected = rgbToI420({ channels: 3, height, width, data });
			assertWithin((bytes?.data as Uint8Array).subarray(frame * expected.length, (frame + 1) * expected.length), expected, what === 'random' ? 1 : 0, `${what}, frame ${frame}`);
			if (what === 'black' || what === 'white') {
				assert.equal(expected[0], what === 'black' ? 16 : 235);
				assert.equal(expected.at(-1), 128);
			}
		}
	}
	await session.close();
});

const psnr = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
	const meanSquare = Array.from(a, (value, index) => (value - (b[index] ?? Number.NaN)) ** 2).reduce((total, square) => total + square, 0) / a.length;
	return 10 * Math.log10(255 ** 2 / meanSquare);
};

/**
 * A random network uses its ranges badly (its largest values are rare) and its pictures are all noise, so less is asked of it than of a trained one.
 * Processors without VNNI saturate some of its sums: 24.99 dB there. The shipped decoder loses 2 of 48 dB by that, and would run 1.4 times as long with
 * unsigned weights, which do not saturate.
 */
const RANDOM_DECIBELS = 24.5;

test('8-bit decoding of a random network stays near float decoding, frame for frame, over a stream', async () => {
	await using model = await writeRandomModel({ changes: { vae: { blocks: [2, 2, 1] } } });
	const weights = await weightsOf(model.path);
	const vae = calibrated(model.spec, weights, { width: WIDTH, height: HEIGHT }, 6);
	const clip = clipOf(vae);
	const [float, int8] = [await load(vae, weights, { arithmetic: 'float32' }), await load(vae, weights, { arithmetic: 'int8' })];
	const [expected, actual] = [await stream(float, model.spec, clip), await stream(int8, model.spec, clip)];
	await Promise.all([float.close(), int8.close()]);
	for (const [index, frame] of expected.entries()) {
		const decibels = psnr(actual[index] ?? new Uint8Array(0), frame);
		assert.ok(decibels >= RANDOM_DECIBELS, `frame ${index}: ${decibels} dB`);
	}
	const spread = new Set(expected.flatMap((frame) => [...frame.subarray(0, WIDTH * HEIGHT * 64)]));
	assert.ok(spread.size > 100, 'the pictures use the whole range, or the comparison says little');
});

test('8-bit decoding needs every range, and says which one is missing', async () => {
	await using model = await writeRandomModel();
	const weights = await weightsOf(model.path);
	const names = activationNames(model.spec.vae);
	assert.ok(names.includes('levels.1.blocks.0.conv2') && names.includes('levels.0.up') && !names.includes('levels.2.up'));
	for (const missing of names) {
		const int8_ranges = Object.fromEntries(names.filter((name) => name !== missing).map((name) => [name, 1]));
		assert.throws(() => decoderGraph({ ...model.spec.vae, int8_ranges }, { weights, arithmetic: 'int8', height: HEIGHT, width: WIDTH }),
			(error: Error) => error.message.includes(missing));
	}
});

test('the cpu-int8 profile decodes in 8 bits exactly when the model has ranges', async () => {
	await using plain = await writeRandomModel();
	const ranges = calibrated(plain.spec, await weightsOf(plain.path), { width: WIDTH, height: HEIGHT }, 6).int8_ranges;
	await using ranged = await writeRandomModel({ changes: { vae: { int8_ranges: ranges } } });
	const decode = async (folder: string, profile: EngineProfile): Promise<Uint8Array> => {
		const networks = await loadNetworks({ folder, profile, width: 48, height: 32, threads: 1 });
		const { frames } = await networks.decodeLatent(clipOf(networks.spec.vae)[0] ?? new Float32Array(0), networks.emptyMemory());
		await networks.close();
		return frames[3] ?? new Uint8Array(0);
	};
	const float = await decode(plain.path, 'cpu-fp32');
	assert.deepEqual(await decode(plain.path, 'cpu-int8'), float);
	assert.deepEqual(await decode(ranged.path, 'cpu-fp32'), float);
	const int8 = await decode(ranged.path, 'cpu-int8');
	assert.notDeepEqual(int8, float);
	assert.ok(psnr(int8, float) >= RANDOM_DECIBELS);
});

const toybox = await openModelFolder(join(repositoryRoot, 'models', 'toybox'));
const toyboxSpec = ownModel(toybox.spec);
const unranged = Object.keys(toyboxSpec.vae.int8_ranges).length === 0 ? 'its ranges are not measured yet' : false;

test('the shipped model: 8-bit decoding of what PyTorch decoded stays above 30 dB', { skip: unranged }, async () => {
	const file = parseSafetensors('golden', readFileSync(join(toybox.path, 'golden.safetensors')));
	const read = (name: string) => readFloats(file, file.tensors.get(name) ?? assert.fail(name));
	const { vae, width, height } = toyboxSpec;
	const [columns, rows] = [width / vae.spatial_stride, height / vae.spatial_stride];
	const weights = new Weights(await toybox.readWeights('vae'));
	const decoded = await Promise.all((['float32', 'int8'] as const).map(async (arithmetic) => {
		const session = await backend.load(decoderGraph(vae, { weights, arithmetic, height: rows, width: columns }));
		const latents = read('decoder.latents'); // [C, 3, h, w]
		const first = Float32Array.from({ length: vae.latent_channels * rows * columns }, (_, index) =>
			latents[Math.floor(index / (rows * columns)) * 3 * rows * columns + (index % (rows * columns))] ?? Number.NaN);
		const memory = Object.fromEntries(memoryShapes(toyboxSpec, columns, rows).map(({ name, dims }) =>
			[`memory.${name}`, { type: 'float32' as const, dims, data: new Float32Array(dims[0] * dims[1] * dims[2]) }]));
		const { frames } = await session.run({ latent: { type: 'float32', dims: [vae.latent_channels, rows, columns], data: first }, ...memory });
		await session.close();
		return frames?.data as Uint8Array;
	}));
	const decibels = psnr(decoded[1] ?? [], decoded[0] ?? []);
	assert.ok(decibels >= 30, `${decibels} dB`);
});
