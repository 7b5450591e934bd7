/** `turbocast models`: what is installed, and the facts of one model. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { listModels, openModelFolder } from '../model/model-folder.js';
import { type ComponentFolder, listComponentFolders, readComponentFolder } from '../model/component-folder.js';
import { RECIPES } from '../model/recipes.js';
import { chunkMs, framesPerChunk, type ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Config } from '../config.js';
import { type Arguments, type FlagTable, parseNumber } from './arguments.js';
import { readCatalogue } from './catalogue.js';
import { DEFAULT_HUB, openHub } from './hub.js';
import { importCheckpoint } from './import.js';
import { DECODERS, isComplete, joinModel } from './join.js';
import { modelPath, modelsRoot } from './models-folder.js';
import { askInTerminal, pull } from './pull.js';

export const MODELS_FLAGS = {
	as: { values: ['NAME'], says: 'import, join: name of the folder that is made' },
	'accept-license': { values: ['SET'], repeatable: true, says: 'pull: accept the licence of that set without being asked' },
	hub: { values: ['URL'], says: `pull: address of the hub; default HF_ENDPOINT or ${DEFAULT_HUB}` },
	'head-dim': { values: ['N'], says: 'import: channels of an attention head of a Wan DiT; default 128, as all published ones have' },
	recipe: { values: ['R'], says: `join: how the denoiser is sampled, where its file does not tell: ${RECIPES.join(', ')}` },
	decoder: { values: ['D'], says: 'join: vae (exact, the default) or taehv (many times faster)' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

const facts = (spec: ModelSpec): string => {
	const bytes = Object.values(spec.files).reduce((sum, file) => sum + (file?.bytes ?? 0), 0);
	const rows: [string, string][] = [
		['name', spec.name],
		['what', spec.title],
		['licence', spec.license],
		['video', `${spec.width}x${spec.height} at ${spec.fps} frames a second; sizes: ${spec.sizes.map((size) => size.join('x')).join(', ')}`],
		spec.clip === undefined
			? ['chunk', `${framesPerChunk(spec)} frames, ${Math.round(chunkMs(spec))} ms; attention sees ${spec.stream.window_latents * spec.vae.frames_per_latent} frames`]
			: ['clip', `${framesPerChunk(spec)} frames, ${Math.round(chunkMs(spec))} ms, made as a whole${spec.encoder === undefined ? '' : '; begins with a picture'}`],
		['steps', `${Object.keys(spec.schedules).join(', ')}; default ${spec.default_steps}`],
		['denoiser', `${spec.dit.dim} wide, ${spec.dit.num_layers} layers, ${spec.dit.num_heads} heads`],
		['controls', spec.controls.map((control) => `${control.name} (${control.label})`).join(', ') || 'none'],
		['weights', megabytes(bytes)],
	];
	return rows.map(([name, value]) => `${name.padEnd(10)}${value}`).join('\n');
};

const NOT_RUNNABLE = 'imported networks; `models join` makes a model of them that runs';

const componentFacts = ({ name, license, components }: ComponentFolder): string => [
	`${'name'.padEnd(10)}${name}`, `${'what'.padEnd(10)}${NOT_RUNNABLE}`, `${'licence'.padEnd(10)}${license}`,
	...components.map(({ component, expert, title, bytes, dimensions }) =>
		`${component.padEnd(10)}${title}${expert === undefined ? '' : `, ${expert} noise`}, ${megabytes(bytes)}: ${Object.entries(dimensions).map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(', ')}`),
].join('\n');

const importModel = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [, from, ...rest] = args.words;
	const name = args.one('as');
	if (from === undefined || rest.length > 0 || name === undefined) {
		throw new TurbocastError('invalid_option', 'Use `turbocast models import DIR|FILE --as NAME`.');
	}
	const headDim = args.has('head-dim') ? parseNumber('head-dim', args.one('head-dim') ?? '', { min: 2, max: 4096, integer: true }) : undefined;
	const say = (sentence: string): void => {
		process.stdout.write(`${sentence}\n`);
	};
	const to = modelPath(config.engine.models_dir, name);
	const folder = await importCheckpoint({ from, to, name, headDim, signal, say });
	say(componentFacts(folder));
	await joinWhole([folder], config, say);
};

/** Folders that hold everything become a model at once, under the name of the last. */
const joinWhole = async (folders: readonly ComponentFolder[], config: Config, say: (sentence: string) => void): Promise<void> => {
	const last = folders.at(-1);
	if (last !== undefined && isComplete(folders)) {
		const path = (name: string): string => modelPath(config.engine.models_dir, name);
		const { spec } = await joinModel({ folders: folders.map(({ name }) => ({ name, path: path(name) })), to: path(last.name) });
		say(`\nEverything that a model needs is here: turbocast generate "..." --model ${last.name}\n\n${facts(spec)}`);
	}
};

const choice = <const T extends string>(args: Arguments, flag: string, choices: readonly T[]): T | undefined => {
	const value = args.one(flag);
	const chosen = choices.find((each) => each === value);
	if (value !== undefined && chosen === undefined) {
		throw new TurbocastError('invalid_option', `--${flag} must be one of ${choices.join(', ')}, not "${value}".`);
	}
	return chosen;
};

