/** The command as a user runs it: a real process, the model that comes with turbocast, files on disk. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import ffmpeg from '@ffmpeg-installer/ffmpeg';
import { repositoryRoot } from '../repository.js';

const folder = mkdtempSync(join(tmpdir(), 'turbocast-generate-'));
after(() => rmSync(folder, { recursive: true, force: true }));

type Outcome = { readonly status: number | null; readonly stdout: string; readonly stderr: string };

const run = (command: string, args: readonly string[]): Promise<Outcome> =>
	new Promise((resolve, reject) => {
		const child = spawn(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
		let stdout = '';
		let stderr = '';
		child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
		child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
		child.on('error', reject);
		child.on('close', (status) => resolve({ status, stdout, stderr }));
	});

const turbocast = (...args: string[]): Promise<Outcome> => run(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), ...args]);

const spec = JSON.parse(readFileSync(join(repositoryRoot, 'models/toybox/model.json'), 'utf8')) as {
	width: number; height: number; fps: number; stream: { latents_per_chunk: number }; vae: { frames_per_latent: number };
	files: { dit: { file: string }; vae: { file: string } };
};
const chunkFrames = spec.stream.latents_per_chunk * spec.vae.frames_per_latent;

/** The frames of a .y4m file. */
const y4mFrames = (path: string): { header: string; frames: Buffer[] } => {
	const bytes = readFileSync(path);
	const headerEnd = bytes.indexOf(0x0a);
	const size = (spec.width * spec.height * 3) / 2;
	const frames: Buffer[] = [];
	let at = headerEnd + 1;
	while (at < bytes.length) {
		const lineEnd = bytes.indexOf(0x0a, at);
		assert.match(bytes.subarray(at, lineEnd).toString(), /^FRAME/u);
		frames.push(bytes.subarray(lineEnd + 1, lineEnd + 1 + size));
		at = lineEnd + 1 + size;
	}
	return { header: bytes.subarray(0, headerEnd).toString(), frames };
};

test('--seconds s writes exactly round(fps * s) frames, and the same seed and options give the same frames, bit for bit', async () => {
	for (const out of ['a.y4m', 'b.y4m']) {
		const outcome = await turbocast('generate', 'a rocket flies over the snow', '--seconds', '0.72', '--seed', '7', '--out', out);
		assert.equal(outcome.status, 0, outcome.stderr);
		assert.match(outcome.stdout, /seed 7/u);
	}
	const { header, frames } = y4mFrames(join(folder, 'a.y4m'));
	assert.match(header, new RegExp(`^YUV4MPEG2 W${spec.width} H${spec.height} F${spec.fps}:1`, 'u'));
	assert.equal(frames.length, Math.round(spec.fps * 0.72));
	assert.ok(readFileSync(join(folder, 'a.y4m')).equals(readFileSync(join(folder, 'b.y4m'))));
});

test('another seed, another prompt and another number of steps each give other frames', async () => {
	for (const [out, args] of [
		['seed.y4m', ['a rocket flies over the snow', '--seed', '8']],
		['prompt.y4m', ['a cat jumps on the beach at night', '--seed', '7']],
		['steps.y4m', ['a rocket flies over the snow', '--seed', '7', '--steps', '1']],
	] as const) {
		const outcome = await turbocast('generate', ...args, '--seconds', '0.72', '--out', out);
		assert.equal(outcome.status, 0, outcome.stderr);
		assert.ok(!readFileSync(join(folder, out)).equals(readFileSync(join(folder, 'a.y4m'))), out);
	}
});

test('--at changes the prompt at the first chunk that starts at or after its time, and nothing before', async () => {
	const chunkSeconds = chunkFrames / spec.fps;
	const length = ['--seconds', String(3 * chunkSeconds), '--seed', '7'];
	const plain = await turbocast('generate', 'a rocket flies over the snow', ...length, '--out', 'plain.y4m');
	assert.equal(plain.status, 0, plain.stderr);
	const changed = await turbocast('generate', 'a rocket flies over the snow', ...length, '--at', String(chunkSeconds * 1.01), 'a cat jumps on the beach at night', '--out', 'changed.y4m');
	assert.equal(changed.status, 0, changed.stderr);
	const before = y4mFrames(join(folder, 'plain.y4m')).frames;
	const after = y4mFrames(join(folder, 'changed.y4m')).frames;
	assert.equal(after.length, 3 * chunkFrames);
	const firstDifference = after.findIndex((frame, index) => !frame.equals(before[index] ?? Buffer.alloc(0)));
	assert.equal(firstDifference, 2 * chunkFrames);
});

