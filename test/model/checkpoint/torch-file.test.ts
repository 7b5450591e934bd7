/** The reader of PyTorch's files: what it reads, and what it must never do. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as pathOf } from 'node:path';
import { after, test } from 'node:test';
import { openCheckpoint } from '../../../src/model/checkpoint/checkpoint-file.js';
import type { TensorStore } from '../../../src/model/checkpoint/tensor-store.js';
import { encodeSafetensors } from '../../../src/model/safetensors.js';
import { type ErrorCode, TurbocastError } from '../../../src/protocol/errors.js';
import { bytesOf, call, dict, globalName, integer, join, OP, orderedDict, pickle, tensor, text, torchFile, tuple, zip, zipParts } from './torch-writer.js';

const folder = mkdtempSync(pathOf(tmpdir(), 'turbocast-checkpoint-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
const write = (bytes: Uint8Array): string => {
	const path = pathOf(folder, `file-${files++}.pth`);
	writeFileSync(path, bytes);
	return path;
};

const bytesIn = async (store: TensorStore, name: string): Promise<Uint8Array<ArrayBuffer>> => {
	const pieces: Uint8Array[] = [];
	for await (const piece of store.tensors.get(name)?.read() ?? []) {
		pieces.push(piece);
	}
	return join(...pieces);
};

const floatsIn = async (store: TensorStore, name: string): Promise<number[]> => [...new Float32Array((await bytesIn(store, name)).buffer)];

const NUMBERS = Float32Array.from({ length: 24 }, (_, index) => index);
const view = (shape: readonly number[], strides?: readonly number[], offset = 0): Uint8Array =>
	tensor({ storage: 'FloatStorage', key: '0', elements: 24, shape, ...(strides === undefined ? {} : { strides }), offset });

for (const isZip64 of [false, true]) {
	test(`tensors are read by offset and strides, dense or not (${isZip64 ? 'zip64' : 'zip'})`, async () => {
		const store = await openCheckpoint([write(torchFile(dict({
			whole: view([4, 6]), transposed: view([6, 4], [1, 6]), part: view([2, 3], [6, 1], 8), repeated: view([3, 2], [0, 1], 5), scalar: view([], [], 7), empty: view([0, 3]),
		}), { 0: NUMBERS }, { isZip64 }))]);
		assert.deepEqual(await floatsIn(store, 'whole'), [...NUMBERS]);
		assert.deepEqual((await floatsIn(store, 'transposed')).slice(0, 6), [0, 6, 12, 18, 1, 7]);
		assert.deepEqual(await floatsIn(store, 'part'), [8, 9, 10, 14, 15, 16]);
		assert.deepEqual(await floatsIn(store, 'repeated'), [5, 6, 5, 6, 5, 6]);
		assert.deepEqual(await floatsIn(store, 'scalar'), [7]);
		assert.deepEqual(await floatsIn(store, 'empty'), []);
		assert.deepEqual(store.tensors.get('part')?.shape, [2, 3]);
		await store.close();
	});
}

test('a tensor larger than a piece comes in pieces and whole', async () => {
	const data = Float32Array.from({ length: 1_200_000 }, (_, index) => index);
	const store = await openCheckpoint([write(torchFile(dict({ x: tensor({ storage: 'FloatStorage', key: '0', elements: data.length, shape: [data.length] }) }), { 0: data }))]);
	let pieces = 0;
	for await (const piece of store.tensors.get('x')?.read() ?? []) {
		pieces += piece.length > 0 ? 1 : 0;
	}
	assert.equal(pieces, 2);
	assert.deepEqual(await floatsIn(store, 'x'), [...data]);
	await store.close();
});

test('a tensor behind the first four gigabytes is found, and a sparse file costs nothing to open', async () => {
	const path = pathOf(folder, 'large.pth');
	const hole = 5_000_000_000;
	const root = dict({ large: tensor({ storage: 'ByteStorage', key: '0', elements: 1, shape: [4] }), small: tensor({ storage: 'FloatStorage', key: '1', elements: 24, shape: [24] }) });
	const handle = await open(path, 'w');
	for (const { offset, bytes } of zipParts([{ name: 'archive/data.pkl', data: pickle(root) }, { name: 'archive/data/0', bytes: hole }, { name: 'archive/data/1', data: bytesOf(NUMBERS) }])) {
		await handle.write(bytes, 0, bytes.length, offset);
	}
	await handle.close();
	const store = await openCheckpoint([path]);
	assert.deepEqual(await floatsIn(store, 'small'), [...NUMBERS]);
	assert.deepEqual([...await bytesIn(store, 'large')], [0, 0, 0, 0]);
	await store.close();
});

test('an OrderedDict with attributes, a parameter and step counters are read as the dict of tensors they are', async () => {
	const metadata = join(dict({ a: call('torch._utils', '_rebuild_parameter', view([2]), Uint8Array.of(0x88), orderedDict), step: integer(7), note: text('x') }, orderedDict), dict({ _metadata: orderedDict }), OP.build);
	const store = await openCheckpoint([write(torchFile(metadata, { 0: NUMBERS }))]);
	assert.deepEqual([...store.tensors.keys()], ['a']);
	assert.deepEqual(await floatsIn(store, 'a'), [0, 1]);
	await store.close();
});

test('of a generator and its average the average is taken', async () => {
	const store = await openCheckpoint([write(torchFile(dict({ generator: dict({ a: view([2]) }), generator_ema: dict({ a: view([2], [1], 2) }), step: integer(1) }), { 0: NUMBERS }))]);
	assert.equal(store.root, 'generator_ema');
	assert.deepEqual(await floatsIn(store, 'a'), [2, 3]);
	await store.close();
});

const good = torchFile(dict({ x: view([4, 6]) }), { 0: NUMBERS });
const command = text('touch pwned');

const REFUSED: { readonly [what: string]: readonly [Uint8Array, ErrorCode, RegExp] } = {
	'a pickle that calls os.system': [torchFile(call('os', 'system', command)), 'weights_corrupt', /asks for os\.system.*Nothing of it was executed/u],
	'a pickle that calls posix.system': [torchFile(call('posix', 'system', command)), 'weights_corrupt', /posix\.system/u],
	'a pickle that calls eval': [torchFile(call('builtins', 'eval', command)), 'weights_corrupt', /builtins\.eval/u],
	'a pickle that only names something': [torchFile(dict({ x: globalName('subprocess', 'Popen') })), 'weights_corrupt', /subprocess\.Popen/u],
	'a pickle that loads another from bytes': [torchFile(call('torch.storage', '_load_from_bytes', text('x'))), 'weights_corrupt', /torch\.storage\._load_from_bytes/u],
	'a pickle that calls a storage type': [torchFile(call('torch', 'FloatStorage', integer(1_000_000))), 'weights_corrupt', /calls torch\.FloatStorage/u],
	'a pickle of a whole module': [torchFile(call('torch.nn.modules.linear', 'Linear', integer(1))), 'weights_corrupt', /torch\.nn\.modules\.linear\.Linear/u],
	'a pickle that sets the state of an object': [torchFile(join(text('object'), dict({ a: integer(1) }), OP.build)), 'weights_corrupt', /sets the state of an object/u],
	'a pickle that gives a dict a state that is a tuple': [torchFile(join(orderedDict, tuple(OP.none, dict({})), OP.build)), 'weights_corrupt', /sets the state of an object/u],
	'a pickle that calls what is not a name': [torchFile(join(text('print'), tuple(command), OP.reduce)), 'weights_corrupt', /calls something that is not a name/u],
	'a pickle with INST': [torchFile(join(OP.mark, new TextEncoder().encode('ios\nsystem\n'))), 'weights_corrupt', /operation 0x69/u],
	'a pickle with STACK_GLOBAL': [torchFile(join(text('os'), text('system'), Uint8Array.of(0x93))), 'weights_corrupt', /operation 0x93/u],
	'a pickle with NEWOBJ': [torchFile(join(globalName('collections', 'OrderedDict'), OP.emptyTuple, Uint8Array.of(0x81))), 'weights_corrupt', /operation 0x81/u],
	'a pickle with an extension code': [torchFile(Uint8Array.of(0x82, 1)), 'weights_corrupt', /operation 0x82/u],
	'a pickle of protocol 4': [zip({ 'archive/data.pkl': Uint8Array.of(0x80, 4, 0x7d, 0x2e) }), 'weights_corrupt', /protocol 4/u],
	'a pickle that ends too early': [zip({ 'archive/data.pkl': pickle(dict({ x: text('y') })).subarray(0, 9) }), 'weights_corrupt', /ends too early/u],
	'a pickle that takes from an empty stack': [torchFile(OP.reduce), 'weights_corrupt', /empty stack/u],
	'a pickle that recalls what it never stored': [torchFile(Uint8Array.of(0x68, 3)), 'weights_corrupt', /never stored/u],
	'a pickle that sets entries in a list': [torchFile(join(OP.emptyList, OP.mark, text('a'), text('b'), OP.setItems)), 'weights_corrupt', /not a dict/u],
	'a pickle of something else than a dict': [torchFile(integer(3)), 'weights_corrupt', /no dict of tensors/u],
	'a tensor beyond its storage': [torchFile(dict({ x: view([4, 7]) }), { 0: NUMBERS }), 'weights_corrupt', /reaches beyond its storage/u],
	'a tensor whose strides lead outside': [torchFile(dict({ x: view([2, 2], [23, 1]) }), { 0: NUMBERS }), 'weights_corrupt', /reaches beyond its storage/u],
	'a tensor of a negative size': [torchFile(dict({ x: view([-1, 2], [1, 1]) }), { 0: NUMBERS }), 'weights_corrupt', /not described/u],
	'a tensor without numbers': [torchFile(dict({ x: view([4, 6]) })), 'weights_corrupt', /numbers of storage 0 are missing/u],
	'an archive without a pickle': [zip({ 'a.txt': Uint8Array.of(1) }), 'weights_corrupt', /without data\.pkl/u],
	'a compressed archive': [torchFile(dict({}), {}, { method: 8 }), 'weights_corrupt', /compressed or encrypted/u],
	'numbers the other way round': [zip({ 'archive/data.pkl': pickle(dict({})), 'archive/byteorder': new TextEncoder().encode('big') }), 'weights_corrupt', /not little-endian/u],
	'an archive cut short': [good.subarray(0, good.length - 30), 'weights_corrupt', /directory at its end is missing/u],
	'an archive that lost its beginning': [join(good.subarray(0, 4), good.subarray(104)), 'weights_corrupt', /./u],
	'a file of the old format': [Uint8Array.of(0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e), 'invalid_option', /before 1\.6.*convert it once/u],
	'an empty file': [new Uint8Array(0), 'weights_corrupt', /is empty/u],
	'a file of text': [new TextEncoder().encode('<html>404 not found</html>'), 'invalid_option', /neither a PyTorch file nor \.safetensors/u],
};

for (const [what, [bytes, code, pattern]] of Object.entries(REFUSED)) {
	test(`${what} is refused by name`, async () => {
		await assert.rejects(openCheckpoint([write(bytes)]), (error: unknown) => {
			assert.ok(error instanceof TurbocastError, String(error));
			assert.equal(error.code, code);
			assert.match(error.message, pattern);
			return true;
		});
	});
}

test('a view that would become larger than memory is refused when it is read', async () => {
	const store = await openCheckpoint([write(torchFile(dict({ x: view([2_000_000_000, 2], [0, 1]) }), { 0: NUMBERS }))]);
	await assert.rejects(bytesIn(store, 'x'), /4000000000 numbers made of 8 bytes/u);
	await store.close();
});

test('a file cut short anywhere is refused as damaged', async () => {
	for (let length = 4; length < good.length; length += 7) {
		await assert.rejects(openCheckpoint([write(good.subarray(0, length))]), (error: unknown) => error instanceof TurbocastError && error.code === 'weights_corrupt', `${length} bytes`);
	}
});

test('.safetensors in two parts are one checkpoint; a tensor in both is an error', async () => {
	const part = (name: string, value: number): string => write(encodeSafetensors({ [name]: { dtype: 'F32', shape: [1], data: Float32Array.of(value) } }));
	const store = await openCheckpoint([part('a', 1), part('b', 2)]);
	assert.deepEqual([await floatsIn(store, 'a'), await floatsIn(store, 'b')], [[1], [2]]);
	await store.close();
	await assert.rejects(openCheckpoint([part('a', 1), part('a', 2)]), /a stands in another part too/u);
});
