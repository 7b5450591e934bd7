/** `turbocast keys`: the server keys in the keys file. A key is printed once, when it is made; after that only its hash is known. */
import type { Config } from '../config.js';
import { TurbocastError } from '../protocol/errors.js';
import { keysFilePath, readKeys, writeKeys } from '../server/key-file.js';
import { newServerKey, storedKeyOf } from '../server/keys.js';
import type { Arguments, FlagTable } from './arguments.js';

export const KEYS_FLAGS = {
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
	label: { values: ['L'], says: 'what a new key is for, at most 128 characters' },
} as const satisfies FlagTable;

const MAX_LABEL_LENGTH = 128;

/** The key goes to standard output, alone on its line, for scripts; what people should know goes beside it. */
const create = async (file: string, label: string): Promise<void> => {
	if (label.length > MAX_LABEL_LENGTH) {
		throw new TurbocastError('invalid_option', `--label may have at most ${MAX_LABEL_LENGTH} characters, not ${label.length}.`);
	}
	const value = newServerKey();
	const stored = storedKeyOf(value, label, new Date());
	await writeKeys(file, [...await readKeys(file), stored]);
	process.stdout.write(`${value}\n`);
	process.stderr.write(`This is ${stored.id}, shown this once: only its hash is kept, in ${file}. Open the page with #token=KEY behind its address, or make client secrets with it.\n`);
};

const list = async (file: string): Promise<void> => {
	const found = await readKeys(file);
	for (const { id, created_at: createdAt, label } of found) {
		process.stdout.write(`${id}  ${createdAt}  ${label}\n`);
	}
	if (found.length === 0) {
		process.stdout.write(`There are no keys in ${file}.\n`);
	}
};

const revoke = async (file: string, id: string): Promise<void> => {
	const before = await readKeys(file);
	const after = before.filter((key) => key.id !== id);
	if (after.length === before.length) {
		throw new TurbocastError('invalid_option', `There is no key ${id} in ${file}; \`turbocast keys list\` shows those there are.`);
	}
	await writeKeys(file, after);
	process.stdout.write(`${id} is revoked: from now on it opens nothing, and neither do client secrets made with it. Connections that are open stay open.\n`);
};

export const keys = async (args: Arguments, config: Config): Promise<void> => {
	const file = keysFilePath(config.auth.keys_file);
	const [verb = 'list', id] = args.words;
	const most = verb === 'revoke' ? 2 : 1;
	if (args.words.length > most || (args.has('label') && verb !== 'create')) {
		throw new TurbocastError('invalid_option', 'Use `turbocast keys create [--label L]`, `turbocast keys list` or `turbocast keys revoke ID`.');
	}
	switch (verb) {
		case 'create':
			return create(file, args.one('label') ?? '');
		case 'list':
			return list(file);
		case 'revoke':
			if (id !== undefined) {
				return revoke(file, id);
			}
			break;
		default:
	}
	throw new TurbocastError('invalid_option', 'Use `turbocast keys create [--label L]`, `turbocast keys list` or `turbocast keys revoke ID`.');
};
