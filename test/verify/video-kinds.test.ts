/** `wan-vae`, `taehv` and `umt5`: folders of the originals, and of sizes that the originals' folders do not have, made by plain loops. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import type { Planes } from '../../src/engine/backends/reference-math.js';
import { decodeTaehvClip } from '../../src/engine/backends/reference-taehv.js';
import { encodeText } from '../../src/engine/backends/reference-text.js';
import { decodeWanClip, encodeWanClip } from '../../src/engine/backends/reference-wan-vae.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../../src/model/checkpoint/network-tensors.js';
import { encodeSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import { parseTaehvSpec } from '../../src/model/taehv.js';
import { parseWanVaeSpec } from '../../src/model/wan-vae-spec.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { type Verdict, verifyFolder } from '../../src/verify/verify.js';
import { randomNormals } from '../model/random-model.js';
import { randomTensors, randomWeights } from '../model/random-weights.js';
import { repositoryRoot } from '../repository.js';

const backend = createOnnxRuntime({ threads: 1 });
const root = mkdtempSync(join(tmpdir(), 'turbocast-kinds-'));
after(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
type Case = { readonly [name: string]: TensorToWrite };

const writeFolder = (kind: string, config: object, shapes: Shapes, seed: number, cases: readonly Case[]): string => {
	const folder = join(root, String(folders++), kind);
	mkdirSync(folder, { recursive: true });
	writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
	writeFileSync(join(folder, 'weights.safetensors'), encodeSafetensors(randomTensors(shapes, seed)));
	for (const [index, tensors] of cases.entries()) {
		writeFileSync(join(folder, `case-${index + 1}.safetensors`), encodeSafetensors(tensors));
	}
	return folder;
};

const verdicts = async (folder: string): Promise<Verdict[]> => {
	const all: Verdict[] = [];
	for await (const verdict of verifyFolder(folder, 'cpu-fp32', backend, assert.fail)) {
		all.push(verdict);
	}
	return all;
};

const assertPass = (all: readonly Verdict[], cases: number): void => {
	assert.equal(all.length, cases);
	assert.ok(all.every(({ pass, relativeError }) => pass && relativeError <= 1e-5), JSON.stringify(all));
};

for (const kind of ['taehv', 'umt5']) {
	test(`the original's ${kind} is met`, async () => {
		assertPass(await verdicts(join(repositoryRoot, 'test/fixtures/golden', kind)), 1);
	});
}

const frames = (count: number, channels: number, height: number, width: number, seed: number): (Planes & { data: Float32Array })[] =>
	Array.from({ length: count }, (_, index) => ({ channels, height, width, data: randomNormals(channels * height * width, seed + index) }));

/** [1, T, C, H, W] */
const byTime = (clip: readonly Planes[]): TensorToWrite => {
	const [{ channels, height, width }] = clip as [Planes];
	return { dtype: 'F32', shape: [1, clip.length, channels, height, width], data: Float32Array.from(clip.flatMap((frame) => [...frame.data])) };
};

/** [1, C, T, H, W] */
const byChannel = (clip: readonly Planes[]): TensorToWrite => {
	const [{ channels, height, width }] = clip as [Planes];
	const area = height * width;
	const data = Array.from({ length: channels }, (_, channel) => clip.flatMap((frame) => [...frame.data.subarray(channel * area, (channel + 1) * area)])).flat();
	return { dtype: 'F32', shape: [1, channels, clip.length, height, width], data: Float32Array.from(data) };
};

