/** The whole way by the command: from a hub on the loopback, over a cut connection and a question about a licence, to a video that is what plain loops say. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { readCatalogue } from '../../src/cli/catalogue.js';
import { taehvTensors, textTensors, wanVaeTensors } from '../../src/model/checkpoint/network-tensors.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { encodeSafetensors, mapSafetensors, readFloats } from '../../src/model/safetensors.js';
import { assertSameFrames, referenceClip, referenceStream } from '../engine/joined-reference.js';
import { dict, integer, type StateDict, writeStateDict } from '../model/checkpoint/torch-writer.js';
import { JOINED_DIT, JOINED_TAEHV, JOINED_VAE } from '../model/joined-model.js';
import { randomTensors } from '../model/random-weights.js';
import { repositoryRoot } from '../repository.js';
import { type HubServer, startHubServer } from './hub-server.js';

const PROMPT = 'a rocket flies over the snow';
const GOLDEN = join(repositoryRoot, 'test/fixtures/golden');
const WAN = 'Wan-AI/Wan2.1-T2V-1.3B';
/** A head of 128 channels: what an import takes where weights do not tell. */
const STREAM_DIT = { ...JOINED_DIT, num_heads: 1, text_dim: 48 };
const TEXT = { vocab_size: 500, dim: 48, dim_attn: 32, dim_ffn: 40, num_heads: 4, num_layers: 2, num_buckets: 32 };
const [WIDTH, HEIGHT] = [48, 32];

const top = mkdtempSync(join(tmpdir(), 'turbocast-way-'));
const [root, downloads] = [join(top, 'models'), join(top, 'downloads')];
after(() => rmSync(top, { recursive: true, force: true }));

let hub: HubServer;
before(async () => {
	hub = await startHubServer();
	const catalogue = await readCatalogue();
	const filesOf = (name: string): readonly string[] => catalogue.sets.find((set) => set.name === name)?.files ?? assert.fail(name);
	const serve = async (repository: string, file: string | undefined, tensors: StateDict, wrap?: (inner: Uint8Array) => Uint8Array): Promise<void> => {
		const path = join(top, 'checkpoint');
		await writeStateDict(path, tensors, wrap);
		hub.files.set(`${repository}/${file}`, readFileSync(path));
		rmSync(path);
	};
	const [encoder, tokenizer] = filesOf('umt5-xxl');
	await serve(WAN, encoder, randomTensors(textTensors(TEXT), 1));
	hub.files.set(`${WAN}/${tokenizer}`, readFileSync(join(repositoryRoot, 'test/fixtures/sentencepiece/small.model')));
	await serve(WAN, filesOf('wan-vae')[0], randomTensors(wanVaeTensors(JOINED_VAE), 2));
	hub.files.set(`lightx2v/Autoencoders/${filesOf('taehv')[0]}`, encodeSafetensors(randomTensors(taehvTensors(JOINED_TAEHV), 3)));
	const stream = Object.fromEntries(Object.entries(randomTensors(ditTensors(STREAM_DIT, false), 4)).map(([name, tensor]) => [`model.${name}`, tensor]));
	await serve('gdhe17/Self-Forcing', filesOf('self-forcing')[0], stream, (inner) => dict({ generator_ema: inner, step: integer(3) }));
	// What `verify` holds to the original implementation.
	const golden = mapSafetensors('golden', join(GOLDEN, 'turbo-dit', 'weights.safetensors'));
	await serve('TurboDiffusion/TurboWan2.1-T2V-1.3B-480P', filesOf('turbowan-1.3b')[0],
		Object.fromEntries([...golden.tensors.values()].map((entry) => [entry.name, { dtype: 'F32', shape: entry.shape, data: readFloats(golden, entry) }])));
	for (const folder of [root, downloads]) {
		mkdirSync(folder);
	}
	writeFileSync(join(top, 'config.yaml'), `engine:\n  models_dir: ${root}\n  profile: cpu-fp32\n  embedding_cache_dir: ${join(top, 'embeddings')}\n`);
});
after(() => hub[Symbol.asyncDispose]());

type Outcome = { readonly status: number | null; readonly stdout: string; readonly stderr: string };

