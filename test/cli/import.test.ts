/** Importing checkpoints: what is written, and that nothing is left of what could not be. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { PROCESS_MARK } from '../../src/base/orphans.js';
import { type ImportRequest, importCheckpoint } from '../../src/cli/import.js';
import { listComponentFolders, readComponentFolder } from '../../src/model/component-folder.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { quantizedTensors, type Shapes, textTensors, wanVaeTensors } from '../../src/model/checkpoint/network-tensors.js';
import { encodeSafetensors, parseSafetensors, readFloats, type Safetensors } from '../../src/model/safetensors.js';
import { type ErrorCode, TurbocastError } from '../../src/protocol/errors.js';
import { DIT, TEXT, VAE } from '../model/checkpoint/published-names.js';
import { dict, integer, type StateDict, writeStateDict } from '../model/checkpoint/torch-writer.js';
import { randomTensors } from '../model/random-weights.js';
import { repositoryRoot } from '../repository.js';

const root = mkdtempSync(join(tmpdir(), 'turbocast-import-'));
after(() => rmSync(root, { recursive: true, force: true }));

let [downloads, models, count] = ['', '', 0];
beforeEach(() => {
	downloads = join(root, `downloads-${++count}`);
	models = join(root, `models-${count}`);
	mkdirSync(downloads);
	mkdirSync(models);
});

const bring = (from: string, name: string, changes: Partial<ImportRequest> = {}) =>
	importCheckpoint({ from: join(downloads, from), to: join(models, name), name, signal: new AbortController().signal, say: () => undefined, ...changes });

const refusal = (attempt: Promise<unknown>, code: ErrorCode, pattern: RegExp): Promise<void> =>
	assert.rejects(attempt, (error: unknown) => {
		assert.ok(error instanceof TurbocastError, String(error));
		assert.equal(error.code, code);
		assert.match(error.message, pattern);
		return true;
	});

const written = (name: string, file: string): Safetensors => parseSafetensors(file, readFileSync(join(models, name, file)));

const DIT_SHAPES = ditTensors(DIT, true);
const bf16 = (floats: Float32Array): Uint16Array => Uint16Array.from(new Uint32Array(floats.buffer, floats.byteOffset, floats.length), (word) => word >>> 16);

/** Halves, exactly: the numbers are multiples of 1/64 below 2. */
const f16 = (floats: Float32Array): Uint16Array => Uint16Array.from(floats, (value) => {
	const size = Math.abs(value);
	const exponent = size === 0 ? -15 : Math.floor(Math.log2(size));
	return (value < 0 ? 0x8000 : 0) | (size === 0 ? 0 : ((exponent + 15) << 10) | ((size / 2 ** exponent - 1) * 1024));
});

const stateDict = (shapes: Shapes, seed: number, rename: (name: string) => string = (name) => name): StateDict =>
	Object.fromEntries(Object.entries(randomTensors(shapes, seed)).map(([name, tensor]) => [rename(name), tensor]));

test('a .pth becomes a folder with every tensor, its dimensions and its hash', async () => {
	const tensors = stateDict(DIT_SHAPES, 1);
	await writeStateDict(join(downloads, 'TurboWan.pth'), tensors);
	const folder = await bring('TurboWan.pth', 'turbo');
	assert.deepEqual(await readComponentFolder(join(models, 'turbo')), folder);
	assert.deepEqual((await listComponentFolders(models)).map(({ name }) => name), ['turbo']);
	const [dit] = folder.components;
	assert.deepEqual([dit?.component, dit?.kind, dit?.source, dit?.dimensions['num_layers']], ['dit', 'turbo-dit', ['TurboWan.pth'], DIT.num_layers]);
	const bytes = readFileSync(join(models, 'turbo', 'dit.safetensors'));
	assert.deepEqual([bytes.length, createHash('sha256').update(bytes).digest('hex')], [dit?.bytes, dit?.sha256]);
	const file = parseSafetensors('dit', bytes);
	assert.deepEqual([...file.tensors.keys()].sort(), Object.keys(tensors).sort());
	for (const [name, entry] of file.tensors) {
		assert.deepEqual(readFloats(file, entry), tensors[name]?.data, name);
	}
	assert.deepEqual(readdirSync(join(models, 'turbo')).sort(), ['component.json', 'dit.safetensors']);
});

test('bfloat16 stays, half precision becomes float32, exactly', async () => {
	const [first = '', second = ''] = ['norm.weight', 'blocks.0.attn.q.weight'];
	const tensors = { ...stateDict(textTensors(TEXT), 2) };
	const numbers = Float32Array.from({ length: 48 }, (_, index) => (index - 24) / 64);
	tensors[first] = { dtype: 'BF16', shape: [6], data: bf16(Float32Array.of(1, -2, 0.5, 3, 0, 8)) };
	tensors[second] = { dtype: 'F16', shape: [8, 6], data: f16(numbers) };
	await writeStateDict(join(downloads, 'umt5.pth'), tensors);
	await bring('umt5.pth', 'text');
	const file = written('text', 'text.safetensors');
	assert.equal(file.tensors.get(first)?.dtype, 'BF16');
	assert.equal(file.tensors.get(second)?.dtype, 'F32');
	assert.deepEqual([first, second].map((name) => [...readFloats(file, file.tensors.get(name) ?? assert.fail(name))]), [[1, -2, 0.5, 3, 0, 8], [...numbers]]);
});

