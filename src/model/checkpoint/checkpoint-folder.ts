/** Which files of a download are checkpoints, and which of them belong together. */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TurbocastError } from '../../protocol/errors.js';

/** Files that make one checkpoint, and the name by which people know them. */
export type CheckpointFiles = { readonly name: string; readonly paths: readonly string[] };

const CHECKPOINT = /\.(?:pth|pt|safetensors)$/u;
const PART = /^(.*)-(\d{5})-of-(\d{5})\.safetensors$/u;
/** Where diffusers and Wan 2.2 put the networks of a model. */
const SUBFOLDERS = ['transformer', 'transformer_2', 'vae', 'text_encoder', 'high_noise_model', 'low_noise_model'];

const groupParts = (folder: string, title: string, names: readonly string[]): CheckpointFiles[] => {
	const groups = new Map<string, { total: number; paths: string[] }>();
	for (const name of [...names].sort()) {
		const [, stem, , total] = PART.exec(name) ?? [];
		const key = stem === undefined ? name : `${stem}.safetensors`;
		const group = groups.get(key) ?? { total: stem === undefined ? 1 : Number(total), paths: [] };
		group.paths.push(join(folder, name));
		groups.set(key, group);
	}
	return [...groups].map(([key, { total, paths }]) => {
		if (paths.length !== total) {
			throw new TurbocastError('weights_corrupt', `${title}${key} has ${paths.length} of ${total} parts; fetch the missing ones.`);
		}
		return { name: `${title}${key}`, paths };
	});
};

/** The checkpoints of a folder and of the folders that diffusers makes, or the one file. Throws `invalid_option` when there are none. */
export const findCheckpoints = async (path: string): Promise<CheckpointFiles[]> => {
	const found = await stat(path).catch((error: unknown) => {
		throw new TurbocastError('invalid_option', `There is no file or folder ${path}.`, { cause: error });
	});
	if (found.isFile()) {
		return [{ name: basename(path), paths: [path] }];
	}
	const groups: CheckpointFiles[] = [];
	for (const subfolder of ['', ...SUBFOLDERS]) {
		const folder = join(path, subfolder);
		const names = await readdir(folder).catch(() => []);
		groups.push(...groupParts(folder, subfolder === '' ? '' : `${subfolder}/`, names.filter((name) => CHECKPOINT.test(name))));
	}
	return groups.length > 0 ? groups : refuse(path);
};

const refuse = (path: string): never => {
	throw new TurbocastError('invalid_option', `${path} holds no .pth, .pt or .safetensors file.`);
};

/** Of two denoisers, which is for much noise; from the names that TurboDiffusion, Wan 2.2 and diffusers give them. */
export const expertOf = (name: string): 'high' | 'low' | undefined => {
	if (/^transformer_2\//u.test(name) || /(?:^|[-_])low(?:[-_/]|$)/u.test(name)) {
		return 'low';
	}
	return /^transformer\//u.test(name) || /(?:^|[-_])high(?:[-_/]|$)/u.test(name) ? 'high' : undefined;
};

/** Where Wan's and diffusers' repositories have the tokenizer, and its names; SentencePiece's own form first, as it needs no guesses. */
const TOKENIZER_FOLDERS = ['', 'google/umt5-xxl', 'tokenizer'];
const TOKENIZER_FILES = ['spiece.model', 'tokenizer.json'];

/** The tokenizer in a folder of checkpoints, or beside the one file. */
export const findTokenizer = async (path: string): Promise<string | undefined> => {
	const folder = await stat(path).then((found) => (found.isFile() ? dirname(path) : path), () => path);
	for (const candidate of TOKENIZER_FOLDERS.flatMap((subfolder) => TOKENIZER_FILES.map((name) => join(folder, subfolder, name)))) {
		if (await stat(candidate).then((found) => found.isFile(), () => false)) {
			return candidate;
		}
	}
	return undefined;
};
