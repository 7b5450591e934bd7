/**
 * The kernels of native/cuda without a card: the same source, run thread by thread in an emulation, against its C++ references, and those against our plain loops.
 * See native/cuda/machine.h.
 */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseSafetensors, readFloats, readTensor } from '../../src/model/safetensors.js';
import { repositoryRoot } from '../repository.js';
import { slaCase, type SlaSize } from '../verify/random-golden.js';
import { emulatedBuild, missing, run, temporaryFolder } from './build-cuda.js';

const GOLDEN = join(repositoryRoot, 'test/fixtures/golden/w8a8/case-2.safetensors');

type Floats = Float32Array;

const relativeError = (actual: Floats, expected: Floats): number => {
	assert.equal(actual.length, expected.length);
	const norm = (x: Iterable<number>): number => Math.sqrt([...x].reduce((sum, value) => sum + value * value, 0));
	return norm(actual.map((value, index) => value - (expected[index] ?? Number.NaN))) / norm(expected);
};

/** [tokens, heads, d] to [heads, tokens, d]. */
const byHead = (x: Floats, tokens: number, heads: number, d: number): Floats => Float32Array.from(x, (_, index) => {
	const [head, token, channel] = [Math.floor(index / (tokens * d)), Math.floor(index / d) % tokens, index % d];
	return x[(token * heads + head) * d + channel] ?? Number.NaN;
});

const bytesOf = (x: ArrayBufferView): Uint8Array => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
const floatsOf = (bytes: Buffer): Floats => new Float32Array(Uint8Array.from(bytes).buffer);

describe('kernels for CUDA, emulated', { skip: missing('g++') }, () => {
	let folder: Awaited<ReturnType<typeof temporaryFolder>>;
	let check = '';

	before(async () => {
		folder = await temporaryFolder();
		check = join(await emulatedBuild(), 'check-emulated');
	});
	after(() => folder[Symbol.asyncDispose]());

	/** Writes the inputs, runs the command, and reads the outputs. */
	const onFiles = async (command: string, way: string, sizes: readonly (number | string)[], inputs: { readonly [name: string]: Floats }, outputs: readonly string[]): Promise<Buffer[]> => {
		const path = join(folder.path, command);
		await mkdir(path, { recursive: true });
		for (const [name, data] of Object.entries(inputs)) {
			await writeFile(join(path, name), bytesOf(data));
		}
		await run(check, [command, way, path, ...sizes.map(String)]);
		return Promise.all(outputs.map((name) => readFile(join(path, name))));
	};

	for (const kernel of ['refusals', 'w8a8', 'sla', 'int8', 'norms']) {
		test(`${kernel}: every case agrees with its reference, in every order of threads`, async () => {
			const printed = await run(check, ['all', kernel]);
			assert.match(printed, /Everything agrees\.\n$/u);
			assert.ok((printed.match(/^ok /gmu) ?? []).length >= 3, printed);
		});
	}

	for (const way of ['reference', 'kernel']) {
		test(`w8a8, ${way}: the golden case, bit for bit`, async () => {
			const golden = parseSafetensors('golden', await readFile(GOLDEN));
			const entry = (name: string) => golden.tensors.get(name) ?? assert.fail(name);
			const floats = (name: string): Floats => readFloats(golden, entry(name));
			const [rows = 0, inputs = 0] = entry('x').shape;
			const [outputs = 0] = entry('weight').shape;
			const names = ['int8_weight', 'scale', 'x_int8', 'x_scale'];
			const results = await onFiles('w8a8', way, [rows, inputs, outputs], { x: floats('x'), weight: floats('weight'), bias: floats('bias') }, [...names, 'out']);
			for (const [index, name] of names.entries()) {
				assert.equal(results[index]?.compare(readTensor(golden, entry(name))), 0, name);
			}
			assert.ok(relativeError(floatsOf(results[4] ?? Buffer.alloc(0)), floats('out')) < 1e-4);
		});
	}

	const sizes: SlaSize[] = [
		{ batch: 1, tokens: 150, heads: 2, headDim: 64, shape: { ratio: 0.5, blockQueries: 64, blockKeys: 64 } },
		{ batch: 1, tokens: 200, heads: 1, headDim: 128, shape: { ratio: 0.3, blockQueries: 128, blockKeys: 64 } },
	];
	for (const [way, tolerance] of [['reference', 1e-5], ['kernel', 1e-3]] as const) {
		test(`sla, ${way}: our plain loops, blocks and numbers`, async () => {
			for (const [index, size] of sizes.entries()) {
				const { tokens, heads, headDim: d, shape } = size;
				const { tensors } = slaCase(size, 300 * (index + 1));
				const data = (name: string): Floats => (tensors[name]?.data ?? assert.fail(name)) as Floats;
				const [out, chosen] = await onFiles('sla', way, [heads, tokens, d, shape.blockQueries, shape.blockKeys, shape.ratio], {
					q: byHead(data('q'), tokens, heads, d), k: byHead(data('k'), tokens, heads, d), v: byHead(data('v'), tokens, heads, d), weight: data('proj_l.weight'), bias: data('proj_l.bias'),
				}, ['out', 'chosen']);
				const error = relativeError(floatsOf(out ?? Buffer.alloc(0)), byHead(data('out'), tokens, heads, d));
				assert.ok(error < tolerance, `${error}`);
				const keyBlocks = Math.ceil(tokens / shape.blockKeys);
				const map = new Uint8Array(heads * Math.ceil(tokens / shape.blockQueries) * keyBlocks);
				const kept = Math.max(1, Math.floor(shape.ratio * keyBlocks));
				new Int32Array(Uint8Array.from(chosen ?? []).buffer).forEach((block, place) => {
					map[Math.floor(place / kept) * keyBlocks + block] = 1;
				});
				assert.deepEqual(map, tensors['block_map']?.data);
			}
		});
	}
});