test('Self-Forcing: the average of the generator is taken, without prefixes, and its licence is said', async () => {
	const shapes = ditTensors(DIT, false);
	await writeStateDict(join(downloads, 'self_forcing.pt'), stateDict(shapes, 3, (name) => `model.${name}`), (inner) => dict({ generator: dict({}), generator_ema: inner, step: integer(9) }));
	const { license } = await bring('self_forcing.pt', 'sf');
	assert.match(license, /CC BY-NC-SA 4\.0.*not for commercial use/u);
	assert.deepEqual([...written('sf', 'dit.safetensors').tensors.keys()].sort(), Object.keys(shapes).sort());
});

test('a folder brings every network in it, parts of one together, and leaves out what is none', async () => {
	mkdirSync(join(downloads, 'transformer'));
	const names = Object.entries(randomTensors(DIT_SHAPES, 4));
	for (const [index, part] of [names.slice(0, 20), names.slice(20)].entries()) {
		writeFileSync(join(downloads, 'transformer', `model-0000${index + 1}-of-00002.safetensors`), encodeSafetensors(Object.fromEntries(part)));
	}
	await writeStateDict(join(downloads, 'Wan2.1_VAE.pth'), stateDict(wanVaeTensors(VAE), 5));
	await writeStateDict(join(downloads, 'clip.pth'), { 'visual.weight': { dtype: 'F32', shape: [1], data: Float32Array.of(1) } });
	const said: string[] = [];
	const { components } = await bring('.', 'wan', { say: (sentence) => said.push(sentence) });
	assert.deepEqual(components.map(({ component, file }) => [component, file]), [['vae', 'vae.safetensors'], ['dit', 'dit.safetensors']]);
	assert.ok(said.some((sentence) => /clip\.pth is none of the networks/u.test(sentence)), said.join('\n'));
	rmSync(join(downloads, 'transformer', 'model-00002-of-00002.safetensors'));
	await refusal(bring('.', 'again'), 'weights_corrupt', /transformer\/model\.safetensors has 1 of 2 parts/u);
});

test('the tokenizer beside a text encoder comes along when its pieces fit; without one the encoder is imported alone', async () => {
	const small = readFileSync(join(repositoryRoot, 'test', 'fixtures', 'sentencepiece', 'small.model'));
	const encoder = (vocabulary: number): Promise<void> => writeStateDict(join(downloads, 'umt5.pth'), stateDict(textTensors({ ...TEXT, vocab_size: vocabulary }), 2));
	await encoder(500);
	const said: string[] = [];
	const alone = await bring('umt5.pth', 'alone', { say: (sentence) => said.push(sentence) });
	assert.equal(alone.tokenizer, undefined);
	assert.ok(said.some((sentence) => /no spiece\.model or tokenizer\.json/u.test(sentence)), said.join('\n'));
	mkdirSync(join(downloads, 'google', 'umt5-xxl'), { recursive: true });
	writeFileSync(join(downloads, 'google', 'umt5-xxl', 'spiece.model'), small);
	const { tokenizer } = await bring('umt5.pth', 'both');
	assert.deepEqual(tokenizer, { file: 'spiece.model', bytes: small.length, sha256: createHash('sha256').update(small).digest('hex') });
	assert.deepEqual(readFileSync(join(models, 'both', 'spiece.model')), small);
	assert.deepEqual((await readComponentFolder(join(models, 'both')))?.tokenizer, tokenizer);
	await encoder(400);
	await refusal(bring('umt5.pth', 'other'), 'model_invalid', /460 pieces, but the text encoder knows 400/u);
	assert.deepEqual(readdirSync(models).sort(), ['alone', 'both']);
});

test('two experts are told apart by their names; two of anything else are refused', async () => {
	await writeStateDict(join(downloads, 'TurboWan2.2-I2V-A14B-high-720P.pth'), stateDict(DIT_SHAPES, 6));
	await writeStateDict(join(downloads, 'TurboWan2.2-I2V-A14B-low-720P.pth'), stateDict(DIT_SHAPES, 7));
	const { components } = await bring('.', 'experts');
	assert.deepEqual(components.map(({ expert, file }) => [expert, file]), [['high', 'dit-high.safetensors'], ['low', 'dit-low.safetensors']]);
	await writeStateDict(join(downloads, 'another.pth'), stateDict(DIT_SHAPES, 8));
	await writeStateDict(join(downloads, 'yet-another.pth'), stateDict(DIT_SHAPES, 8));
	await refusal(bring('.', 'many'), 'invalid_option', /another\.pth and yet-another\.pth are both a Wan DiT/u);
});

