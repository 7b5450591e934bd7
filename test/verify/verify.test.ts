/** Folders in the golden form, checked: those of the original implementations, and random ones of sizes that they do not have. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { CPU_PROFILES, type EngineProfile } from '../../src/engine/protocol.js';
import { isTiled, tiledTensors } from '../../src/model/quant-checkpoint.js';
import { encodeSafetensors, parseSafetensors, readFloats } from '../../src/model/safetensors.js';
import { verifyFolder, type Verdict } from '../../src/verify/verify.js';
import { repositoryRoot } from '../repository.js';
import { causalGolden, clipGolden, type ClipGolden, normals, ODD_DIT, rcmGolden, slaCase, type SlaSize, writeGolden } from './random-golden.js';

const backend = createOnnxRuntime({ threads: 1 });

const verdicts = async (path: string, profile: EngineProfile = 'cpu-fp32', warnings: string[] = []): Promise<Verdict[]> => {
	const found: Verdict[] = [];
	for await (const verdict of verifyFolder(path, profile, backend, (sentence) => warnings.push(sentence))) {
		found.push(verdict);
	}
	return found;
};

const assertPass = (found: readonly Verdict[], cases: number): void => {
	assert.equal(found.length, cases);
	for (const verdict of found) {
		assert.ok(verdict.pass, `${verdict.kind} ${verdict.case}: relative error ${verdict.relativeError}`);
	}
};

for (const kind of ['wan-causal-window', 'turbo-dit', 'rcm', 'w8a8']) {
	for (const profile of CPU_PROFILES) {
		test(`${kind} of the original implementation passes at ${profile}`, async () => {
			assertPass(await verdicts(join(repositoryRoot, 'test/fixtures/golden', kind), profile), 1);
		});
	}
}

const SPARSE = { ratio: 0.4, blockQueries: 20, blockKeys: 11 };

const DITS: { readonly [what: string]: { readonly kind: string; readonly golden: () => ClipGolden } } = {
	'dense attention over a clip': { kind: 'wan-dit', golden: () => clipGolden(ODD_DIT, undefined, 3) },
	'no norms of their own, one head': { kind: 'wan-dit', golden: () => clipGolden({ ...ODD_DIT, num_heads: 1, dim: 26, num_layers: 1, qk_norm: false, cross_attn_norm: false }, undefined, 4) },
	'sparse attention with tails of queries and keys': { kind: 'turbo-dit', golden: () => clipGolden(ODD_DIT, SPARSE, 5) },
	'a stream that remembers everything': { kind: 'wan-causal-full', golden: () => causalGolden(ODD_DIT, { frames: 1, size: -1, sink: 0, chunks: 3 }, 6) },
	'a window with a sink, not of whole chunks': { kind: 'wan-causal-window', golden: () => causalGolden(ODD_DIT, { frames: 3, size: 7, sink: 2, chunks: 4 }, 7) },
	'a window without a sink': { kind: 'wan-causal-window', golden: () => causalGolden(ODD_DIT, { frames: 2, size: 3, sink: 0, chunks: 3 }, 8) },
	'a window of a sink and the chunk': { kind: 'wan-causal-window', golden: () => causalGolden(ODD_DIT, { frames: 2, size: 3, sink: 1, chunks: 3 }, 9) },
};

for (const [what, { kind, golden }] of Object.entries(DITS)) {
	test(`${kind} agrees with the plain loops at odd sizes: ${what}`, async () => {
		const { config, cases, weights } = golden();
		await using folder = await writeGolden(kind, config, cases, weights);
		const found = await verdicts(folder.path);
		assertPass(found, cases.length);
		assert.ok(found.every(({ relativeError }) => relativeError < 1e-5), 'far below the bound');
		const in8Bits = await verdicts(folder.path, 'cpu-int8');
		assertPass(in8Bits, cases.length);
		assert.ok(in8Bits.every(({ relativeError }) => relativeError > 1e-4), '8 bits are really used');
	});
}

test('dense attention of a clip in 8 bits costs more than linear layers do, and stays within its bound', async () => {
	const { config, cases, weights } = clipGolden(ODD_DIT, undefined, 3);
	await using folder = await writeGolden('wan-dit', config, cases, weights);
	const [linears, attention] = [await verdicts(folder.path, 'cpu-int8'), await verdicts(folder.path, 'cpu-int8-attention')];
	assertPass(attention, cases.length);
	assert.ok(attention.every(({ relativeError }, index) => relativeError !== linears[index]?.relativeError), 'another arithmetic is really used');
});

test('a -quant checkpoint runs like the one it was made from, but for what 8-bit weights cost', async () => {
	const { config, cases, weights } = clipGolden(ODD_DIT, SPARSE, 5);
	const { tensors } = parseSafetensors('weights', weights);
	const all = Object.fromEntries([...tensors].flatMap(([name, entry]) => {
		const data = readFloats({ label: 'weights', bytes: weights, tensors }, entry);
		return Object.entries(isTiled(name, entry.shape) ? tiledTensors(name, data, entry.shape as [number, number]) : { [name]: { dtype: 'F32' as const, shape: entry.shape, data } });
	}));
	await using folder = await writeGolden('turbo-dit', config, cases, encodeSafetensors(all));
	for (const profile of CPU_PROFILES) {
		const found = await verdicts(folder.path, profile);
		assert.ok(found.every(({ relativeError }) => relativeError > 1e-4 && relativeError < 5e-2), JSON.stringify(found));
	}
});

test('rcm agrees with the plain loops at odd sizes, with another sigma, in the order of the configuration', async () => {
	const { config, network, weights, cases } = await rcmGolden({ ...ODD_DIT, out_dim: ODD_DIT.in_dim }, SPARSE, 11);
	await using folder = await writeGolden('rcm', config, cases);
	await mkdir(join(folder.path, 'network'));
	await writeFile(join(folder.path, 'network/config.json'), JSON.stringify(network));
	await writeFile(join(folder.path, 'network/weights.safetensors'), weights);
	assertPass(await verdicts(folder.path), 2);
});

const SLA_SIZES: { readonly [what: string]: SlaSize } = {
	'tails of both, two in a batch': { batch: 2, tokens: 53, heads: 3, headDim: 10, shape: { ratio: 0.5, blockQueries: 16, blockKeys: 9 } },
	'whole blocks': { batch: 1, tokens: 48, heads: 2, headDim: 8, shape: { ratio: 0.34, blockQueries: 16, blockKeys: 8 } },
	'everything kept': { batch: 1, tokens: 50, heads: 1, headDim: 6, shape: { ratio: 1, blockQueries: 64, blockKeys: 7 } },
	'one token': { batch: 1, tokens: 1, heads: 1, headDim: 4, shape: { ratio: 0.5, blockQueries: 4, blockKeys: 4 } },
};

test('sla agrees with the plain loops: blocks chosen, exact branch and sum', async () => {
	const made = Object.values(SLA_SIZES).map((size, index) => slaCase(size, 100 * index));
	await using folder = await writeGolden('sla', { cases: made.map(({ parameters }) => parameters) }, made.map(({ tensors }) => tensors));
	assertPass(await verdicts(folder.path), made.length);
});

test('a share that rounds to no block keeps one and says so once a case', async () => {
	const { parameters, tensors } = slaCase({ batch: 2, tokens: 40, heads: 2, headDim: 6, shape: { ratio: 0.1, blockQueries: 16, blockKeys: 8 } }, 5);
	await using folder = await writeGolden('sla', { cases: [parameters] }, [tensors]);
	const warnings: string[] = [];
	assertPass(await verdicts(folder.path, 'cpu-fp32', warnings), 1);
	assert.deepEqual(warnings, ['case-1: 0.1 of 5 key blocks is less than one; one is kept.']);
});

test('what is not a number never passes, and neither does a wrong block', async () => {
	const { parameters, tensors } = slaCase({ batch: 1, tokens: 30, heads: 1, headDim: 6, shape: { ratio: 0.5, blockQueries: 8, blockKeys: 8 } }, 6);
	const { block_map: map, q, out } = tensors;
	assert.ok(map !== undefined && q !== undefined && out !== undefined);
	const wrongMap = { ...map, data: Uint8Array.from(map.data as Uint8Array, (kept, index) => (index === 0 ? 1 - kept : kept)) };
	const nan = { ...normals(q.shape, 1), data: new Float32Array(180).fill(Number.NaN) };
	await using folder = await writeGolden('sla', { cases: Array.from({ length: 4 }, () => parameters) }, [
		{ ...tensors, block_map: wrongMap }, { ...tensors, out: nan }, { ...tensors, q: nan }, { ...tensors, out: normals(out.shape, 99) },
	]);
	const found = await verdicts(folder.path);
	assert.deepEqual(found.map(({ pass }) => pass), [false, false, false, false]);
	assert.deepEqual(found.map(({ relativeError }) => Number.isNaN(relativeError)), [false, true, true, false]);
	assert.equal(found[0]?.relativeError, 1);
});

/** TurboDiffusion's 8-bit layer from its description, in plain loops: tiles of 128, amax / 128, ties to even, saturation; bfloat16 after the sum and after the bias. */
const w8a8Case = (rows: number, inputs: number, outputs: number, seed: number) => {
	const [x, weight, bias] = [normals([rows, inputs], seed), normals([outputs, inputs], seed + 1), normals([outputs], seed + 2)];
	const bf16 = (value: number): number => {
		const word = new Uint32Array(Float32Array.of(value).buffer);
		word[0] = ((word[0] ?? 0) + 0x7fff + (((word[0] ?? 0) >>> 16) & 1)) & 0xffff0000;
		return new Float32Array(word.buffer)[0] ?? Number.NaN;
	};
	const even = (value: number): number => (Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));
	const tiled = (data: Float32Array, height: number, width: number) => {
		const [down, across] = [Math.ceil(height / 128), Math.ceil(width / 128)];
		const tileOf = (index: number): number => Math.floor(Math.floor(index / width) / 128) * across + Math.floor((index % width) / 128);
		const largest = new Float32Array(down * across).fill(1e-8);
		data.forEach((value, index) => {
			largest[tileOf(index)] = Math.max(largest[tileOf(index)] ?? 0, Math.abs(value));
		});
		const bytes = Int8Array.from(data, (value, index) => Math.max(-128, Math.min(127, even(Math.fround(value * Math.fround(128 / (largest[tileOf(index)] ?? 1)))))));
		return { bytes, scale: largest.map((value) => value / 128), tileOf, shape: [down, across] };
	};
	const [x8, w8] = [tiled(x.data, rows, inputs), tiled(weight.data, outputs, inputs)];
	const out = Float32Array.from({ length: rows * outputs }, (_, index) => {
		const [row, output] = [Math.floor(index / outputs), index % outputs];
		let total = 0;
		for (let input = 0; input < inputs; input++) {
			const [a, b] = [row * inputs + input, output * inputs + input];
			total += (x8.bytes[a] ?? 0) * (x8.scale[x8.tileOf(a)] ?? 0) * (w8.bytes[b] ?? 0) * (w8.scale[w8.tileOf(b)] ?? 0);
		}
		return bf16(bf16(total) + ((bias.data as Float32Array)[output] ?? 0));
	});
	return {
		x, weight, bias, int8_weight: { dtype: 'I8' as const, shape: [outputs, inputs], data: w8.bytes }, scale: { dtype: 'F32' as const, shape: w8.shape, data: w8.scale },
		x_int8: { dtype: 'I8' as const, shape: [rows, inputs], data: x8.bytes }, x_scale: { dtype: 'F32' as const, shape: x8.shape, data: x8.scale }, out: { dtype: 'F32' as const, shape: [rows, outputs], data: out },
	};
};

test('w8a8 agrees with the plain loops at sizes with tails, of less than a tile and of one row', async () => {
	const cases = [w8a8Case(130, 150, 140, 21), w8a8Case(5, 7, 3, 31), w8a8Case(1, 256, 129, 41)];
	await using folder = await writeGolden('w8a8', {}, cases);
	// A sum that lies between two bfloat16 numbers may fall to either: the plain loops add in float64.
	const found = await verdicts(folder.path);
	assert.equal(found.length, 3);
	assert.ok(found.every(({ relativeError }) => relativeError < 2e-3), JSON.stringify(found));
});