test('an .mp4 is H.264, yuv420p, faststart, tagged BT.709, with every frame', async () => {
	const outcome = await turbocast('generate', 'a rocket flies over the snow', '--seconds', '1', '--seed', '7', '--out', 'rocket.mp4');
	assert.equal(outcome.status, 0, outcome.stderr);
	const bytes = readFileSync(join(folder, 'rocket.mp4'));
	assert.ok(bytes.indexOf('moov') < bytes.indexOf('mdat'), 'moov must come first');
	const probe = await run(ffmpeg.path, ['-i', 'rocket.mp4', '-f', 'null', '-']);
	assert.match(probe.stderr, /Video: h264/u);
	assert.match(probe.stderr, /yuv420p\(tv, bt709/u);
	assert.match(probe.stderr, new RegExp(`frame=\\s*${spec.fps}\\b`, 'u'));
});

test('bad input gets a sentence, a code and status 2, and leaves no file behind', async () => {
	const files = (): string[] => readdirSync(folder).sort();
	const before = files();
	for (const [args, code, mention] of [
		[['generate'], 'invalid_option', /needs a prompt/u],
		[['generate', '   '], 'invalid_prompt', /must not be empty/u],
		[['generate', 'x'.repeat(10_240)], 'invalid_prompt', /at most/u],
		[['generate', 'a cat', '--seconds', 'five'], 'invalid_option', /--seconds/u],
		[['generate', 'a cat', '--seconds', '0'], 'invalid_option', /--seconds/u],
		[['generate', 'a cat', '--seed', '-1'], 'invalid_option', /--seed/u],
		[['generate', 'a cat', '--steps', '3'], 'invalid_option', /--steps must be one of 1, 2, 4/u],
		[['generate', 'a cat', '--size', '640x480'], 'invalid_option', /--size: The size must be one of 128x128/u],
		[['generate', 'a cat', '--out', 'cat.gif'], 'invalid_option', /\.mp4/u],
		[['generate', 'a cat', '--at', '1'], 'invalid_option', /--at needs/u],
		[['generate', 'a cat', '--action', '1', 'steer_x'], 'invalid_option', /NAME=VALUE/u],
		[['generate', 'a cat', '--action', '1', 'steer_x=far'], 'invalid_option', /--action must be a number/u],
		[['generate', 'a cat', '--action', '1', 'fly=1'], 'invalid_option', /no control "fly"/u],
		[['generate', 'a cat', '--action', '1', 'steer_x=7'], 'invalid_option', /steer_x must be from -1 to 1/u],
		[['generate', 'a cat', '--colour', 'red'], 'invalid_option', /--colour is not a known option/u],
		[['generate', 'a cat', '--config', 'none.yaml'], 'invalid_config', /cannot be read/u],
		[['paint', 'a cat'], 'invalid_option', /not a command/u],
	] as const) {
		const outcome = await turbocast(...args);
		assert.equal(outcome.status, 2, `${args.join(' ').slice(0, 80)}: ${outcome.stderr}`);
		assert.match(outcome.stderr, mention);
		assert.ok(outcome.stderr.includes(`[${code}]`), outcome.stderr);
	}
	const missing = await turbocast('generate', 'a cat', '--model', 'nobody');
	assert.equal(missing.status, 1);
	assert.ok(missing.stderr.includes('[model_not_found]'), missing.stderr);
	assert.deepEqual(files(), before);
});

test('--action changes the frames from the chunk at its time on, and none before', async () => {
	for (const [out, ...action] of [['still.y4m'], ['steered.y4m', '--action', '0.5', 'steer_x=1']]) {
		const outcome = await turbocast('generate', 'a star stays in space', '--seconds', '1', '--seed', '3', '--out', out ?? '', ...action);
		assert.equal(outcome.status, 0, outcome.stderr);
	}
	const [still, steered] = ['still.y4m', 'steered.y4m'].map((name) => y4mFrames(join(folder, name)).frames);
	const same = still?.map((frame, index) => frame.equals(steered?.[index] ?? Buffer.alloc(0)));
	assert.deepEqual(same?.slice(0, chunkFrames), Array.from({ length: chunkFrames }, () => true));
	assert.ok(same?.slice(chunkFrames).every((each) => !each));
});

test('a truncated and a bit-flipped weight file are refused as weights_corrupt, naming the file', async () => {
	const models = join(folder, 'models');
	for (const [name, damage] of [
		['cut', (path: string) => truncateSync(path, statSync(path).size - 1)],
		['flip', (path: string) => {
			const bytes = readFileSync(path);
			const at = bytes.length >> 1;
			bytes[at] = (bytes[at] ?? 0) ^ 1;
			writeFileSync(path, bytes);
		}],
	] as const) {
		cpSync(join(repositoryRoot, 'models/toybox'), join(models, name), { recursive: true });
		damage(join(models, name, spec.files.dit.file));
		writeFileSync(join(folder, 'models.yaml'), `engine:\n  models_dir: ${models}\n`);
		const outcome = await turbocast('generate', 'a cat', '--model', name, '--config', 'models.yaml', '--out', 'never.y4m', '--seconds', '0.1');
		assert.equal(outcome.status, 1);
		assert.ok(outcome.stderr.includes('[weights_corrupt]'), outcome.stderr);
		assert.ok(outcome.stderr.includes(spec.files.dit.file), outcome.stderr);
		assert.equal(existsSync(join(folder, 'never.y4m')), false);
	}
});

test('models lists the models and says why one cannot be used; show prints the facts', async () => {
	const list = await turbocast('models');
	assert.equal(list.status, 0, list.stderr);
	assert.match(list.stdout, /^toybox\s+\S/mu);
	const show = await turbocast('models', 'show', 'toybox');
	assert.equal(show.status, 0, show.stderr);
	assert.match(show.stdout, new RegExp(`${spec.width}x${spec.height} at ${spec.fps} frames a second`, 'u'));
	mkdirBroken(join(folder, 'broken'));
	writeFileSync(join(folder, 'broken.yaml'), `engine:\n  models_dir: ${join(folder, 'broken')}\n`);
	const broken = await turbocast('models', '--config', 'broken.yaml');
	assert.equal(broken.status, 0, broken.stderr);
	assert.match(broken.stdout, /half\s+cannot be used: model\.json/u);
});

const mkdirBroken = (root: string): void => {
	cpSync(join(repositoryRoot, 'models/toybox'), join(root, 'half'), { recursive: true });
	writeFileSync(join(root, 'half', 'model.json'), '{"format": 1}');
};
