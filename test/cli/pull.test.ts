/** From the name of a published set to a folder of checked weights, by a hub on the loopback. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { parseCatalogue, readCatalogue, setsOf } from '../../src/cli/catalogue.js';
import { openHub } from '../../src/cli/hub.js';
import { pull, type PullRequest } from '../../src/cli/pull.js';
import { textTensors, wanVaeTensors, type Shapes } from '../../src/model/checkpoint/network-tensors.js';
import { readComponentFolder } from '../../src/model/component-folder.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { type ErrorCode, TurbocastError } from '../../src/protocol/errors.js';
import { DIT, TEXT, VAE } from '../model/checkpoint/published-names.js';
import { dict, integer, writeStateDict } from '../model/checkpoint/torch-writer.js';
import { randomTensors } from '../model/random-weights.js';
import { repositoryRoot } from '../repository.js';
import { type HubServer, startHubServer } from './hub-server.js';

const root = mkdtempSync(join(tmpdir(), 'turbocast-pull-'));
after(() => rmSync(root, { recursive: true, force: true }));

let [models, count] = ['', 0];
beforeEach(() => {
	models = join(root, `models-${++count}`);
	mkdirSync(models);
});

const catalogue = await readCatalogue();
const fileOf = (set: string, index = 0): string => catalogue.sets.find(({ name }) => name === set)?.files[index] ?? assert.fail(set);

const bytesOf = async (shapes: Shapes, seed: number, isSelfForcing = false): Promise<Uint8Array> => {
	const path = join(root, `checkpoint-${seed}.pth`);
	const tensors = Object.fromEntries(Object.entries(randomTensors(shapes, seed)).map(([name, tensor]) => [isSelfForcing ? `model.${name}` : name, tensor]));
	await writeStateDict(path, tensors, isSelfForcing ? (inner) => dict({ generator_ema: inner, step: integer(9) }) : undefined);
	return readFileSync(path);
};

/** Every set's real names with small networks behind them. */
const CHECKPOINTS = {
	text: await bytesOf(textTensors({ ...TEXT, vocab_size: 500 }), 1), vae: await bytesOf(wanVaeTensors(VAE), 2),
	turbo: await bytesOf(ditTensors(DIT, true), 3), selfForcing: await bytesOf(ditTensors(DIT, false), 4, true), low: await bytesOf(ditTensors(DIT, true), 5),
};
const WAN = 'Wan-AI/Wan2.1-T2V-1.3B';

const startHub = async (): Promise<HubServer> => {
	const server = await startHubServer();
	server.files.set(`${WAN}/${fileOf('umt5-xxl')}`, CHECKPOINTS.text);
	server.files.set(`${WAN}/${fileOf('umt5-xxl', 1)}`, readFileSync(join(repositoryRoot, 'test', 'fixtures', 'sentencepiece', 'small.model')));
	server.files.set(`${WAN}/${fileOf('wan-vae')}`, CHECKPOINTS.vae);
	server.files.set(`TurboDiffusion/TurboWan2.1-T2V-1.3B-480P/${fileOf('turbowan-1.3b')}`, CHECKPOINTS.turbo);
	server.files.set(`TurboDiffusion/TurboWan2.2-I2V-A14B-720P/${fileOf('turbowan-i2v-a14b')}`, CHECKPOINTS.turbo);
	server.files.set(`TurboDiffusion/TurboWan2.2-I2V-A14B-720P/${fileOf('turbowan-i2v-a14b', 1)}`, CHECKPOINTS.low);
	server.files.set(`gdhe17/Self-Forcing/${fileOf('self-forcing')}`, CHECKPOINTS.selfForcing);
	return server;
};

const request = (server: HubServer, set: string, changes: Partial<PullRequest> = {}): PullRequest => ({
	catalogue, set, root: models, hub: openHub({ url: server.url }), acceptedLicenses: [], ask: undefined, say: () => undefined,
	sleep: () => Promise.resolve(), nowMs: () => performance.now(), signal: new AbortController().signal, ...changes,
});