test('a Wan VAE of another shape is met, case by case, and one with a changed frame is not', async () => {
	const config = { dim: 5, z_dim: 4, dim_mult: [1, 2, 2], num_res_blocks: 1, attn_scales: [], temperal_downsample: [true, false] };
	const [spec, shapes] = [parseWanVaeSpec(config), wanVaeTensors(parseWanVaeSpec(config))];
	const weights = randomWeights(shapes, 20);
	const cases = [[3, 2, 5], [1, 3, 1]].map(([count = 0, height = 0, width = 0], index): Case => {
		const latents = frames(count, 4, height, width, 100 * index);
		const clip = frames(5, 3, 8, 4, 200);
		return { z: byChannel(latents), video: byChannel(decodeWanClip(spec, weights, latents)), 'encode.video': byChannel(clip), 'encode.mu': byChannel(encodeWanClip(spec, weights, clip)) };
	});
	assertPass(await verdicts(writeFolder('wan-vae', config, shapes, 20, cases)), 2);
	const first = cases[0] ?? {};
	for (const name of ['video', 'encode.mu']) {
		const tensor = first[name] ?? assert.fail(name);
		const wrong = { ...first, [name]: { ...tensor, data: (tensor.data as Float32Array).map((value, index) => (index === 7 ? value + 1 : value)) } };
		assert.deepEqual((await verdicts(writeFolder('wan-vae', config, shapes, 20, [wrong]))).map(({ pass }) => pass), [false], name);
	}
});

test('a TAEHV of another shape is met', async () => {
	const config = { widths: [7, 6, 5, 4], latent_channels: 5 };
	const [spec, shapes] = [parseTaehvSpec(config), taehvTensors(parseTaehvSpec(config))];
	const cases = [2, 1].map((count): Case => {
		const latents = frames(count, 5, 2, 3, 300);
		return { z: byTime(latents), video: byTime(decodeTaehvClip(spec, randomWeights(shapes, 21), latents)) };
	});
	assertPass(await verdicts(writeFolder('taehv', config, shapes, 21, cases)), 2);
});

test('an umT5 of another shape and length is met, whatever stands in the rows of padding', async () => {
	const [dimensions, length] = [{ dim: 10, dim_attn: 12, dim_ffn: 14, num_heads: 3, num_layers: 3, num_buckets: 16 }, 70];
	const shapes = textTensors({ ...dimensions, vocab_size: 30 });
	const ids = Array.from({ length }, (_, index) => (index * 7) % 30);
	const mask = ids.map((_, index) => (index < 61 ? 1 : 0));
	const spec = { kind: 'umt5', vocab_size: 30, ...dimensions, max_dist: 128, eps: 1e-6, text_len: length } as const;
	const hidden = encodeText(spec, randomWeights(shapes, 22), ids, mask).map((value, index) => (index < 61 * 10 ? value : 99));
	const whole = (values: readonly number[]): TensorToWrite => ({ dtype: 'I64', shape: [1, length], data: BigInt64Array.from(values, (value) => BigInt(value)) });
	const folder = writeFolder('umt5', { vocab: 30, ...dimensions, shared_pos: false }, shapes, 22, [{ ids: whole(ids), mask: whole(mask), hidden: { dtype: 'F32', shape: [1, length, 10], data: hidden } }]);
	assertPass(await verdicts(folder), 1);
	// Several prompts at once, one of a single token; and a result in float64.
	const one = ids.map((_, index) => (index < 1 ? 1 : 0));
	const other = encodeText(spec, randomWeights(shapes, 22), ids, one);
	const both = Float64Array.from([...hidden, ...other]);
	const wholes = (values: readonly number[]): TensorToWrite => ({ ...whole(values), shape: [2, length] });
	const of = (data: Float64Array): Case => ({ ids: wholes([...ids, ...ids]), mask: wholes([...mask, ...one]), hidden: { dtype: 'F64', shape: [2, length, 10], data } });
	assertPass(await verdicts(writeFolder('umt5', { vocab: 30, ...dimensions, shared_pos: false }, shapes, 22, [of(both)])), 1);
	const wrong = both.map((value, index) => (index === length * 10 ? value + 1 : value));
	assert.deepEqual((await verdicts(writeFolder('umt5', { vocab: 30, ...dimensions, shared_pos: false }, shapes, 22, [of(wrong)]))).map(({ pass }) => pass), [false]);
});

test('weights of another shape than the configuration asks for are named', async () => {
	const config = { widths: [7, 6, 5, 4], latent_channels: 5 };
	const folder = writeFolder('taehv', { ...config, widths: [7, 6, 5, 3] }, taehvTensors(parseTaehvSpec(config)), 23, [{ z: byTime(frames(1, 5, 2, 2, 1)) }]);
	await assert.rejects(verdicts(folder), (error: unknown) => error instanceof TurbocastError && error.code === 'model_invalid' && /decoder\.20\.weight/u.test(error.message));
});
