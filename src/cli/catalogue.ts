/** The published weights that `models pull` knows: `config/catalogue.json`. A set is what becomes one folder. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { boolean, type Infer, list, literal, object, string, withDefault } from '../protocol/schema.js';
import { packageRoot } from './models-folder.js';

const name = string({ min: 1, max: 128, pattern: /^\w[\w.-]*$/u, says: 'must be letters, digits, dots, dashes and underscores' });
/** Relative and without `..`: it becomes a path below the folder of downloads. */
const path = string({ min: 1, max: 512, pattern: /^(?!\/)(?!.*(?:^|\/)\.)[\w./-]*\w$/u, says: 'must be a relative path' });

const CATALOGUE = object({
	format: literal(1),
	sets: list(object({
		name, title: string({ min: 1, max: 256 }),
		/** `OWNER/NAME` on the hub, and a branch, tag or commit of it. */
		repository: string({ min: 3, max: 200, pattern: /^[\w.-]+\/[\w.-]+$/u, says: 'must be OWNER/NAME' }),
		revision: name,
		/** Whether the weights may be used for anything; the others are asked about. */
		license: object({ name: string({ min: 1, max: 128 }), url: string({ min: 1, max: 512 }), commercial: boolean() }),
		files: list(path, { min: 1, max: 64 }),
		/** Sets that this one does not run without. */
		with: withDefault(list(name, { max: 8 }), []),
	}), { min: 1, max: 256 }),
});

export type Catalogue = Infer<typeof CATALOGUE>;
export type WeightSet = Catalogue['sets'][number];

/** Throws `invalid_config` naming the field. */
export const parseCatalogue = (value: unknown): Catalogue => {
	let catalogue: Catalogue;
	try {
		catalogue = CATALOGUE.parse(value, 'catalogue');
	} catch (error) {
		throw new TurbocastError('invalid_config', `catalogue.json: ${TurbocastError.from(error).message}`, { cause: error });
	}
	const names = catalogue.sets.map((set) => set.name);
	const wrong = names.find((each, index) => names.indexOf(each) !== index) ?? catalogue.sets.flatMap((set) => set.with).find((each) => !names.includes(each));
	if (wrong !== undefined) {
		throw new TurbocastError('invalid_config', `catalogue.json: the set ${wrong} must be there once.`);
	}
	return catalogue;
};

export const readCatalogue = async (): Promise<Catalogue> => parseCatalogue(JSON.parse(await readFile(join(packageRoot, 'config', 'catalogue.json'), 'utf8')));

/** A set, after the sets that it needs. Throws `invalid_option` with the names there are. */
export const setsOf = (catalogue: Catalogue, wanted: string): WeightSet[] => {
	const set = catalogue.sets.find((each) => each.name === wanted);
	if (set === undefined) {
		throw new TurbocastError('invalid_option', `There is no set "${wanted}" to pull; there are ${catalogue.sets.map((each) => each.name).join(', ')}.`);
	}
	return [...set.with.flatMap((each) => setsOf(catalogue, each)), set];
};
