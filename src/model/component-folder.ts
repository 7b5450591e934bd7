/**
 * Imported networks on disk (docs/model-format.md, component.json): weights with their dimensions, but not all that a model
 * needs to run. `model.json` is for what runs; a folder has one or the other.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { anything, type Infer, integer, list, literal, object, oneOf, optional, record, string } from '../protocol/schema.js';
import { COMPONENTS } from './checkpoint/tensor-names.js';
import { modelFolderNames } from './model-folder-names.js';
import { RECIPES } from './recipes.js';

export const COMPONENT_FILE = 'component.json';

const text = string({ max: 1024 });
const file = string({ min: 1, max: 128, pattern: /^[\w.-]+$/u, says: 'must be letters, digits, dots, dashes and underscores' });
const bytes = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const sha256 = string({ min: 64, max: 64, pattern: /^[0-9a-f]+$/u, says: 'must be 64 hexadecimal digits' });

export const COMPONENT_FOLDER = object({
	format: literal(1),
	name: string({ min: 1, max: 128 }),
	/** What is known of it; the file's publisher has the last word. */
	license: text,
	components: list(object({
		component: oneOf(COMPONENTS),
		kind: text,
		title: text,
		/** Of two experts: the one for much noise or the one for little. */
		expert: optional(oneOf(['high', 'low'] as const)),
		/** Names of the files it was read from. */
		source: list(text, { min: 1, max: 1000 }),
		/** How it wants to be sampled, where the file tells. */
		recipe: optional(oneOf(RECIPES)),
		dimensions: record(anything(), { max: 100 }),
		file, bytes, sha256,
	}), { min: 1, max: 8 }),
	/** Of the text encoder: `spiece.model` or `tokenizer.json`. */
	tokenizer: optional(object({ file, bytes, sha256 })),
});

export type ComponentFolder = Infer<typeof COMPONENT_FOLDER>;

/** `component.json` of a folder; `undefined` when it has none. Throws `model_invalid`. */
export const readComponentFolder = async (path: string): Promise<ComponentFolder | undefined> => {
	const json = await readFile(join(path, COMPONENT_FILE), 'utf8').catch(() => undefined);
	if (json === undefined) {
		return undefined;
	}
	try {
		return COMPONENT_FOLDER.parse(JSON.parse(json));
	} catch (error) {
		throw new TurbocastError('model_invalid', `${join(path, COMPONENT_FILE)}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
	}
};

/** Imported networks found under a root, by the name of their folder: what they are, or why they cannot be used. */
export type ListedComponents = { readonly name: string } & ({ readonly folder: ComponentFolder } | { readonly error: TurbocastError });

/** Every folder below `root` that has a component.json, by name. */
export const listComponentFolders = async (root: string): Promise<ListedComponents[]> => {
	const names = await modelFolderNames(root);
	const found = await Promise.all(names.map(async (name): Promise<ListedComponents | undefined> => {
		try {
			const folder = await readComponentFolder(join(root, name));
			return folder === undefined ? undefined : { name, folder };
		} catch (error) {
			return { name, error: TurbocastError.from(error, 'model_invalid') };
		}
	}));
	return found.filter((listed) => listed !== undefined);
};
