/**
 * A folder of golden tensors: what an original implementation computed at a small size. The folder's name is the kind,
 * `config.json` holds dimensions in the original's field names, `case-N.safetensors` inputs and outputs, and
 * `weights.safetensors` weights under the names of the original's state dict.
 */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { parseSafetensors, type Safetensors } from '../model/safetensors.js';
import { Weights } from '../model/weights.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Schema } from '../protocol/schema.js';
import { GoldenTensors } from './golden-tensors.js';

export type GoldenCase = {
	/** `case-1` */
	readonly name: string;
	/** Its place in lists of the configuration, from 0: that of `case-1` is 0. */
	readonly index: number;
	/** Throws `weights_corrupt`. */
	readonly read: () => Promise<GoldenTensors>;
};

export type GoldenFolder = {
	readonly path: string;
	readonly kind: string;
	/** In the order of their numbers; never empty. */
	readonly cases: readonly GoldenCase[];
	/** `config.json` by a schema. Throws `model_invalid`. */
	readonly config: <T>(schema: Schema<T>) => T;
};

const CASE_FILE = /^(case-(\d{1,6}))\.safetensors$/u;

const unreadable = (path: string, cause: unknown): never => {
	throw new TurbocastError('model_invalid', `${path} cannot be read; a golden folder holds config.json, case-N.safetensors and, for most kinds, weights.safetensors.`, { cause });
};

/** Parses a JSON file. Throws `model_invalid`. */
export const readConfig = async (path: string): Promise<unknown> => {
	const text = await readFile(path, 'utf8').catch((error: unknown) => unreadable(path, error));
	try {
		return JSON.parse(text);
	} catch (error) {
		throw new TurbocastError('model_invalid', `${path} is not JSON text.`, { cause: error });
	}
};

/** `value` by `schema`. Throws `model_invalid` naming the file and the field. */
export const parseConfig = <T>(path: string, value: unknown, schema: Schema<T>): T => {
	try {
		return schema.parse(value, 'config');
	} catch (error) {
		throw new TurbocastError('model_invalid', `${path}: ${TurbocastError.from(error).message}`, { cause: error });
	}
};

const readTensors = async (path: string): Promise<Safetensors> =>
	parseSafetensors(path, await readFile(path).catch((error: unknown) => unreadable(path, error)));

/** The weights of a folder, or of the file that its configuration names. Throws `model_invalid` or `weights_corrupt`. */
export const readWeights = async (folder: GoldenFolder, file = 'weights.safetensors'): Promise<Weights> =>
	new Weights(await readTensors(resolve(folder.path, file)));

/** Throws `invalid_option` when there is no such folder, `model_invalid` when it is not in the golden form. */
export const openGoldenFolder = async (folder: string): Promise<GoldenFolder> => {
	const path = resolve(folder);
	const names = await readdir(path).catch((error: unknown) => {
		throw new TurbocastError('invalid_option', `${folder} is not a folder that can be read.`, { cause: error });
	});
	const cases = names.flatMap((name): GoldenCase[] => {
		const [, title, number] = CASE_FILE.exec(name) ?? [];
		return title === undefined ? [] : [{ name: title, index: Number(number) - 1, read: async () => new GoldenTensors(await readTensors(join(path, name))) }];
	}).sort((a, b) => a.index - b.index);
	if (cases.length === 0) {
		throw new TurbocastError('model_invalid', `${folder} has no case-N.safetensors; give a folder of golden tensors.`);
	}
	const configPath = join(path, 'config.json');
	const value = await readConfig(configPath);
	return { path, kind: basename(path), cases, config: (schema) => parseConfig(configPath, value, schema) };
};