const run = (program: string, args: readonly string[], { input = '', stopWhen }: { input?: string; stopWhen?: () => boolean } = {}): Promise<Outcome> =>
	new Promise((resolve, reject) => {
		const child = spawn(program, args, { cwd: top, env: { ...process.env, HF_ENDPOINT: hub.url }, stdio: ['pipe', 'pipe', 'pipe'] });
		let [stdout, stderr] = ['', ''];
		child.stdout.on('data', (text: Buffer) => void (stdout += text.toString()));
		child.stderr.on('data', (text: Buffer) => void (stderr += text.toString()));
		child.on('error', reject);
		child.on('close', (status) => resolve({ status, stdout, stderr }));
		child.stdin.end(input);
		void (async () => {
			while (stopWhen !== undefined && child.exitCode === null) {
				if (stopWhen()) {
					child.kill('SIGINT');
					return;
				}
				await setTimeout(20);
			}
		})();
	});

const PROGRAM = join(repositoryRoot, 'bin/turbocast.mjs');
const turbocast = (...args: string[]): Promise<Outcome> => run(process.execPath, [PROGRAM, ...args, '--config', 'config.yaml']);

const succeeded = (outcome: Outcome): string => {
	assert.equal(outcome.status, 0, outcome.stderr);
	return outcome.stdout;
};

/** The pictures of a .y4m file. */
const framesOf = (name: string): Buffer[] => {
	const bytes = readFileSync(join(top, name));
	const [start, size] = [bytes.indexOf(0x0a) + 1, 6 + (WIDTH * HEIGHT * 3) / 2];
	return Array.from({ length: (bytes.length - start) / size }, (_, index) => bytes.subarray(start + index * size + 6, start + (index + 1) * size));
};

const generate = (model: string, seconds: string, steps: string, out: string): Promise<Outcome> =>
	turbocast('generate', PROMPT, '--model', model, '--seconds', seconds, '--steps', steps, '--size', `${WIDTH}x${HEIGHT}`, '--seed', '7', '--out', out);

test('weights that may not be sold are pulled by whoever accepts that, go on after Ctrl-C and a cut connection, and stream what plain loops say', { timeout: 600_000 }, async () => {
	const refused = await turbocast('models', 'pull', 'self-forcing');
	assert.equal(refused.status, 1);
	assert.match(refused.stderr, /not for commercial use.*--accept-license self-forcing.*\[license_not_accepted\]/su);
	assert.equal(existsSync(join(root, '.downloads')), false, 'nothing is fetched before that');

	// The first file stands still in the midst until Ctrl-C is pressed.
	hub.faults.push({ kind: 'stall', afterBytes: 5000, times: 1 });
	const part = (): string | undefined => (existsSync(join(root, '.downloads', 'umt5-xxl')) ? readdirSync(join(root, '.downloads', 'umt5-xxl')).find((name) => name.endsWith('.part')) : undefined);
	const stopped = await run(process.execPath, [PROGRAM, 'models', 'pull', 'self-forcing', '--accept-license', 'self-forcing', '--config', 'config.yaml'], {
		stopWhen: () => {
			const name = part();
			return name !== undefined && statSync(join(root, '.downloads', 'umt5-xxl', name)).size === 5000;
		},
	});
	assert.notEqual(stopped.status, 0);
	assert.deepEqual(readdirSync(root), ['.downloads']);

	// The second time the connection is cut once more, which the command gets over by itself.
	hub.faults.push({ kind: 'cut', afterBytes: 7000, times: 1 });
	const pulled = succeeded(await turbocast('models', 'pull', 'self-forcing', '--accept-license', 'self-forcing'));
	assert.match(pulled, /Trying again in/u);
	assert.match(pulled, /self-forcing: .*Licence: CC BY-NC-SA 4\.0, not for commercial use/u);
	assert.match(pulled, /Everything that a model needs is here: turbocast generate "\.\.\." --model self-forcing/u);
	for (const from of [5000, 12_000]) {
		assert.ok(hub.requests.some((line) => line.includes(`bytes=${from}-`)), `not resumed at ${from}: ${hub.requests.join('\n')}`);
	}
	assert.match(succeeded(await turbocast('models', 'show', 'self-forcing')), /licence +.*CC BY-NC-SA 4\.0/u);

	succeeded(await generate('self-forcing', String(21 / 16), '2', 'pulled.y4m'));
	const path = join(root, 'self-forcing');
	assertSameFrames(framesOf('pulled.y4m'), await referenceStream({ path, prompt: PROMPT, seed: 7, steps: 2, latents: 6, width: WIDTH, height: HEIGHT }));
});

