/** The files that hold the server keys (hashes only) and, beside them, the secret that signs client secrets. */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import { list, literal, object, string } from '../protocol/schema.js';
import type { StoredKey } from './keys.js';

const MAX_KEYS = 1000;
const SIGNING_KEY_BYTES = 32;
/** For the owner alone. */
const PRIVATE_FILE = 0o600;

const KEY_FILE = object({
	version: literal(1),
	keys: list(object({
		id: string({ min: 1, max: 64 }), label: string({ max: 128 }), created_at: string({ max: 64 }),
		sha256: string({ min: 64, max: 64, pattern: /^[0-9a-f]+$/u, says: 'must be 64 hexadecimal digits' }),
	}, 'refuse'), { max: MAX_KEYS }),
}, 'refuse');

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** `configured`, or where it is kept when the configuration names none. */
export const keysFilePath = (configured: string): string =>
	configured === '' ? join(process.env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config'), 'turbocast', 'keys.json') : configured;

/** Changes whenever the file does; `undefined` without a file. */
export const stampOf = async (path: string): Promise<string | undefined> => {
	const facts = await stat(path).catch(() => undefined);
	return facts === undefined ? undefined : `${facts.mtimeMs} ${facts.size} ${facts.ino}`;
};

/** No file is no keys. Throws `invalid_config`. */
export const readKeys = async (path: string): Promise<readonly StoredKey[]> => {
	try {
		return KEY_FILE.parse(JSON.parse(await readFile(path, 'utf8'))).keys;
	} catch (error) {
		if (codeOf(error) === 'ENOENT') {
			return [];
		}
		throw new TurbocastError('invalid_config', `The keys file ${path} cannot be read (${codeOf(error) ?? TurbocastError.from(error).message}); name another with auth.keys_file, or make a new one with \`turbocast keys create\`.`, { param: 'auth.keys_file', cause: error });
	}
};

/** Replaces the file as a whole, so that a reader never sees half of it. Throws `output_failed`. */
export const writeKeys = async (path: string, keys: readonly StoredKey[]): Promise<void> => {
	const next = `${path}.${process.pid}.next`;
	try {
		await mkdir(dirname(path), { recursive: true, mode: 0o700 });
		await writeFile(next, `${JSON.stringify({ version: 1, keys }, undefined, '\t')}\n`, { mode: PRIVATE_FILE });
		await rename(next, path);
	} catch (error) {
		await rm(next, { force: true });
		throw new TurbocastError('output_failed', `The keys file ${path} cannot be written (${codeOf(error) ?? 'unknown reason'}); choose another with auth.keys_file.`, { cause: error });
	}
};

/**
 * The secret beside the keys file, made when it is not there: client secrets outlive a restart with it. `undefined` where
 * there is no keys file, or nothing may be written beside it. Throws `invalid_config` when it is not ours alone.
 */
export const readSigningKey = async (keysFile: string): Promise<Uint8Array | undefined> => {
	if ((await stampOf(keysFile)) === undefined) {
		return undefined;
	}
	const path = `${keysFile}.signing`;
	try {
		await writeFile(path, randomBytes(SIGNING_KEY_BYTES), { mode: PRIVATE_FILE, flag: 'wx' });
	} catch (error) {
		if (codeOf(error) === 'EACCES' || codeOf(error) === 'EROFS' || codeOf(error) === 'EPERM') {
			return undefined;
		}
		if (codeOf(error) !== 'EEXIST') {
			throw error;
		}
	}
	const [bytes, { mode }] = await Promise.all([readFile(path), stat(path)]);
	if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
		throw new TurbocastError('invalid_config', `Others than its owner may read ${path}, which signs client secrets; delete it (a new one is made) or run chmod 600 on it.`, { param: 'auth.keys_file' });
	}
	if (bytes.length !== SIGNING_KEY_BYTES) {
		throw new TurbocastError('invalid_config', `${path} does not hold ${SIGNING_KEY_BYTES} bytes; delete it, and a new one is made.`, { param: 'auth.keys_file' });
	}
	return bytes;
};
