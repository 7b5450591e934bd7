/** From imported networks to a file with a clip, by the command. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import ffmpeg from '@ffmpeg-installer/ffmpeg';
import { joinModel, type JoinRequest } from '../../src/cli/join.js';
import { ClipGenerator } from '../../src/engine/clip-generator.js';
import { loadNetworks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { edit, type JoinedModel, writeJoinedModel } from '../model/joined-model.js';
import { repositoryRoot } from '../repository.js';

const PROMPT = 'a rocket flies over the snow';

let model: JoinedModel;
let image: JoinedModel;
before(async () => {
	model = await writeJoinedModel({ kind: 'turbodiffusion' });
	image = await writeJoinedModel({ kind: 'image-to-video' });
});
after(() => {
	model[Symbol.dispose]();
	image[Symbol.dispose]();
});

const turbocast = (root: string, ...args: string[]) => {
	const config = join(root, 'config.yaml');
	writeFileSync(config, `engine:\n  models_dir: ${root}\n  profile: cpu-fp32\n  embedding_cache_dir: ${join(root, 'embeddings')}\n`);
	return spawnSync(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), ...args, '--config', config], { encoding: 'utf8', cwd: root });
};

const framesOf = (path: string, width: number, height: number): Buffer[] => {
	const bytes = readFileSync(path);
	const [start, size] = [bytes.indexOf(0x0a) + 1, 6 + (width * height * 3) / 2];
	return Array.from({ length: (bytes.length - start) / size }, (_, index) => bytes.subarray(start + index * size + 6, start + (index + 1) * size));
};

test('networks are joined, listed and shown, and make a clip: the frames of the engine, cut to the length asked for', async () => {
	const joined = turbocast(model.root, 'models', 'join', 'denoiser', 'parts', '--as', 'turbo', '--decoder', 'taehv');
	assert.equal(joined.status, 0, joined.stderr);
	assert.match(joined.stdout, /turbodiffusion: text to whole clips/u);
	assert.match(joined.stdout, /clip +81 frames, 5063 ms/u);
	const list = turbocast(model.root, 'models').stdout;
	assert.match(list, /^turbo +Wan DiT, sparse-linear attention, turbodiffusion/mu);
	assert.match(list, /^denoiser +.*`models join` makes a model/mu);
	assert.match(turbocast(model.root, 'models', 'show', 'turbo').stdout, /steps +1, 2, 3, 4; default 4/u);

	const made = turbocast(model.root, 'generate', PROMPT, '--model', model.name, '--seconds', '0.5', '--size', '48x32', '--steps', '3', '--seed', '5', '--out', 'a.y4m');
	assert.equal(made.status, 0, made.stderr);
	const frames = framesOf(join(model.root, 'a.y4m'), 48, 32);
	assert.equal(frames.length, 8);
	const networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width: 48, height: 32, threads: 1, latents: 3 });
	const generator = new ClipGenerator(networks, new PromptEncoder(networks), () => 0, { seed: 5, firstChunkIndex: 0, latents: 3 });
	const expected: Uint8Array[] = [];
	await generator.generateChunk({ prompt: PROMPT, steps: 3, controls: {} }, (_, pictures) => expected.push(...pictures), new AbortController().signal);
	await networks.close();
	assert.equal(expected.length, 9);
	assert.deepEqual(frames.map((frame) => Buffer.compare(frame, Buffer.from(expected.shift() ?? []))), frames.map(() => 0));
});

test('a picture begins to move, in its own proportions unless a size is given', () => {
	const png = spawnSync(ffmpeg.path, ['-f', 'lavfi', '-i', 'testsrc=size=90x30', '-frames:v', '1', join(image.root, 'picture.png')]);
	assert.equal(png.status, 0, png.stderr.toString());
	const made = turbocast(image.root, 'generate', PROMPT, '--model', image.name, '--image', 'picture.png', '--seconds', '0.1', '--seed', '1', '--out', 'moves.y4m');
	assert.equal(made.status, 0, made.stderr);
	// 32x32 pixels at a ratio of 3 to 1, in steps of 16.
	assert.match(made.stdout, /moves\.y4m: 2 frames, 48x16/u);
	const other = turbocast(image.root, 'generate', PROMPT, '--model', image.name, '--image', 'picture.png', '--size', '32x32', '--seconds', '0.1', '--seed', '1', '--out', 'square.y4m');
	assert.match(other.stdout, /32x32/u);
	writeFileSync(join(image.root, 'words.png'), 'no picture');
	for (const [args, message] of [
		[['--image', 'nowhere.png'], /nowhere\.png is not there/u], [['--image', 'words.png'], /no picture that can be read/u], [[], /give it one with --image/u],
	] as const) {
		const refused = turbocast(image.root, 'generate', PROMPT, '--model', image.name, ...args, '--out', 'no.y4m');
		assert.equal(refused.status, 2, refused.stderr);
		assert.match(refused.stderr, message);
	}
	assert.ok(!existsSync(join(image.root, 'no.y4m')));
});

test('what cannot be made is refused with what can', () => {
	for (const [args, message] of [
		[['--size', '50x30'], /multiples of 16, not 50x30; the nearest size is 48x32/u],
		[['--steps', '5'], /one of 1, 2, 3, 4/u],
		[['--at', '1', 'a dog'], /whole clips of one prompt/u],
		[['--image', 'a.png'], /takes no --image/u],
	] as const) {
		const refused = turbocast(model.root, 'generate', PROMPT, '--model', model.name, ...args, '--out', 'no.y4m');
		assert.equal(refused.status, 2, refused.stderr);
		assert.match(refused.stderr, message);
	}
	const large = turbocast(model.root, 'generate', PROMPT, '--model', model.name, '--size', '4096x4096', '--seconds', '60', '--out', 'no.y4m');
	assert.equal(large.status, 1);
	assert.match(large.stderr, /961 frames of 4096x4096 needs about \d+\.\d GB of memory .* are free; .*\[not_enough_memory\]/u);
	assert.ok(!existsSync(join(model.root, 'no.y4m')));
});

test('networks that do not belong together, or that nothing tells how to sample, are not joined', async () => {
	const { root } = model;
	const refused = (names: readonly string[], message: RegExp, request: Partial<JoinRequest> = {}): Promise<void> =>
		assert.rejects(joinModel({ folders: names.map((name) => ({ name, path: join(root, name) })), to: join(root, 'never'), ...request }), message);
	await refused(['parts'], /holds a denoiser/u);
	await refused(['denoiser'], /holds a text encoder/u);
	await refused(['denoiser', 'nowhere'], /nowhere is no folder of imported networks/u);
	await refused(['denoiser', 'parts'], /made for sparse-linear attention.*set clip\.attention/u, { recipe: 'rcm' });
	await refused(['denoiser', 'parts'], /is a model .* already/u, { to: model.path });
	for (const [args, message] of [[['--recipe', 'magic'], /one of turbodiffusion, rcm, self-forcing/u], [['--decoder', 'x'], /one of vae, taehv/u]] as const) {
		const { status, stderr } = turbocast(root, 'models', 'join', 'denoiser', 'parts', ...args, '--as', 'never');
		assert.equal(status, 2);
		assert.match(stderr, message);
	}
	cpSync(join(root, 'denoiser'), join(root, 'plain'), { recursive: true });
	edit(join(root, 'plain', 'component.json'), (json) => {
		const [part] = json['components'] as { recipe?: string; kind: string; dimensions: Record<string, unknown> }[];
		Object.assign(part ?? {}, { recipe: undefined, kind: 'wan-dit' });
		Object.assign(part?.dimensions ?? {}, { attention: 'dense' });
	});
	await refused(['plain', 'parts'], /say --recipe/u);
	await refused(['plain', 'parts'], /no weights for \(proj_l\)/u, { recipe: 'turbodiffusion' });
	await refused(['denoiser', 'plain', 'parts'], /both hold a network of the kind "dit"/u);
	assert.deepEqual(readdirSync(root).filter((name) => name.includes('never')), []);
	rmSync(join(root, 'plain'), { recursive: true });
});

test('a weight file that was cut or changed is found', () => {
	cpSync(model.root, join(model.root, '..', 'damaged'), { recursive: true });
	const root = join(model.root, '..', 'damaged');
	const file = join(root, 'denoiser', 'dit.safetensors');
	const bytes = readFileSync(file);
	bytes[bytes.length - 5] = (bytes.at(-5) ?? 0) ^ 1;
	writeFileSync(file, bytes);
	assert.match(turbocast(root, 'models', 'show', model.name).stderr, /does not have the SHA-256/u);
	writeFileSync(file, bytes.subarray(0, 1000));
	assert.match(turbocast(root, 'generate', PROMPT, '--model', model.name, '--out', 'x.y4m').stderr, /has 1000 bytes instead of/u);
});