test('nothing stays behind when a file cannot be imported or the user interrupts', async () => {
	const tensors = { ...stateDict(DIT_SHAPES, 9) };
	await writeStateDict(join(downloads, 'good.pth'), tensors);
	delete (tensors as Record<string, unknown>)['head.head.bias'];
	await writeStateDict(join(downloads, 'bad.pth'), tensors);
	await refusal(bring('bad.pth', 'bad'), 'model_invalid', /Missing \(1\):\n {2}head\.head\.bias/u);
	const interruption = new AbortController();
	interruption.abort(new Error('interrupted'));
	await assert.rejects(bring('good.pth', 'stopped', { signal: interruption.signal }), /interrupted/u);
	assert.deepEqual(readdirSync(models), []);
});

test('an interruption between two networks leaves nothing of the first', async () => {
	await writeStateDict(join(downloads, 'a-dit.pth'), stateDict(DIT_SHAPES, 9));
	await writeStateDict(join(downloads, 'b-vae.pth'), stateDict(wanVaeTensors(VAE), 9));
	const interruption = new AbortController();
	const seen: string[][] = [];
	const say = (): void => {
		seen.push(readdirSync(models).flatMap((name) => readdirSync(join(models, name))));
		interruption.abort(new Error('interrupted'));
	};
	await assert.rejects(bring('.', 'stopped', { signal: interruption.signal, say }), /interrupted/u);
	assert.deepEqual([seen, readdirSync(models)], [[['dit.safetensors']], []]);
});

test('what an import left that was killed is removed by the next one, and what one at work has is not', async () => {
	await writeStateDict(join(downloads, 'good.pth'), stateDict(DIT_SHAPES, 9));
	const { pid } = spawnSync(process.execPath, ['--version']);
	const left = `.old.unfinished-${PROCESS_MARK.replace(new RegExp(`${process.pid}$`, 'u'), String(pid))}`;
	const [own, elsewhere] = [`.other.unfinished-${PROCESS_MARK}`, `.third.unfinished-another-host-${pid}`];
	for (const name of [left, own, elsewhere]) {
		mkdirSync(join(models, name));
		writeFileSync(join(models, name, 'dit.safetensors'), 'half');
	}
	await bring('good.pth', 'new');
	assert.deepEqual(readdirSync(models).sort(), [own, elsewhere, 'new'].sort());
});

test('a folder of models that cannot be written to is output_failed', async () => {
	await writeStateDict(join(downloads, 'good.pth'), stateDict(DIT_SHAPES, 9));
	writeFileSync(join(models, 'file'), '');
	await refusal(bring('good.pth', 'new', { to: join(models, 'file', 'new') }), 'output_failed', /something else is in its place/u);
	await refusal(bring('good.pth', 'x'.repeat(240)), 'output_failed', /its name is too long/u);
});

test('a name that is taken, a path that is not there and a folder without checkpoints are refused', async () => {
	await writeStateDict(join(downloads, 'good.pth'), stateDict(DIT_SHAPES, 10));
	mkdirSync(join(downloads, 'empty'));
	await bring('good.pth', 'taken');
	await refusal(bring('good.pth', 'taken'), 'invalid_option', /a model taken already/u);
	await refusal(bring('nowhere.pth', 'new'), 'invalid_option', /no file or folder/u);
	await refusal(bring('empty', 'new'), 'invalid_option', /holds no \.pth, \.pt or \.safetensors file/u);
});

test('the command imports, lists and shows, and says what it is called with wrongly', async () => {
	await writeStateDict(join(downloads, 'quant.pth'), Object.fromEntries(Object.entries(quantizedTensors(DIT_SHAPES)).map(([name, shape]) => {
		const size = shape.reduce((product, side) => product * side, 1);
		return [name, name.endsWith('.int8_weight') ? { dtype: 'I8', shape, data: new Int8Array(size).fill(-3) } : { dtype: 'F32', shape, data: new Float32Array(size) }];
	})));
	const config = join(downloads, 'config.yaml');
	writeFileSync(config, `engine:\n  models_dir: ${models}\n`);
	const turbocast = (...args: string[]) => spawnSync(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'models', ...args, '--config', config], { encoding: 'utf8' });
	const imported = turbocast('import', join(downloads, 'quant.pth'), '--as', 'turbo-quant');
	assert.equal(imported.status, 0, imported.stderr);
	assert.match(imported.stdout, /Wan DiT, sparse-linear attention, 8-bit linear layers/u);
	const file = written('turbo-quant', 'dit.safetensors');
	assert.equal(file.tensors.get('blocks.1.ffn.2.int8_weight')?.dtype, 'I8');
	assert.match(turbocast().stdout, /^turbo-quant +Wan DiT.*models join. makes a model/mu);
	assert.match(turbocast('show', 'turbo-quant').stdout, /"sla".*"w8a8"/u);
	for (const wrong of [['import'], ['import', join(downloads, 'quant.pth')], ['import', join(downloads, 'quant.pth'), '--as', 'x', '--head-dim', 'wide'], ['import', join(downloads, 'no.pth'), '--as', 'x']]) {
		assert.equal(turbocast(...wrong).status, 2, wrong.join(' '));
	}
	assert.equal(turbocast('import', join(downloads, 'quant.pth'), '--as', '../x').status, 1);
});
