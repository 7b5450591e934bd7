/** `turbocast models`: what is installed, and the facts of one model. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listModels, openModelFolder } from '../model/model-folder.js';
import { chunkMs, framesPerChunk, type ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Config } from '../config.js';
import type { Arguments, FlagTable } from './arguments.js';
import { modelPath, modelsRoot } from './models-folder.js';

export const MODELS_FLAGS = {
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

const facts = (spec: ModelSpec): string => {
	const bytes = Object.values(spec.files).reduce((sum, file) => sum + file.bytes, 0);
	const rows: [string, string][] = [
		['name', spec.name],
		['what', spec.title],
		['licence', spec.license],
		['video', `${spec.width}x${spec.height} at ${spec.fps} frames a second; sizes: ${spec.sizes.map((size) => size.join('x')).join(', ')}`],
		['chunk', `${framesPerChunk(spec)} frames, ${Math.round(chunkMs(spec))} ms; attention sees ${spec.stream.window_latents * spec.vae.frames_per_latent} frames`],
		['steps', `${Object.keys(spec.schedules).join(', ')}; default ${spec.default_steps}`],
		['denoiser', `${spec.dit.dim} wide, ${spec.dit.num_layers} layers, ${spec.dit.num_heads} heads`],
		['controls', spec.controls.map((control) => `${control.name} (${control.label})`).join(', ') || 'none'],
		['weights', megabytes(bytes)],
	];
	return rows.map(([name, value]) => `${name.padEnd(10)}${value}`).join('\n');
};

/** `models` lists, `models show NAME` prints one model's facts and its card. */
export const models = async (args: Arguments, config: Config): Promise<void> => {
	const [verb = 'list', name] = args.words;
	if (verb === 'list' && args.words.length <= 1) {
		const found = await listModels(modelsRoot(config.engine.models_dir));
		if (found.length === 0) {
			process.stdout.write('No models are installed.\n');
		}
		for (const entry of found) {
			process.stdout.write('spec' in entry ? `${entry.name.padEnd(20)}${entry.spec.title}\n` : `${entry.name.padEnd(20)}cannot be used: ${entry.error.message}\n`);
		}
		return;
	}
	if (verb !== 'show' || args.words.length > 2) {
		throw new TurbocastError('invalid_option', 'Use `turbocast models` to list models or `turbocast models show NAME` for the facts of one.');
	}
	const folder = modelPath(config.engine.models_dir, name ?? config.engine.model);
	const { spec } = await openModelFolder(folder, { verify: true });
	process.stdout.write(`${facts(spec)}\n`);
	const card = await readFile(join(folder, 'CARD.md'), 'utf8').catch(() => undefined);
	if (card !== undefined) {
		process.stdout.write(`\n${card}`);
	}
};
