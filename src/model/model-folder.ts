/** A model on disk: its specification, its tokenizer and its weights, none of which is believed before it is checked. */
import { createHash } from 'node:crypto';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { parseSafetensors, type Safetensors } from './safetensors.js';
import { type ModelSpec, parseModelSpec } from './spec.js';
import { createTokenizer, type Tokenizer } from './tokenizer.js';

/** Largest model.json and tokenizer.json, bytes. */
const MAX_JSON_BYTES = 64 * 1024 * 1024;
/** A step of hashing: large enough that a file is read at full speed, small enough not to be felt in memory. */
const READ_BYTES = 1024 * 1024;

export const WEIGHT_FILES = ['text', 'dit', 'vae'] as const;
export type WeightFile = (typeof WEIGHT_FILES)[number];

export type ModelFolder = {
	readonly path: string;
	readonly spec: ModelSpec;
	readonly tokenizer: Tokenizer;
	/** Reads a weight file and checks its hash against model.json. Throws `weights_corrupt` naming the file. */
	readonly readWeights: (which: WeightFile) => Promise<Safetensors>;
};

const readJson = async (path: string): Promise<unknown> => {
	const { size } = await stat(path).catch(() => {
		throw new TurbocastError('model_invalid', `${path} is missing; a model folder holds model.json and the files it names.`);
	});
	if (size > MAX_JSON_BYTES) {
		throw new TurbocastError('model_invalid', `${path} has ${size} bytes, more than the ${MAX_JSON_BYTES} allowed.`);
	}
	try {
		return JSON.parse(await readFile(path, 'utf8')) as unknown;
	} catch (error) {
		throw new TurbocastError('model_invalid', `${path} is not JSON text; fetch the file again.`, { cause: error });
	}
};

type FileKind = keyof ModelSpec['files'];

const checkSize = async (folder: string, spec: ModelSpec, which: FileKind): Promise<string> => {
	const entry = spec.files[which];
	const path = join(folder, entry.file);
	const found = await stat(path).catch(() => {
		throw new TurbocastError('weights_corrupt', `${path} is missing; fetch the model again.`);
	});
	if (found.size !== entry.bytes) {
		throw new TurbocastError('weights_corrupt', `${path} has ${found.size} bytes instead of ${entry.bytes}: it was cut short or replaced. Fetch the file again.`);
	}
	return path;
};

/** Reads a file of the folder and hashes it on the way, so that the bytes which were checked are the bytes that are used. */
const readChecked = async (folder: string, spec: ModelSpec, which: FileKind): Promise<Uint8Array> => {
	const path = await checkSize(folder, spec, which);
	const { bytes: size, sha256 } = spec.files[which];
	const bytes = new Uint8Array(size);
	const hash = createHash('sha256');
	const handle = await open(path, 'r');
	try {
		for (let offset = 0; offset < size;) {
			const { bytesRead } = await handle.read(bytes, offset, Math.min(READ_BYTES, size - offset), offset);
			if (bytesRead === 0) {
				throw new TurbocastError('weights_corrupt', `${path} ended while it was being read. Fetch the file again.`);
			}
			hash.update(bytes.subarray(offset, offset + bytesRead));
			offset += bytesRead;
		}
	} finally {
		await handle.close();
	}
	if (hash.digest('hex') !== sha256) {
		throw new TurbocastError('weights_corrupt', `${path} does not have the SHA-256 that model.json names: it is damaged or another file. Fetch the file again.`);
	}
	return bytes;
};

/**
 * Opens a model folder: parses model.json, checks that every file is there and has its size, and loads the tokenizer. With
 * `verify`, hashes the weight files too (reading them does so in any case). Throws `model_not_found`, `model_invalid` or `weights_corrupt`.
 */
export const openModelFolder = async (path: string, options: { readonly verify?: boolean } = {}): Promise<ModelFolder> => {
	if (!(await stat(path).then((found) => found.isDirectory(), () => false))) {
		throw new TurbocastError('model_not_found', `There is no model folder ${path}; run \`turbocast models\` to see the models there are.`);
	}
	const spec = parseModelSpec(await readJson(join(path, 'model.json')));
	for (const which of WEIGHT_FILES) {
		await checkSize(path, spec, which);
	}
	const text = new TextDecoder().decode(await readChecked(path, spec, 'tokenizer'));
	let words: unknown;
	try {
		words = JSON.parse(text);
	} catch (error) {
		throw new TurbocastError('model_invalid', `${join(path, spec.files.tokenizer.file)} is not JSON text.`, { cause: error });
	}
	const tokenizer = createTokenizer(words, spec.text.vocab_size, spec.text.text_len);
	const readWeights = async (which: WeightFile): Promise<Safetensors> =>
		parseSafetensors(spec.files[which].file, await readChecked(path, spec, which));
	if (options.verify === true) {
		for (const which of WEIGHT_FILES) {
			await readWeights(which);
		}
	}
	return { path, spec, tokenizer, readWeights };
};

/** A model found under a root: what it is, or why it cannot be used. */
export type ListedModel =
	| { readonly name: string; readonly path: string; readonly spec: ModelSpec }
	| { readonly name: string; readonly path: string; readonly error: TurbocastError };

/** Every folder below `root` that has a model.json, by name. Weights are not hashed. A root that is not there holds no models. */
export const listModels = async (root: string): Promise<ListedModel[]> => {
	const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
	const models: ListedModel[] = [];
	for (const path of entries.filter((entry) => entry.isDirectory() || entry.isSymbolicLink()).map((entry) => join(root, entry.name)).sort()) {
		if (await stat(join(path, 'model.json')).then(() => true, () => false)) {
			const name = basename(path);
			models.push(await openModelFolder(path).then(({ spec }) => ({ name, path, spec }), (error: unknown) => ({ name, path, error: TurbocastError.from(error, 'model_invalid') })));
		}
	}
	return models;
};
