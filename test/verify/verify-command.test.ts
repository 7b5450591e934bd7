/** `turbocast verify` as a user runs it: lines, exit status and what is wrong with a folder. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { encodeSafetensors, parseSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import { type ErrorCode, TurbocastError } from '../../src/protocol/errors.js';
import { verifyFolder } from '../../src/verify/verify.js';
import { repositoryRoot } from '../repository.js';

const golden = join(repositoryRoot, 'test/fixtures/golden');
const root = await mkdtemp(join(tmpdir(), 'turbocast-verify-'));
after(() => rm(root, { recursive: true, force: true }));

type Outcome = { readonly status: number | null; readonly stdout: string; readonly stderr: string };

const verify = (...args: string[]): Promise<Outcome> => new Promise((resolve, reject) => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'verify', ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
	let [stdout, stderr] = ['', ''];
	child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
	child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
	child.on('error', reject);
	child.on('close', (status) => resolve({ status, stdout, stderr }));
});

/** A copy of a committed folder, changed by `change`, under the same kind. */
const changed = async (kind: string, what: string, change: (path: string) => Promise<void>, as = kind): Promise<string> => {
	const path = join(root, what, as);
	await cp(join(golden, kind), path, { recursive: true });
	await change(path);
	return path;
};

const rewritten = async (file: string, change: (tensors: Record<string, TensorToWrite>) => void): Promise<void> => {
	const { bytes, tensors } = parseSafetensors(file, await readFile(file));
	const all = Object.fromEntries([...tensors].map(([name, { dtype, shape, offset, byteLength }]): [string, TensorToWrite] =>
		[name, { dtype, shape, data: bytes.slice(offset, offset + byteLength) }]));
	change(all);
	await writeFile(file, encodeSafetensors(all));
};

test('verify prints one JSON line for each case and leaves with 0', async () => {
	const { status, stdout } = await verify(join(golden, 'w8a8'));
	assert.equal(status, 0);
	const lines = stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
	assert.deepEqual(lines, [{ case: 'case-2', kind: 'w8a8', relative_error: 0, pass: true }]);
});

test('a miss leaves with 1 and still prints every case', async () => {
	const folder = await changed('w8a8', 'miss', (path) => rewritten(join(path, 'case-2.safetensors'), (tensors) => {
		tensors['int8_weight'] = { ...(tensors['int8_weight'] as TensorToWrite), data: new Int8Array(128 * 128) };
	}));
	await cp(join(golden, 'w8a8/case-2.safetensors'), join(folder, 'case-10.safetensors'));
	const { status, stdout } = await verify(folder);
	assert.equal(status, 1);
	assert.deepEqual(stdout.trimEnd().split('\n').map((line) => (JSON.parse(line) as { case: string; pass: boolean })), [
		{ case: 'case-2', kind: 'w8a8', relative_error: 1, pass: false }, { case: 'case-10', kind: 'w8a8', relative_error: 0, pass: true },
	]);
});

type Bad = { readonly code: ErrorCode; readonly says: readonly RegExp[]; readonly folder: () => Promise<string> | string };

const backend = createOnnxRuntime({ threads: 1 });

