/** One file of the hub onto the disk: it goes on where it stopped, tries again when the connection breaks, and is checked by its hash. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { cannotWrite } from '../base/write-failure.js';
import { type ErrorCode, TurbocastError } from '../protocol/errors.js';
import type { Hub, HubFile } from './hub.js';

/** Attempts in a row that bring nothing; any that brings bytes starts the count anew. */
const MAX_FRUITLESS = 5;
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [1000, 30_000];
/** What may pass by itself. */
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['hub_unreachable', 'rate_limited']);

export type DownloadRequest = {
	readonly hub: Hub;
	readonly repository: string;
	readonly revision: string;
	readonly file: HubFile;
	/** Where the file shall be; beside it lies what there is of it so far. */
	readonly to: string;
	readonly signal: AbortSignal;
	/** Waits, and rejects when `signal` aborts. */
	readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
	readonly onProgress: (bytes: number) => void;
	readonly say: (sentence: string) => void;
};

const startHash = ({ size, hash }: HubFile): Hash => (hash.kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`));

const sizeOf = (path: string): Promise<number> => stat(path).then(({ size }) => size, () => 0);

/** What a file of the disk hashes to, bytes up to its end. */
const hashFile = async (path: string, hash: Hash, signal: AbortSignal): Promise<void> => {
	for await (const piece of createReadStream(path, { signal })) {
		hash.update(piece as Buffer);
	}
};

/** Adds what the hub sends to the unfinished file. Returns the size that it has then. */
const goOn = async (request: DownloadRequest, path: string, from: number, hash: Hash): Promise<number> => {
	const { hub, repository, revision, file, signal, onProgress } = request;
	const output = await open(path, 'a').catch(cannotWrite(path));
	let done = from;
	try {
		for await (const piece of hub.read(repository, revision, file, from, signal)) {
			if (done + piece.length > file.size) {
				throw new TurbocastError('download_failed', `The hub sends more of ${file.path} than the ${file.size} bytes that it has.`);
			}
			await output.writeFile(piece).catch(cannotWrite(path));
			hash.update(piece);
			done += piece.length;
			onProgress(done);
		}
	} finally {
		await output.close();
	}
	if (done < file.size) {
		throw new TurbocastError('hub_unreachable', `The connection ended after ${done} of the ${file.size} bytes of ${file.path}.`);
	}
	return done;
};

const fetchWhole = async (request: DownloadRequest, path: string): Promise<string> => {
	const { file, signal, say, sleep } = request;
	let fruitless = 0;
	for (;;) {
		const from = await sizeOf(path);
		if (from > file.size) {
			await rm(path);
			continue;
		}
		const hash = startHash(file);
		try {
			if (from > 0) {
				await hashFile(path, hash, signal);
			}
			if (from < file.size) {
				await goOn(request, path, from, hash);
			}
			return hash.digest('hex');
		} catch (error) {
			signal.throwIfAborted();
			const failure = TurbocastError.from(error);
			const now = await sizeOf(path);
			fruitless = now > from ? 0 : fruitless + 1;
			if (!PASSING.has(failure.code) || fruitless >= MAX_FRUITLESS) {
				throw failure;
			}
			const waitMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.max(0, fruitless - 1));
			say(`${failure.message} Trying again in ${waitMs / 1000} s.`);
			await sleep(waitMs, signal);
		}
	}
};

/**
 * Fetches the file unless it is there already, whole and unchanged. What is unfinished is named after the hash, so that it is never continued
 * with another version. Throws `weights_corrupt` for other contents than the hub promised, `output_failed`, and what the hub throws.
 */
export const download = async (request: DownloadRequest): Promise<void> => {
	const { file, to, signal } = request;
	const unfinished = `${to}.${file.hash.hex.slice(0, 12)}.part`;
	await mkdir(dirname(to), { recursive: true }).catch(cannotWrite(dirname(to)));
	if (await sizeOf(to) === file.size && file.size > 0) {
		const hash = startHash(file);
		await hashFile(to, hash, signal);
		if (hash.digest('hex') === file.hash.hex) {
			request.onProgress(file.size);
			return;
		}
	}
	if (file.size === 0) {
		await (await open(unfinished, 'a')).close();
	}
	if (await fetchWhole(request, unfinished) !== file.hash.hex) {
		await rm(unfinished, { force: true });
		throw new TurbocastError('weights_corrupt', `${file.path} was fetched, but does not have the ${file.hash.kind === 'sha256' ? 'SHA-256' : 'git id'} that the hub names; it was removed. Run the same command again.`);
	}
	await rename(unfinished, to);
};
