/**
 * The record of a session: what each chunk was made from and what came out, one JSON object a line, so that `turbocast replay` can make the same
 * frames again. It holds prompts, which are personal data: written only where the operator names a folder.
 */
import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../base/log.js';
import { ENGINE_PROFILES, PAST_MODES, type ChunkInputs } from '../engine/protocol.js';
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_PROMPT_LENGTH, MAX_SEED } from '../protocol/limits.js';
import { HISTORIES } from '../protocol/messages.js';
import { integer, list, literal, number, object, oneOf, optional, record, string, type Infer } from '../protocol/schema.js';

const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const sha256 = string({ min: 64, max: 64, pattern: /^[0-9a-f]{64}$/u, says: 'must be 64 hexadecimal digits' });
const seed = integer({ min: 0, max: MAX_SEED });

/** First line. */
const SESSION_LINE = object({
	type: literal('session'), format: literal(1), session_id: string({ min: 1, max: 128 }),
	model: string({ min: 1, max: 128 }), model_sha256: sha256, profile: oneOf(ENGINE_PROFILES),
	width: count, height: count, seed,
});

/** One a chunk, in order. */
const CHUNK_LINE = object({
	type: literal('chunk'), chunk_index: count, first_frame_id: count, frames: count,
	/** Where its past came from, when that is not the chunk before. */
	history: optional(oneOf(HISTORIES)),
	prompts: list(object({ text: string({ max: MAX_PROMPT_LENGTH }), weight: number({ min: 0, max: 1 }) }), { min: 1, max: 64 }),
	steps: integer({ min: 1, max: 64 }), seed, controls: record(number({ min: -1e6, max: 1e6 }), { max: 64 }),
	past: oneOf(PAST_MODES),
	/** Of its frames, I420, one after the other. */
	sha256,
});

export type SessionLine = Infer<typeof SESSION_LINE>;
export type ChunkLine = Infer<typeof CHUNK_LINE>;

/** Names the model with all its weights: the hash of its `model.json`, which has the hash of every file. */
export const modelHash = (model: ModelSpec): string => createHash('sha256').update(JSON.stringify(model)).digest('hex');

export const chunkLine = (
	chunk: Pick<ChunkLine, 'chunk_index' | 'first_frame_id' | 'frames' | 'history' | 'sha256' | 'seed'>, { prompt, steps, controls, past = 'keep' }: ChunkInputs,
): ChunkLine => ({
	type: 'chunk', ...chunk, steps, past, controls: { ...controls },
	prompts: typeof prompt === 'string' ? [{ text: prompt, weight: 1 }] : prompt.map((part) => ({ ...part })),
});

/** Parses a whole record. Throws `invalid_request` naming the line. */
export const parseSessionLog = (text: string): { readonly session: SessionLine; readonly chunks: readonly ChunkLine[] } => {
	const [first = '', ...rest] = text.split('\n').filter((line) => line !== '');
	const parseLine = <T>(line: string, index: number, parse: (value: unknown) => T): T => {
		try {
			return parse(JSON.parse(line));
		} catch (error) {
			throw new TurbocastError('invalid_request', `Line ${index + 1} is not one of a session's record: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
		}
	};
	return {
		session: parseLine(first, 0, (value) => SESSION_LINE.parse(value)),
		chunks: rest.map((line, index) => parseLine(line, index + 1, (value) => CHUNK_LINE.parse(value))),
	};
};

/** Closed by the session that writes it. A disk that fails costs the record, never the session. */
export class SessionLog {
	readonly #file: WriteStream;
	#hasFailed = false;

	constructor(folder: string, session: SessionLine, log: Log) {
		mkdirSync(folder, { recursive: true, mode: 0o700 });
		this.#file = createWriteStream(join(folder, `${session.session_id}.jsonl`), { flags: 'wx', mode: 0o600 });
		this.#file.on('error', (error) => {
			this.#hasFailed = true;
			log.error({ err: error }, 'The record of the session cannot be written; the session goes on without.');
		});
		this.write(session);
	}

	/** What waits for the disk is bounded by the length of a session: a few hundred bytes a chunk. */
	write(line: SessionLine | ChunkLine): void {
		if (!this.#hasFailed && !this.#file.writableEnded) {
			this.#file.write(`${JSON.stringify(line)}\n`);
		}
	}

	/** Idempotent. */
	close(): Promise<void> {
		return new Promise((resolve) => {
			if (this.#hasFailed || this.#file.closed) {
				resolve();
				return;
			}
			this.#file.once('close', () => resolve());
			this.#file.end();
		});
	}
}