test('what is pulled is what was published: it verifies against the original, and makes the clip that plain loops make', { timeout: 600_000 }, async () => {
	const said = succeeded(await turbocast('models', 'pull', 'turbowan-1.3b'));
	assert.match(said, /umt5-xxl is there already/u);
	const folder = join(top, 'turbo-dit');
	cpSync(join(GOLDEN, 'turbo-dit'), folder, { recursive: true });
	cpSync(join(root, 'turbowan-1.3b', 'dit.safetensors'), join(folder, 'weights.safetensors'));
	assert.match(succeeded(await turbocast('verify', folder)), /"kind":"turbo-dit".*"pass":true/u);

	succeeded(await generate('turbowan-1.3b', String(9 / 16), '2', 'clip.y4m'));
	assertSameFrames(framesOf('clip.y4m'), await referenceClip({ path: join(root, 'turbowan-1.3b'), prompt: PROMPT, seed: 7, steps: 2, latents: 3, width: WIDTH, height: HEIGHT }));
});

test('the same files imported and joined by hand give the same bytes; another decoder, pulled by itself, gives others', { timeout: 600_000 }, async () => {
	const wan = join(downloads, 'Wan2.1-T2V-1.3B');
	for (const [name, bytes] of hub.files) {
		const [owner = '', repository = '', ...path] = name.split('/');
		const target = join(owner === 'Wan-AI' ? wan : join(downloads, repository), ...path);
		mkdirSync(join(target, '..'), { recursive: true });
		writeFileSync(target, bytes);
	}
	succeeded(await turbocast('models', 'import', wan, '--as', 'wan'));
	succeeded(await turbocast('models', 'import', join(downloads, 'TurboWan2.1-T2V-1.3B-480P'), '--as', 'denoiser'));
	succeeded(await turbocast('models', 'join', 'denoiser', 'wan', '--as', 'by-hand'));
	succeeded(await generate('by-hand', String(9 / 16), '2', 'by-hand.y4m'));
	assert.ok(readFileSync(join(top, 'by-hand.y4m')).equals(readFileSync(join(top, 'clip.y4m'))));

	succeeded(await turbocast('models', 'pull', 'taehv'));
	succeeded(await turbocast('models', 'join', 'turbowan-1.3b', 'umt5-xxl', 'taehv', '--as', 'tiny'));
	succeeded(await generate('tiny', String(9 / 16), '2', 'tiny.y4m'));
	assertSameFrames(framesOf('tiny.y4m'), await referenceClip({ path: join(root, 'tiny'), prompt: PROMPT, seed: 7, steps: 2, latents: 3, width: WIDTH, height: HEIGHT }));
});

/** util-linux's; gives a command a terminal. */
const SCRIPT = '/usr/bin/script';

test('in a terminal the question about the licence is asked, and anything but yes is no', { skip: existsSync(SCRIPT) ? false : `${SCRIPT} is not there`, timeout: 300_000 }, async () => {
	rmSync(join(root, 'self-forcing'), { recursive: true, force: true });
	const answered = (answer: string): Promise<Outcome> =>
		run(SCRIPT, ['-qec', `"${process.execPath}" "${PROGRAM}" models pull self-forcing --config config.yaml`, '/dev/null'], { input: `${answer}\n` });
	const no = await answered('perhaps');
	assert.match(no.stdout, /Do you accept that\? \[y\/N\]/u);
	assert.match(no.stdout, /\[license_not_accepted\]/u);
	assert.equal(existsSync(join(root, 'self-forcing')), false);
	const yes = await answered('yes');
	assert.match(yes.stdout, /Everything that a model needs is here/u);
	assert.ok(existsSync(join(root, 'self-forcing', 'model.json')));
});
