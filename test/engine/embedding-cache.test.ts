import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createEmbeddingCache, DEFAULT_MAX_BYTES, type EmbeddingCache, type EmbeddingKey } from '../../src/engine/embedding-cache.js';

type Setting = { readonly folder: string; readonly warnings: string[]; readonly clock: { nowMs: number }; readonly open: (maxBytes?: number) => EmbeddingCache; readonly [Symbol.asyncDispose]: () => Promise<void> };

const setUp = async (): Promise<Setting> => {
	const root = await mkdtemp(join(tmpdir(), 'turbocast-embeddings-'));
	const folder = join(root, 'embeddings');
	const warnings: string[] = [];
	const clock = { nowMs: 1_700_000_000_000 };
	const log = { warn: (_fields: object, message: string) => void warnings.push(message) };
	return {
		folder, warnings, clock, open: (maxBytes = DEFAULT_MAX_BYTES) => createEmbeddingCache({ folder, maxBytes, nowMs: () => clock.nowMs, log }),
		[Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
	};
};

const DIM = 4;
const key = (...ids: number[]): EmbeddingKey => ({ encoderId: 'one', ids, dim: DIM });
const rowsFor = ({ ids }: EmbeddingKey): Float32Array => Float32Array.from({ length: ids.length * DIM }, (_, index) => index / 3 - (ids[0] ?? 0));

test('what was written is read, bit for bit, by another cache of the same folder', async () => {
	await using setting = await setUp();
	assert.equal(await setting.open().read(key(7, 1)), undefined);
	await setting.open().write(key(7, 1), rowsFor(key(7, 1)));
	assert.deepEqual(await setting.open().read(key(7, 1)), rowsFor(key(7, 1)));
	assert.deepEqual(setting.warnings, []);
});

test('another prompt, encoder or width is another entry', async () => {
	await using setting = await setUp();
	const cache = setting.open();
	await cache.write(key(7, 1), rowsFor(key(7, 1)));
	for (const other of [key(7, 2), key(7), { ...key(7, 1), encoderId: 'two' }, { ...key(7, 1), dim: 8 }]) {
		assert.equal(await cache.read(other), undefined);
	}
});

test('a damaged file is ignored, said once, and replaced', async () => {
	await using setting = await setUp();
	const cache = setting.open();
	for (const damage of [(bytes: Buffer) => bytes.fill(bytes.readUInt8(90) ^ 1, 90, 91), (bytes: Buffer) => bytes.subarray(0, -1), () => Buffer.alloc(0)]) {
		await cache.write(key(7, 1), rowsFor(key(7, 1)));
		const [name = ''] = await readdir(setting.folder);
		await writeFile(join(setting.folder, name), damage(await readFile(join(setting.folder, name))));
		assert.equal(await cache.read(key(7, 1)), undefined);
		assert.deepEqual(await readdir(setting.folder), []);
	}
	assert.equal(setting.warnings.length, 1);
});

test('the entries used last stay when the limit is reached', async () => {
	await using setting = await setUp();
	const cache = setting.open();
	await cache.write(key(1), rowsFor(key(1)));
	const [name = ''] = await readdir(setting.folder);
	const { size } = await stat(join(setting.folder, name));
	const small = setting.open(3 * size);
	for (const id of [2, 3]) {
		setting.clock.nowMs += 1000;
		await small.write(key(id), rowsFor(key(id)));
	}
	setting.clock.nowMs += 1000;
	assert.notEqual(await small.read(key(1)), undefined); // Used again: now 2 is the oldest.
	setting.clock.nowMs += 1000;
	await small.write(key(4), rowsFor(key(4)));
	const kept = await Promise.all([1, 2, 3, 4].map(async (id) => (await small.read(key(id))) !== undefined));
	assert.deepEqual(kept, [true, false, true, true]);
	await setting.open(size - 1).write(key(5), rowsFor(key(5)));
	assert.equal(await small.read(key(5)), undefined);
});

test('files that a dead process left unfinished are removed, those of a living one are not', async () => {
	await using setting = await setUp();
	await mkdir(setting.folder);
	const [old, young] = [join(setting.folder, 'old.unfinished'), join(setting.folder, 'young.unfinished')];
	await writeFile(old, 'x');
	await writeFile(young, 'x');
	const seconds = setting.clock.nowMs / 1000;
	await utimes(old, seconds - 7200, seconds - 7200);
	await utimes(young, seconds, seconds);
	await setting.open().write(key(1), rowsFor(key(1)));
	assert.deepEqual((await readdir(setting.folder)).filter((name) => name.endsWith('.unfinished')), ['young.unfinished']);
});

test('a folder that cannot be written costs a warning and nothing else', async () => {
	await using setting = await setUp();
	await writeFile(setting.folder, 'a file where the folder should be');
	const cache = setting.open();
	await cache.write(key(1), rowsFor(key(1)));
	await cache.write(key(2), rowsFor(key(2)));
	assert.equal(await cache.read(key(1)), undefined);
	assert.equal(setting.warnings.length, 1);
});

test('nobody else may read what was made of a prompt', async () => {
	await using setting = await setUp();
	await setting.open().write(key(1), rowsFor(key(1)));
	const [name = ''] = await readdir(setting.folder);
	assert.equal((await stat(setting.folder)).mode & 0o077, 0);
	assert.equal((await stat(join(setting.folder, name))).mode & 0o077, 0);
});
