/** `turbocast replay`: the frames of a recorded session once more, held to what was shown then. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { systemClock } from '../base/time.js';
import type { Log } from '../base/log.js';
import type { Config } from '../config.js';
import { EngineHost } from '../engine/engine-host.js';
import type { EngineStream } from '../engine/engine.js';
import { openVideoFile } from '../media/file-writer.js';
import { TurbocastError } from '../protocol/errors.js';
import { modelHash, parseSessionLog, type ChunkLine, type SessionLine } from '../server/session-log.js';
import type { Arguments, FlagTable } from './arguments.js';
import { engineOptions } from './engine-options.js';

export const REPLAY_FLAGS = {
	out: { values: ['FILE'], says: '.mp4 (H.264) or .y4m (uncompressed); default: none, the frames are only compared' },
	threads: { values: ['N'], says: 'threads that compute; default 1' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

const readRecord = async (path: string): Promise<ReturnType<typeof parseSessionLog>> => {
	let text: string;
	try {
		text = await readFile(path, 'utf8');
	} catch (error) {
		throw new TurbocastError('invalid_option', `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown reason'}); give the record of a session, from the folder log.sessions_folder.`, { cause: error });
	}
	return parseSessionLog(text);
};

const assertCanReplay = (session: SessionLine, chunks: readonly ChunkLine[], engine: EngineHost): void => {
	if (modelHash(engine.model) !== session.model_sha256) {
		throw new TurbocastError('model_invalid', `The model ${session.model} here is not the one of the record; only the same weights make the same frames.`);
	}
	if (chunks[0]?.history === 'forked') {
		throw new TurbocastError('not_supported', 'This session was forked from another one, whose past is not in its record; replay the first one.');
	}
};

/** The stream that makes a chunk: the one before, or a new one where the past was lost. */
const streamFor = async (engine: EngineHost, { width, height, seed }: SessionLine, chunk: ChunkLine, before: EngineStream | undefined): Promise<EngineStream> => {
	if (before !== undefined && chunk.history !== 'lost' && before.nextChunkIndex === chunk.chunk_index) {
		return before;
	}
	await before?.close();
	return engine.openStream({ seed, width, height, firstChunkIndex: chunk.chunk_index, firstFrameId: chunk.first_frame_id });
};

/** Runs the command. Throws `generation_invalid` naming the first chunk that came out different. */
export const replay = async (args: Arguments, config: Config, log: Log, signal: AbortSignal): Promise<void> => {
	const [path] = args.words;
	if (path === undefined || args.words.length > 1) {
		throw new TurbocastError('invalid_option', 'replay takes one file: turbocast replay SESSION.jsonl.');
	}
	const { session, chunks } = await readRecord(path);
	const engine = await EngineHost.start({
		...engineOptions({ engine: { ...config.engine, model: session.model } }, { profile: session.profile }), log, clock: systemClock,
	});
	signal.addEventListener('abort', () => void engine.close(), { once: true });
	const out = args.one('out');
	const file = out === undefined ? undefined : await openVideoFile(out, { width: session.width, height: session.height, fps: engine.model.fps, ffmpegPath: config.media.ffmpeg_path });
	let isFinished = false;
	let frames = 0;
	try {
		assertCanReplay(session, chunks, engine);
		await engine.ready(signal);
		let stream: EngineStream | undefined;
		for (const chunk of chunks) {
			stream = await streamFor(engine, session, chunk, stream);
			const { prompts, steps, controls, seed, past } = chunk;
			const run = stream.generate({ prompt: prompts, steps, controls, seed, past }, signal);
			const hash = createHash('sha256');
			for await (const frame of run.frames) {
				hash.update(frame.data);
				frames += 1;
				await file?.write(frame);
			}
			await run.timings;
			if (hash.digest('hex') !== chunk.sha256) {
				throw new TurbocastError('generation_invalid', `Chunk ${chunk.chunk_index} is not what it was in the session; the processor or the tensor library may be another than then.`);
			}
		}
		await file?.close();
		isFinished = true;
	} finally {
		if (!isFinished) {
			await file?.abort();
		}
		await engine.close();
	}
	process.stdout.write(`${chunks.length} chunks, ${frames} frames: the same as in session ${session.session_id}, bit for bit${out === undefined ? '' : `; written to ${out}`}\n`);
};