const joinModels = async (args: Arguments, config: Config): Promise<void> => {
	const [, ...names] = args.words;
	const name = args.one('as');
	if (names.length === 0 || name === undefined) {
		throw new TurbocastError('invalid_option', 'Use `turbocast models join FOLDER... --as NAME`, where the folders are names that `turbocast models` lists.');
	}
	const path = (each: string): string => modelPath(config.engine.models_dir, each);
	const { spec } = await joinModel({
		folders: names.map((each) => ({ name: each, path: path(each) })), to: path(name), recipe: choice(args, 'recipe', RECIPES), decoder: choice(args, 'decoder', DECODERS),
	});
	process.stdout.write(`${facts(spec)}\n`);
};

const pullModel = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [, set, ...rest] = args.words;
	const catalogue = await readCatalogue();
	const say = (sentence: string): void => {
		process.stdout.write(`${sentence}\n`);
	};
	if (rest.length > 0) {
		throw new TurbocastError('invalid_option', 'Use `turbocast models pull SET`, or `turbocast models pull` to see the sets there are.');
	}
	if (set === undefined) {
		for (const { name, title, license } of catalogue.sets) {
			say(`${name.padEnd(24)}${title} (${license.name}${license.commercial ? '' : ', not for commercial use'})`);
		}
		return;
	}
	const hub = openHub({ url: args.one('hub') ?? process.env['HF_ENDPOINT'] ?? DEFAULT_HUB, token: process.env['HF_TOKEN'] });
	const folders = await pull({
		catalogue, set, root: modelsRoot(config.engine.models_dir), hub, signal, say, nowMs: () => performance.now(),
		acceptedLicenses: args.all('accept-license').flat(), sleep: (ms, until) => setTimeout(ms, undefined, { signal: until }),
		ask: process.stdin.isTTY ? (question) => askInTerminal(question, signal) : undefined,
		onProgress: process.stdout.isTTY ? (line) => void process.stdout.write(`\r\u001b[K${line}`) : undefined,
	});
	say(`\n${componentFacts(folders.at(-1) as ComponentFolder)}`);
	await joinWhole(folders, config, say);
};

const cannotBeUsed = ({ message }: TurbocastError): string => `cannot be used: ${message}`;

/** Which flags an action takes, beside --config. */
const FLAGS_OF: { readonly [verb: string]: readonly (keyof typeof MODELS_FLAGS)[] } = {
	list: [], show: [], pull: ['hub', 'accept-license'], import: ['as', 'head-dim'], join: ['as', 'recipe', 'decoder'],
};

/** A flag that would be ignored is a mistake. */
const checkFlags = (verb: string, args: Arguments): void => {
	const taken = Object.hasOwn(FLAGS_OF, verb) ? FLAGS_OF[verb] : undefined;
	const wrong = Object.keys(MODELS_FLAGS).find((flag) => flag !== 'config' && args.has(flag) && taken?.includes(flag as keyof typeof MODELS_FLAGS) === false);
	if (wrong !== undefined) {
		const takers = Object.keys(FLAGS_OF).filter((other) => FLAGS_OF[other]?.includes(wrong as keyof typeof MODELS_FLAGS));
		throw new TurbocastError('invalid_option', `--${wrong} is of \`models ${takers.join('` and `models ')}\`, not of \`models ${verb}\`.`);
	}
};

/** `models` lists, `models show NAME` prints one model's facts and its card, `models import` reads a checkpoint, `models pull` fetches it first. */
export const models = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [verb = 'list', name] = args.words;
	checkFlags(verb, args);
	if (verb === 'list' && args.words.length <= 1) {
		const found = await listModels(modelsRoot(config.engine.models_dir));
		const components = await listComponentFolders(modelsRoot(config.engine.models_dir));
		if (found.length + components.length === 0) {
			process.stdout.write('No models are installed.\n');
		}
		for (const entry of found) {
			process.stdout.write('spec' in entry ? `${entry.name.padEnd(20)}${entry.spec.title}\n` : `${entry.name.padEnd(20)}${cannotBeUsed(entry.error)}\n`);
		}
		// A folder that has everything is listed as the model that it is.
		for (const entry of components.filter(({ name: known }) => !found.some((model) => model.name === known))) {
			const what = 'folder' in entry ? `${entry.folder.components.map(({ title }) => title).join('; ')} (${NOT_RUNNABLE})` : cannotBeUsed(entry.error);
			process.stdout.write(`${entry.name.padEnd(20)}${what}\n`);
		}
		return;
	}
	if (verb === 'pull') {
		await pullModel(args, config, signal);
		return;
	}
	if (verb === 'import') {
		await importModel(args, config, signal);
		return;
	}
	if (verb === 'join') {
		await joinModels(args, config);
		return;
	}
	if (verb !== 'show' || args.words.length > 2) {
		throw new TurbocastError('invalid_option', 'Use `turbocast models` to list models, or `turbocast models` with `show NAME`, `pull SET`, `import DIR|FILE --as NAME` or `join FOLDER... --as NAME`.');
	}
	const folder = modelPath(config.engine.models_dir, name ?? config.engine.model);
	const isModel = await stat(join(folder, 'model.json')).then(() => true, () => false);
	const components = await readComponentFolder(folder);
	if (components !== undefined && !isModel) {
		process.stdout.write(`${componentFacts(components)}\n`);
		return;
	}
	const { spec } = await openModelFolder(folder, { verify: true });
	process.stdout.write(`${facts(spec)}\n`);
	const card = await readFile(join(folder, 'CARD.md'), 'utf8').catch(() => undefined);
	if (card !== undefined) {
		process.stdout.write(`\n${card}`);
	}
};
