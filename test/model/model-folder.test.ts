import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadNetworks } from '../../src/engine/networks.js';
import { listModels, openModelFolder } from '../../src/model/model-folder.js';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { writeRandomModel } from './random-model.js';

const fails = (code: ErrorCode, pattern: RegExp) => (error: unknown): boolean => {
	assert.ok(error instanceof TurbocastError, String(error));
	assert.equal(error.code, code);
	assert.match(error.message, pattern);
	return true;
};

const flipBit = async (path: string, offset: number): Promise<void> => {
	await using file = await open(path, 'r+');
	const byte = Buffer.alloc(1);
	await file.read(byte, 0, 1, offset);
	await file.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, offset);
};

test('a sound folder opens, with its tokenizer and weights', async () => {
	await using model = await writeRandomModel();
	const folder = await openModelFolder(model.path, { verify: true });
	assert.equal(folder.spec.name, 'small');
	assert.deepEqual(folder.tokenizer.tokenize('a zebra').unknownWords, ['zebra']);
	assert.ok((await folder.readWeights('dit')).tensors.has('patch_embedding.weight'));
});

for (const which of ['text', 'dit', 'vae'] as const) {
	test(`one flipped bit in the ${which} weights is found when they are read, with the file's name and what to do`, async () => {
		await using model = await writeRandomModel();
		const path = join(model.path, `${which}.safetensors`);
		await flipBit(path, (await readFile(path)).length - 3);
		const folder = await openModelFolder(model.path);
		await assert.rejects(folder.readWeights(which), fails('weights_corrupt', new RegExp(`${which}\\.safetensors.*SHA-256.*Fetch the file again`, 'u')));
		await assert.rejects(openModelFolder(model.path, { verify: true }), fails('weights_corrupt', /SHA-256/u));
		await assert.rejects(loadNetworks({ folder: model.path, profile: 'cpu-fp32', width: 48, height: 32, threads: 1 }), fails('weights_corrupt', /SHA-256/u));
	});

	test(`${which} weights that were cut short are found when the folder is opened`, async () => {
		await using model = await writeRandomModel();
		await truncate(join(model.path, `${which}.safetensors`), 1000);
		await assert.rejects(openModelFolder(model.path), fails('weights_corrupt', new RegExp(`${which}\\.safetensors has 1000 bytes instead of \\d+`, 'u')));
	});
}

test('a flipped bit in the tokenizer, extra bytes and a missing file are found too', async () => {
	{
		await using model = await writeRandomModel();
		await flipBit(join(model.path, 'tokenizer.json'), 100);
		await assert.rejects(openModelFolder(model.path), fails('weights_corrupt', /tokenizer\.json/u));
	}
	{
		await using model = await writeRandomModel();
		await appendFile(join(model.path, 'vae.safetensors'), 'x');
		await assert.rejects(openModelFolder(model.path), fails('weights_corrupt', /vae\.safetensors/u));
	}
	{
		await using model = await writeRandomModel();
		await rename(join(model.path, 'dit.safetensors'), join(model.path, 'elsewhere'));
		await assert.rejects(openModelFolder(model.path), fails('weights_corrupt', /dit\.safetensors is missing/u));
	}
});

test('a model.json that is missing, no JSON or no model is model_invalid', async () => {
	await using model = await writeRandomModel();
	const path = join(model.path, 'model.json');
	const json = JSON.parse(await readFile(path, 'utf8')) as { files: { dit: object } };
	await writeFile(path, '{');
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /not JSON/u));
	await writeFile(path, '{"format":3}');
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /format/u));
	await writeFile(path, JSON.stringify({ ...json, files: { ...json.files, dit: { ...json.files.dit, file: '../dit.safetensors' } } }));
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /files\.dit\.file/u), 'a file outside the folder');
	await rm(path);
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /model\.json is missing/u));
});

test('weights of other shapes than model.json says are model_invalid and named', async () => {
	await using model = await writeRandomModel();
	const path = join(model.path, 'model.json');
	const json = JSON.parse(await readFile(path, 'utf8')) as { dit: object };
	await writeFile(path, JSON.stringify({ ...json, dit: { ...json.dit, ffn_dim: 64 } }));
	await assert.rejects(loadNetworks({ folder: model.path, profile: 'cpu-int8', width: 48, height: 32, threads: 1 }),
		fails('model_invalid', /dit\.safetensors: blocks\.0\.ffn\.0\.weight is \[72, 40\], but the configuration beside it asks for \[64, 40\]/u));
});

test('learned positions must be of as many tokens as every size has', async () => {
	await using model = await writeRandomModel({ changes: { dit: { position_grid: [2, 3] }, sizes: [[48, 32]] } });
	const path = join(model.path, 'model.json');
	const json = JSON.parse(await readFile(path, 'utf8')) as { dit: object };
	await openModelFolder(model.path);
	await writeFile(path, JSON.stringify({ ...json, sizes: [[48, 32], [32, 32]] }));
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /position_grid is 2x3, and 32x32 has 2x2 tokens/u));
	await writeFile(path, JSON.stringify({ ...json, dit: { ...json.dit, position_grid: [3, 2] } }));
	await assert.rejects(openModelFolder(model.path), fails('model_invalid', /position_grid is 3x2, and 48x32 has 2x3 tokens/u), 'rows first');
});

test('models under a root are listed, sound ones with what they are and broken ones with their error', async () => {
	const root = await mkdtemp(join(tmpdir(), 'turbocast-models-'));
	try {
		const sound = await writeRandomModel();
		await rename(sound.path, join(root, 'sound'));
		await mkdir(join(root, 'broken'));
		await writeFile(join(root, 'broken', 'model.json'), '[]');
		await mkdir(join(root, 'not-a-model'));
		const listed = await listModels(root);
		assert.deepEqual(listed.map((model) => [model.name, 'spec' in model ? model.spec.name : model.error.code]), [['broken', 'model_invalid'], ['sound', 'small']]);
		assert.deepEqual(await listModels(join(root, 'nowhere')), []);
	} finally {
		await rm(root, { recursive: true });
	}
});
