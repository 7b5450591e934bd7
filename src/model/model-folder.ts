/** A model on disk: its specification, its tokenizer and its weights, none of which is believed before it is checked. */
import { createHash } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { resolveJoinedModel } from './joined-model.js';
import { modelFolderNames } from './model-folder-names.js';
import { mapSafetensors, type MappedSafetensors, parseSafetensors, type Safetensors } from './safetensors.js';
import { type FileEntry, type ModelSpec, parseModelSpec } from './spec.js';
import { parseTokenizer } from './text/open-tokenizer.js';
import type { Tokenizer } from './tokenizer.js';

/** Largest model.json and tokenizer.json, bytes. */
const MAX_JSON_BYTES = 64 * 1024 * 1024;
/** A step of hashing: large enough that a file is read at full speed, small enough not to be felt in memory. */
const READ_BYTES = 1024 * 1024;

/** The last two are of joined models alone, where they need them. */
export const WEIGHT_FILES = ['text', 'dit', 'vae', 'dit_low', 'encoder'] as const;
export type WeightFile = (typeof WEIGHT_FILES)[number];

export type ModelFolder = {
	readonly path: string;
	readonly spec: ModelSpec;
	readonly tokenizer: Tokenizer;
	/** Reads a weight file and checks its hash against model.json. Throws `weights_corrupt` naming the file. */
	readonly readWeights: (which: WeightFile) => Promise<Safetensors>;
	/** The same without reading more than its header and size: for files of any size. Their hash was taken when they were written. */
	readonly mapWeights: (which: WeightFile) => MappedSafetensors;
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

const entryOf = (spec: ModelSpec, which: FileKind): FileEntry => {
	const entry = spec.files[which];
	if (entry === undefined) {
		throw new TurbocastError('internal', `The model ${spec.name} has no file "${which}".`);
	}
	return entry;
};

const checkSize = async (folder: string, spec: ModelSpec, which: FileKind): Promise<string> => {
	const entry = entryOf(spec, which);
	const path = join(folder, entry.file);
	const found = await stat(path).catch(() => {
		throw new TurbocastError('weights_corrupt', `${path} is missing; fetch the model again.`);
	});
	if (found.size !== entry.bytes) {
		throw new TurbocastError('weights_corrupt', `${path} has ${found.size} bytes instead of ${entry.bytes}: it was cut short or replaced. Fetch the file again.`);
	}
	return path;
};

/** Hashes a file of the folder piece by piece; `take` gets each piece, which is written again by the next. Throws `weights_corrupt`. */
const hashPieces = async (folder: string, spec: ModelSpec, which: FileKind, take: (piece: Uint8Array, offset: number) => void): Promise<void> => {
	const path = await checkSize(folder, spec, which);
	const { bytes: size, sha256 } = entryOf(spec, which);
	const piece = new Uint8Array(Math.min(READ_BYTES, size));
	const hash = createHash('sha256');
	const handle = await open(path, 'r');
	try {
		for (let offset = 0; offset < size;) {
			const { bytesRead } = await handle.read(piece, 0, Math.min(READ_BYTES, size - offset), offset);
			if (bytesRead === 0) {
				throw new TurbocastError('weights_corrupt', `${path} ended while it was being read. Fetch the file again.`);
			}
			hash.update(piece.subarray(0, bytesRead));
			take(piece.subarray(0, bytesRead), offset);
			offset += bytesRead;
		}
	} finally {
		await handle.close();
	}
	if (hash.digest('hex') !== sha256) {
		throw new TurbocastError('weights_corrupt', `${path} does not have the SHA-256 that model.json names: it is damaged or another file. Fetch the file again.`);
	}
};

/** Reads a file of the folder; the bytes which were hashed are the bytes that are used. */
const readChecked = async (folder: string, spec: ModelSpec, which: FileKind): Promise<Uint8Array> => {
	const bytes = new Uint8Array(entryOf(spec, which).bytes);
	await hashPieces(folder, spec, which, (piece, offset) => bytes.set(piece, offset));
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
	const json = await readJson(join(path, 'model.json'));
	const isJoined = typeof json === 'object' && json !== null && 'format' in json && json.format === 2;
	const spec: ModelSpec = isJoined ? await resolveJoinedModel(path, json) : parseModelSpec(json);
	const files = WEIGHT_FILES.filter((which) => spec.files[which] !== undefined);
	for (const which of files) {
		await checkSize(path, spec, which);
	}
	const tokenizer = parseTokenizer(spec.files.tokenizer.file, await readChecked(path, spec, 'tokenizer'), spec.text.vocab_size, spec.text.text_len);
	const readWeights = async (which: WeightFile): Promise<Safetensors> =>
		parseSafetensors(entryOf(spec, which).file, await readChecked(path, spec, which));
	const mapWeights = (which: WeightFile): MappedSafetensors => {
		const { file } = entryOf(spec, which);
		return mapSafetensors(file, resolve(path, file));
	};
	if (options.verify === true) {
		for (const which of files) {
			await hashPieces(path, spec, which, () => undefined);
			mapWeights(which);
		}
	}
	return { path, spec, tokenizer, readWeights, mapWeights };
};

/** A model found under a root: what it is, or why it cannot be used. */
export type ListedModel =
	| { readonly name: string; readonly path: string; readonly spec: ModelSpec }
	| { readonly name: string; readonly path: string; readonly error: TurbocastError };

/** Every folder below `root` that has a model.json, by name. Weights are not hashed. A root that is not there holds no models. */
export const listModels = async (root: string): Promise<ListedModel[]> => {
	const models: ListedModel[] = [];
	for (const name of await modelFolderNames(root)) {
		const path = join(root, name);
		if (await stat(join(path, 'model.json')).then(() => true, () => false)) {
			models.push(await openModelFolder(path).then(({ spec }) => ({ name, path, spec }), (error: unknown) => ({ name, path, error: TurbocastError.from(error, 'model_invalid') })));
		}
	}
	return models;
};
