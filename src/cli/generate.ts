/** `turbocast generate`: a clip of a prompt into a file. */
import { randomInt } from 'node:crypto';
import { systemClock } from '../base/time.js';
import type { Config } from '../config.js';
import { controlVector } from '../engine/control-vector.js';
import { EngineHost } from '../engine/engine-host.js';
import { openVideoFile } from '../media/file-writer.js';
import { type Picture, openPictureFile } from '../media/picture-file.js';
import { openModelFolder } from '../model/model-folder.js';
import { checkSize } from '../model/sizes.js';
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_SEED } from '../protocol/limits.js';
import { promptText } from '../protocol/messages.js';
import type { Log } from '../base/log.js';
import { type Arguments, type FlagTable, parseNumber, parseSize } from './arguments.js';
import { renderClip, type ControlChange, type PromptChange } from './clip.js';
import { chosenDevice, engineOptions } from './engine-options.js';
import { modelPath } from './models-folder.js';
import { createProgress } from './progress.js';

/** Longest clip, seconds. A longer one is better written in parts. */
const MAX_SECONDS = 3600;
const DEFAULT_SECONDS = 5;

export const GENERATE_FLAGS = {
	seconds: { values: ['S'], says: `length of the clip; default ${DEFAULT_SECONDS}` },
	seed: { values: ['N'], says: 'from 0 to 4294967295; the same seed and options give the same frames; default: random, printed' },
	out: { values: ['FILE'], says: '.mp4 (H.264) or .y4m (uncompressed); default turbocast.mp4' },
	at: { values: ['SECONDS', 'PROMPT'], repeatable: true, says: 'change the prompt at a media time; may be repeated' },
	action: { values: ['SECONDS', 'NAME=VALUE'], repeatable: true, says: 'set a control of the model at a media time; may be repeated' },
	steps: { values: ['N'], says: 'denoising steps per chunk, or per clip: 1, 2 or 4, as the model has them' },
	model: { values: ['NAME'], says: 'a name that `turbocast models` lists' },
	size: { values: ['WxH'], says: 'pixels; one of the sizes of the model, of published models any multiple of 16' },
	image: { values: ['FILE'], says: 'PNG or JPEG that the clip begins with; of models that make a picture move' },
	profile: { values: ['P'], says: 'auto, cpu-int8, cpu-fp32, cpu-int8-attention, webgpu-fp16 or webgpu-fp32' },
	threads: { values: ['N'], says: 'threads that compute; default 1' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

const checkedPrompt = (text: string): string => {
	// Node decodes arguments that are not UTF-8 to U+FFFD; generating something else than was asked for would be worse than saying so.
	if (text.includes('\uFFFD')) {
		throw new TurbocastError('invalid_prompt', 'The prompt is not valid UTF-8 text; check the encoding of your terminal.');
	}
	return promptText.parse(text, 'prompt');
};

const parseChanges = (pairs: readonly (readonly string[])[]): PromptChange[] =>
	pairs.map(([time = '', prompt = '']) => ({ atMs: parseNumber('at', time, { min: 0, max: MAX_SECONDS }) * 1000, prompt: checkedPrompt(prompt) }));

/** `--action 2 steer_x=1` */
const parseActions = (pairs: readonly (readonly string[])[]): ControlChange[] =>
	pairs.map(([time = '', setting = '']) => {
		const equals = setting.indexOf('=');
		if (equals < 1) {
			throw new TurbocastError('invalid_option', `--action takes SECONDS NAME=VALUE, such as 2 steer_x=1, not "${setting}".`);
		}
		return {
			atMs: parseNumber('action', time, { min: 0, max: MAX_SECONDS }) * 1000,
			name: setting.slice(0, equals),
			value: parseNumber('action', setting.slice(equals + 1), { min: -1e6, max: 1e6 }),
		};
	});

/** What the engine would refuse at the chunk of the action is refused before anything is generated. */
const checkAction = (spec: ModelSpec, name: string, value: number): void => {
	try {
		controlVector(spec, { [name]: value });
	} catch (error) {
		throw new TurbocastError('invalid_option', `--action ${name}=${value}: ${TurbocastError.from(error).message}`, { cause: error });
	}
};

/** The picture that `--image` names. Throws `invalid_option` when it is missing, or given to a model that takes none. */
const openPicture = async (args: Arguments, config: Config, spec: ModelSpec): Promise<Picture | undefined> => {
	const path = args.one('image');
	if ((path === undefined) !== (spec.encoder === undefined)) {
		throw new TurbocastError('invalid_option', path === undefined
			? `The model ${spec.name} makes a picture move; give it one with --image FILE.`
			: `The model ${spec.name} makes videos of text alone and takes no --image.`);
	}
	return path === undefined ? undefined : openPictureFile(path, config.media.ffmpeg_path);
};

/** As many pixels as usual, in the picture's proportions (TurboDiffusion's adaptive resolution). */
const sizeOfPicture = (spec: ModelSpec, picture: Picture): { width: number; height: number } => {
	const [area, ratio, multiple] = [spec.width * spec.height, picture.height / picture.width, spec.size_multiple ?? 2];
	const side = (pixels: number): number => Math.max(multiple, Math.round(pixels / multiple) * multiple);
	return { width: side(Math.sqrt(area / ratio)), height: side(Math.sqrt(area * ratio)) };
};

/** Runs the command. Throws `TurbocastError`s; nothing half-written stays behind. Aborting `signal` stops within one step. */
export const generate = async (args: Arguments, config: Config, log: Log, signal: AbortSignal): Promise<void> => {
	if (args.words.length !== 1) {
		throw new TurbocastError('invalid_option', args.words.length === 0
			? 'generate needs a prompt: turbocast generate "a cat jumps on the beach at night".'
			: `generate takes one prompt, in quotes, not ${args.words.length} words.`);
	}
	const prompt = checkedPrompt(args.words[0] ?? '');
	const changes = parseChanges(args.all('at'));
	const actions = parseActions(args.all('action'));
	const seconds = parseNumber('seconds', args.one('seconds') ?? String(DEFAULT_SECONDS), { min: 0.01, max: MAX_SECONDS });
	const seed = args.has('seed') ? parseNumber('seed', args.one('seed') ?? '', { min: 0, max: MAX_SEED, integer: true }) : randomInt(0, 2 ** 32);
	const out = args.one('out') ?? 'turbocast.mp4';

	const folder = modelPath(config.engine.models_dir, config.engine.model);
	const { spec } = await openModelFolder(folder, { verify: false });
	const steps = args.has('steps') ? parseNumber('steps', args.one('steps') ?? '', { min: 1, max: 64, integer: true }) : (config.generation.steps || spec.default_steps);
	if (spec.schedules[String(steps)] === undefined) {
		throw new TurbocastError('invalid_option', `--steps must be one of ${Object.keys(spec.schedules).join(', ')} for the model ${spec.name}, not ${steps}.`);
	}
	for (const { name, value } of actions) {
		checkAction(spec, name, value);
	}
	const picture = await openPicture(args, config, spec);
	const asked = args.has('size') ? parseSize('size', args.one('size') ?? '') : undefined;
	const size = asked ?? (picture === undefined ? { width: spec.width, height: spec.height } : sizeOfPicture(spec, picture));
	try {
		checkSize(spec, size.width, size.height);
	} catch (error) {
		throw new TurbocastError('invalid_option', `--size: ${TurbocastError.from(error).message}`, { cause: error });
	}
	if (spec.clip !== undefined && changes.length > 0) {
		throw new TurbocastError('invalid_option', `The model ${spec.name} makes whole clips of one prompt; --at is for models that make streams.`);
	}
	const frames = Math.round(spec.fps * seconds);
	if (frames < 1) {
		throw new TurbocastError('invalid_option', `--seconds ${seconds} is shorter than one frame at ${spec.fps} frames a second.`);
	}

	const file = await openVideoFile(out, { width: size.width, height: size.height, fps: spec.fps, ffmpegPath: config.media.ffmpeg_path });
	let finished = false;
	try {
		const engine = await EngineHost.start({ ...engineOptions(config, await chosenDevice(config, log)), log, clock: systemClock });
		// A forward of a large network is not waited for.
		signal.addEventListener('abort', () => void engine.close(), { once: true });
		try {
			const image = picture === undefined ? undefined : await picture.read(size);
			await engine.ready(signal);
			for (const word of new Set([prompt, ...changes.map((change) => change.prompt)].flatMap((text) => engine.unknownWords(text)))) {
				process.stderr.write(`The model ${spec.name} does not know the word "${word}".\n`);
			}
			const progress = createProgress(process.stderr, frames, spec.fps, systemClock.nowMs);
			let written = 0;
			try {
				for await (const frame of renderClip(engine, { prompt, changes, actions, frames, steps, seed, image, ...size }, signal)) {
					await file.write(frame);
					written += 1;
					progress.update(written);
				}
			} finally {
				progress.end();
			}
		} finally {
			await engine.close();
		}
		await file.close();
		finished = true;
	} finally {
		if (!finished) {
			await file.abort();
		}
	}
	process.stdout.write(`${out}: ${frames} frames, ${size.width}x${size.height}, ${spec.fps} frames a second, seed ${seed}\n`);
};