/** Checked in this process: starting a command for each would take most of the time. */
const BAD: { readonly [what: string]: Bad } = {
	'no folder': { code: 'invalid_option', says: [/nowhere/u], folder: () => join(root, 'nowhere') },
	'a kind that is not known': {
		code: 'invalid_option', says: [/"cats" is not a kind/u, /wan-dit.*rcm.*w8a8/u], folder: () => changed('w8a8', 'kind', async () => undefined, 'cats'),
	},
	'no cases': {
		code: 'model_invalid', says: [/no case-N\.safetensors/u],
		folder: () => changed('w8a8', 'no-cases', (path) => rm(join(path, 'case-2.safetensors'))),
	},
	'no configuration': { code: 'model_invalid', says: [/config\.json cannot be read/u], folder: () => changed('rcm', 'no-config', (path) => rm(join(path, 'config.json'))) },
	'a configuration that is not JSON': { code: 'model_invalid', says: [/is not JSON/u], folder: () => changed('rcm', 'text', (path) => writeFile(join(path, 'config.json'), '{')) },
	'a configuration without a dimension': {
		code: 'model_invalid', says: [/config\.json/u, /dim/u], folder: () => changed('turbo-dit', 'no-dim', (path) => writeFile(join(path, 'config.json'), '{"sla":{"topk":0.5,"block_q":8,"block_k":8}}')),
	},
	'a case that the configuration does not describe': {
		code: 'model_invalid', says: [/no parameters for case-7/u],
		folder: async () => {
			await cp(join(golden, 'turbo-dit'), join(root, 'case/turbo-dit'), { recursive: true });
			return changed('rcm', 'case', (path) => rename(join(path, 'case-2.safetensors'), join(path, 'case-7.safetensors')));
		},
	},
	'no weights': { code: 'model_invalid', says: [/weights\.safetensors cannot be read/u], folder: () => changed('turbo-dit', 'no-weights', (path) => rm(join(path, 'weights.safetensors'))) },
	'weights cut short': { code: 'weights_corrupt', says: [/weights\.safetensors/u], folder: () => changed('turbo-dit', 'short', (path) => truncate(join(path, 'weights.safetensors'), 100_000)) },
	'a case cut short': { code: 'weights_corrupt', says: [/case-1\.safetensors/u], folder: () => changed('turbo-dit', 'short-case', (path) => truncate(join(path, 'case-1.safetensors'), 4)) },
	'a case without an input': {
		code: 'model_invalid', says: [/case-1\.safetensors has no tensor context/u],
		folder: () => changed('turbo-dit', 'no-context', (path) => rewritten(join(path, 'case-1.safetensors'), (tensors) => delete tensors['context'])),
	},
	'an input of another shape': {
		code: 'model_invalid', says: [/context is \[48, 16\], but \[16, 48\] is expected/u],
		folder: () => changed('turbo-dit', 'shape', (path) => rewritten(join(path, 'case-1.safetensors'), (tensors) => {
			tensors['context'] = { ...(tensors['context'] as TensorToWrite), shape: [48, 16] };
		})),
	},
	'weights with missing, unknown and misshapen tensors, all of them named': {
		code: 'model_invalid',
		says: [/missing: blocks\.0\.modulation, head\.head\.bias;/u, /not known: blocks\.9\.extra, surplus;/u, /of another shape: patch_embedding\.bias is \[64, 2\] and not \[128\]/u],
		folder: () => changed('turbo-dit', 'keys', (path) => rewritten(join(path, 'weights.safetensors'), (tensors) => {
			delete tensors['blocks.0.modulation'];
			delete tensors['head.head.bias'];
			tensors['blocks.9.extra'] = { dtype: 'F32', shape: [1], data: new Float32Array(1) };
			tensors['surplus'] = { dtype: 'F32', shape: [1], data: new Float32Array(1) };
			tensors['patch_embedding.bias'] = { dtype: 'F32', shape: [64, 2], data: new Float32Array(128) };
		})),
	},
	'weights for sparse attention in a dense network': {
		code: 'model_invalid', says: [/made for sparse-linear attention, the configuration asks for dense/u], folder: () => changed('turbo-dit', 'dense', async () => undefined, 'wan-dit'),
	},
	'weights for dense attention in a sparse network': {
		code: 'model_invalid', says: [/asks for sparse-linear attention, which this file was not made for/u],
		folder: () => changed('wan-causal-window', 'sparse', async (path) => {
			const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as object;
			await writeFile(join(path, 'config.json'), JSON.stringify({ ...config, sla: { topk: 0.5, block_q: 64, block_k: 64 } }));
			await rewritten(join(path, 'case-1.safetensors'), (tensors) => {
				const x = tensors['block0.step0.x'] as TensorToWrite;
				tensors['x'] = { ...x, shape: x.shape.slice(1) };
				tensors['context'] = { ...(tensors['context'] as TensorToWrite), shape: [16, 48] };
			});
		}, 'turbo-dit'),
	},
	'a window that cannot hold a chunk': {
		code: 'model_invalid', says: [/a window of 1 latent frames does not hold/u],
		folder: () => changed('wan-causal-window', 'window', async (path) => {
			const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as object;
			await writeFile(join(path, 'config.json'), JSON.stringify({ ...config, local_attn_size: 1 }));
		}),
	},
};

for (const [what, { code, says, folder }] of Object.entries(BAD)) {
	test(`verify refuses ${what} with a code and a sentence`, async () => {
		const path = await folder();
		await assert.rejects(async () => {
			for await (const verdict of verifyFolder(path, 'cpu-fp32', backend, () => undefined)) {
				assert.fail(`a verdict: ${JSON.stringify(verdict)}`);
			}
		}, (error) => {
			assert.ok(error instanceof TurbocastError);
			assert.equal(error.code, code);
			for (const pattern of says) {
				assert.match(error.message, pattern);
			}
			return true;
		});
	});
}

test('a folder that cannot be computed leaves with 1, misuse with 2, both with the code on standard error', async () => {
	const short = await verify(await changed('w8a8', 'short-command', (path) => truncate(join(path, 'case-2.safetensors'), 4)));
	assert.equal(short.status, 1);
	assert.equal(short.stdout, '');
	assert.match(short.stderr, /case-2\.safetensors.*\[weights_corrupt\]/u);
	const unknown = await verify(await changed('w8a8', 'kind-command', async () => undefined, 'cats'));
	assert.equal(unknown.status, 2);
	assert.match(unknown.stderr, /"cats" is not a kind.*\[invalid_option\]/u);
});

test('verify wants one folder and a profile that exists', async () => {
	assert.equal((await verify()).status, 2);
	assert.equal((await verify(golden, golden)).status, 2);
	const { status, stderr } = await verify(join(golden, 'w8a8'), '--profile', 'gpu');
	assert.equal(status, 2);
	assert.match(stderr, /cpu-fp32.*cpu-int8|cpu-int8.*cpu-fp32/u);
});