const refusal = (attempt: Promise<unknown>, code: ErrorCode, pattern: RegExp): Promise<void> =>
	assert.rejects(attempt, (error: unknown) => {
		assert.ok(error instanceof TurbocastError, String(error));
		assert.equal(error.code, code, error.message);
		assert.match(error.message, pattern);
		return true;
	});

test('a set is fetched with what it needs, imported, and its licence kept; what is there is not fetched again', async () => {
	await using server = await startHub();
	const said: string[] = [];
	const folders = await pull(request(server, 'turbowan-1.3b', { say: (sentence) => void said.push(sentence) }));
	assert.deepEqual(folders.map(({ name }) => name), ['umt5-xxl', 'wan-vae', 'turbowan-1.3b']);
	assert.deepEqual(readdirSync(models).sort(), ['.downloads', 'turbowan-1.3b', 'umt5-xxl', 'wan-vae']);
	assert.deepEqual(readdirSync(join(models, '.downloads')), []);
	const turbo = await readComponentFolder(join(models, 'turbowan-1.3b'));
	assert.deepEqual([turbo?.components[0]?.kind, turbo?.components[0]?.source], ['turbo-dit', ['TurboWan2.1-T2V-1.3B-480P.pth']]);
	assert.match(turbo?.license ?? '', /^Apache-2\.0 \(https:/u);
	assert.equal((await readComponentFolder(join(models, 'umt5-xxl')))?.tokenizer?.file, 'spiece.model');
	for (const set of ['umt5-xxl', 'wan-vae', 'turbowan-1.3b']) {
		assert.ok(said.some((sentence) => sentence.startsWith(`${set}: `) && sentence.includes('Licence: Apache-2.0')), set);
	}
	const before = server.requests.length;
	await pull(request(server, 'turbowan-1.3b'));
	assert.equal(server.requests.length, before);
});

test('two experts become one folder', async () => {
	await using server = await startHub();
	const folders = await pull(request(server, 'turbowan-i2v-a14b'));
	assert.deepEqual(folders.at(-1)?.components.map(({ expert }) => expert), ['high', 'low']);
});

test('weights that are not for commercial use are asked about, or refused where nobody can be asked', async () => {
	await using server = await startHub();
	await refusal(pull(request(server, 'self-forcing')), 'license_not_accepted', /CC BY-NC-SA 4\.0, not for commercial use.*--accept-license self-forcing/u);
	const questions: string[] = [];
	const ask = (answer: boolean) => (question: string): Promise<boolean> => Promise.resolve((questions.push(question), answer));
	await refusal(pull(request(server, 'self-forcing', { ask: ask(false) })), 'license_not_accepted', /not accepted/u);
	await refusal(pull(request(server, 'self-forcing', { acceptedLicenses: ['wan-vae'] })), 'license_not_accepted', /not accepted/u);
	assert.deepEqual(server.requests, [], 'nothing is fetched before the licence is accepted');
	const folders = await pull(request(server, 'self-forcing', { ask: ask(true) }));
	assert.equal(questions.length, 2);
	assert.match(folders.at(-1)?.license ?? '', /CC BY-NC-SA 4\.0, not for commercial use/u);
	rmSync(join(models, 'self-forcing'), { recursive: true });
	await pull(request(server, 'self-forcing', { acceptedLicenses: ['self-forcing'] }));
});

test('an interrupted pull goes on where it stopped; a file that cannot be imported is kept and said', async () => {
	await using server = await startHub();
	const interruption = new AbortController();
	server.faults.push({ kind: 'cut', afterBytes: 2000, times: 1 });
	const sleep = (): Promise<void> => {
		interruption.abort(new Error('interrupted'));
		return Promise.reject(new Error('interrupted'));
	};
	await assert.rejects(pull(request(server, 'wan-vae', { signal: interruption.signal, sleep })), /interrupted/u);
	assert.deepEqual(readdirSync(models), ['.downloads']);
	await pull(request(server, 'wan-vae'));
	assert.ok(server.requests.some((line) => line.includes('bytes=2000-')), server.requests.join('\n'));
	server.files.set(`${WAN}/${fileOf('umt5-xxl')}`, CHECKPOINTS.text.subarray(0, -500));
	await refusal(pull(request(server, 'umt5-xxl')), 'weights_corrupt', /damaged or was cut short/u);
	assert.deepEqual(readdirSync(models).sort(), ['.downloads', 'wan-vae']);
});

test('a folder in the way and an unknown set are refused', async () => {
	await using server = await startHub();
	mkdirSync(join(models, 'wan-vae'));
	await refusal(pull(request(server, 'turbowan-1.3b')), 'invalid_option', /in the way/u);
	await refusal(pull(request(server, 'turbowan-2b')), 'invalid_option', /there are umt5-xxl/u);
});

test('the catalogue holds the published sets, and only Self-Forcing is not for commercial use', () => {
	assert.deepEqual(catalogue.sets.filter(({ license }) => !license.commercial).map(({ name }) => name), ['self-forcing']);
	for (const name of ['turbowan-1.3b', 'turbowan-1.3b-quant', 'turbowan-14b-480p', 'turbowan-14b-720p-quant', 'wan-1.3b', 'wan-14b', 'self-forcing', 'umt5-xxl', 'wan-vae', 'taehv']) {
		assert.ok(setsOf(catalogue, name).length > 0);
	}
	const [set] = catalogue.sets;
	for (const wrong of [{ ...set, files: ['../x.pth'] }, { ...set, files: ['a/.hidden'] }, { ...set, files: ['/etc/x'] }, { ...set, with: ['nothing'] }, { ...set, repository: 'x' }]) {
		assert.throws(() => parseCatalogue({ format: 1, sets: [wrong] }), (error: unknown) => error instanceof TurbocastError && error.code === 'invalid_config', JSON.stringify(wrong));
	}
	assert.throws(() => parseCatalogue({ format: 1, sets: [set, set] }), /must be there once/u);
});

test('the command lists, pulls from HF_ENDPOINT, and says what it cannot do', { timeout: 240_000 }, async () => {
	await using server = await startHub();
	const config = join(root, `config-${count}.yaml`);
	writeFileSync(config, `engine:\n  models_dir: ${models}\n`);
	const turbocast = (endpoint: string, ...args: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> => new Promise((resolve) => {
		const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'models', ...args, '--config', config], { env: { ...process.env, HF_ENDPOINT: endpoint }, stdio: ['ignore', 'pipe', 'pipe'] });
		let [stdout, stderr] = ['', ''];
		child.stdout.on('data', (text: Buffer) => void (stdout += text.toString()));
		child.stderr.on('data', (text: Buffer) => void (stderr += text.toString()));
		child.on('close', (status) => resolve({ status, stdout, stderr }));
	});
	const listed = await turbocast(server.url, 'pull');
	assert.match(listed.stdout, /^self-forcing .*not for commercial use\)$/mu);
	const pulled = await turbocast(server.url, 'pull', 'wan-vae');
	assert.equal(pulled.status, 0, pulled.stderr);
	assert.match(pulled.stdout, /Licence: Apache-2\.0/u);
	assert.match(pulled.stdout, /Wan2\.1_VAE\.pth: .* MB, [\d.]+ MB\/s \(100 %\)/u);
	assert.ok((await readComponentFolder(join(models, 'wan-vae'))) !== undefined);
	const refused = await turbocast(server.url, 'pull', 'self-forcing');
	assert.deepEqual([refused.status, /\[license_not_accepted\]/u.test(refused.stderr)], [1, true], refused.stderr);
	await server[Symbol.asyncDispose]();
	const offline = await turbocast(server.url, 'pull', 'umt5-xxl');
	assert.deepEqual([offline.status, /cannot be reached.*\[hub_unreachable\]/su.test(offline.stderr)], [1, true], offline.stderr);
	assert.equal((await turbocast(server.url, 'pull', 'nothing')).status, 2);
});
