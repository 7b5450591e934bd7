/**
 * Encoded prompts on disk, so that a text encoder of 11 GB is loaded only for prompts that are new. One file a prompt: the SHA-256 of
 * the rest, then a .safetensors file with `context` [tokens, dim]. Its name is a hash of the encoder and of the prompt's ids: what
 * was asked for cannot be read from a name, though it can be guessed at from the numbers.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../base/log.js';
import { encodeSafetensors, parseSafetensors, readFloats, tensorEntry } from '../model/safetensors.js';

/** Enough for some hundred prompts of ordinary length of umT5-XXL, 16 KB a token. */
export const DEFAULT_MAX_BYTES = 512 * 1024 * 1024;

const ENDING = '.embedding';
/** A file that is being written; one of this age was left by a process that died. */
const UNFINISHED = /\.unfinished$/u;
const ABANDONED_MS = 3_600_000;
const HASH_BYTES = 32;
/** Prompts are personal data: nobody but the owner reads what was made of them. */
const [FOLDER_MODE, FILE_MODE] = [0o700, 0o600];

/** What makes two embeddings the same. */
export type EmbeddingKey = {
	/** The encoder, by a hash of its weights. */
	readonly encoderId: string;
	/** Ids of the prompt, without padding. */
	readonly ids: readonly number[];
	readonly dim: number;
};

export type EmbeddingCache = {
	/** Rows of the prompt's tokens [tokens, dim]; `undefined` when they are not there or cannot be used. */
	readonly read: (key: EmbeddingKey) => Promise<Float32Array | undefined>;
	/** Never throws: what cannot be kept is made again. */
	readonly write: (key: EmbeddingKey, rows: Float32Array) => Promise<void>;
};

export type EmbeddingCacheOptions = {
	readonly folder: string;
	/** Of all files together; the ones that were used last are kept. 0 keeps none. */
	readonly maxBytes: number;
	readonly nowMs: () => number;
	readonly log: Pick<Log, 'warn'>;
};

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

const nameOf = ({ encoderId, ids, dim }: EmbeddingKey): string =>
	`${createHash('sha256').update(JSON.stringify([encoderId, dim, ids])).digest('hex')}${ENDING}`;

const encode = (rows: Float32Array, dim: number): Uint8Array => {
	const body = encodeSafetensors({ context: { dtype: 'F32', shape: [rows.length / dim, dim], data: rows } });
	return Buffer.concat([sha256(body), body]);
};

/** `undefined` for a file that is damaged or holds something else. */
const decode = (name: string, bytes: Uint8Array, { ids, dim }: EmbeddingKey): Float32Array | undefined => {
	const body = bytes.subarray(HASH_BYTES);
	if (bytes.length < HASH_BYTES || !sha256(body).equals(bytes.subarray(0, HASH_BYTES))) {
		return undefined;
	}
	try {
		const file = parseSafetensors(name, body);
		return readFloats(file, tensorEntry(file, 'context', [ids.length, dim]));
	} catch {
		return undefined;
	}
};

export const createEmbeddingCache = ({ folder, maxBytes, nowMs, log }: EmbeddingCacheOptions): EmbeddingCache => {
	let isWarned = false;
	/** Once: a folder that is read-only or full of damage would say the same for every prompt. */
	const warn = (message: string, error?: unknown): void => {
		if (!isWarned) {
			isWarned = true;
			log.warn({ folder, ...(error instanceof Error ? { error: error.message } : {}) }, message);
		}
	};

	/** Removes what was used longest ago until the rest fits, and what dead processes left. */
	const trim = async (): Promise<void> => {
		const entries = (await Promise.all((await readdir(folder)).map(async (name) => {
			const found = await stat(join(folder, name)).catch(() => undefined);
			return found === undefined ? [] : [{ name, bytes: found.size, usedAtMs: found.mtimeMs }];
		}))).flat();
		const abandoned = entries.filter(({ name, usedAtMs }) => UNFINISHED.test(name) && nowMs() - usedAtMs > ABANDONED_MS);
		let total = 0;
		const surplus = entries.filter(({ name }) => name.endsWith(ENDING)).sort((a, b) => b.usedAtMs - a.usedAtMs).filter(({ bytes }) => (total += bytes) > maxBytes);
		await Promise.all([...abandoned, ...surplus].map(({ name }) => rm(join(folder, name), { force: true })));
	};

	return {
		read: async (key) => {
			const name = nameOf(key);
			const path = join(folder, name);
			const bytes = await readFile(path).catch(() => undefined);
			if (bytes === undefined) {
				return undefined;
			}
			const rows = decode(name, bytes, key);
			if (rows === undefined) {
				warn('a cached prompt is damaged and is made again');
				await rm(path, { force: true }).catch(() => undefined);
				return undefined;
			}
			const now = nowMs() / 1000;
			await utimes(path, now, now).catch(() => undefined);
			return rows;
		},
		write: async (key, rows) => {
			const bytes = encode(rows, key.dim);
			if (bytes.length > maxBytes) {
				return;
			}
			const unfinished = join(folder, `${randomUUID()}.unfinished`);
			try {
				await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
				await writeFile(unfinished, bytes, { mode: FILE_MODE });
				const now = nowMs() / 1000;
				await utimes(unfinished, now, now);
				await rename(unfinished, join(folder, nameOf(key)));
				await trim();
			} catch (error) {
				warn('encoded prompts cannot be kept on disk', error);
				await rm(unfinished, { force: true }).catch(() => undefined);
			}
		},
	};
};
