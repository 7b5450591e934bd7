/** Chunk after chunk out of the engine, as early as the pacer allows and no earlier; goes on by itself when an engine is lost. */
import type { RawFrame } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import type { ChunkTimings } from '../engine/protocol.js';
import type { Engine, EngineStream, StreamOptions } from '../engine/engine.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ChangeLog } from './change-log.js';
import type { FrameLine } from './frame-line.js';

export type ChunkReport = {
	readonly chunkIndex: number;
	/** Denoising steps that it was made with. */
	readonly steps: number;
	readonly frames: number;
	readonly firstFrameId: number;
	readonly timings: ChunkTimings;
	/** On the clock. */
	readonly startedAtMs: number;
	readonly generateMs: number;
	/** How far generation was ahead of display at the end of the chunk. */
	readonly leadMs: number;
	/** The picture stood still while it was made. */
	readonly deadlineMissed: boolean;
};

export type GenerationParts = {
	readonly engine: Engine;
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly clock: Clock;
	readonly stream: StreamOptions;
	/** Generation begins, or goes on after an engine was lost, with this chunk. */
	readonly onStarted: (chunkIndex: number, firstFrameId: number) => void;
	readonly onFrame: (frame: RawFrame) => void;
	readonly onChunk: (report: ChunkReport) => void;
	/** A chunk was lost, and generation goes on with the next. */
	readonly onLoss: (error: TurbocastError) => void;
};

/** Attempts to open a stream on an engine that says it is ready; more than two in a row mean that it is not. */
const MOST_OPENINGS = 5;
/** Chunks in a row that may be lost to numbers that are not a picture: the next one has other noise and a fresh history. */
const MOST_INVALID_CHUNKS = 1;

const openAgain = async (engine: Engine, options: StreamOptions, signal: AbortSignal): Promise<EngineStream> => {
	for (let attempt = 1; ; attempt += 1) {
		await engine.ready(signal);
		try {
			return await engine.openStream(options);
		} catch (error) {
			const { code } = TurbocastError.from(error);
			if ((code !== 'not_ready' && code !== 'engine_failed') || attempt >= MOST_OPENINGS) {
				throw error;
			}
		}
	}
};

/**
 * Generates until the signal aborts, which makes it return. Throws when it cannot go on: `engine_failed` when the
 * engine has given up, `generation_invalid` when two chunks in a row came to nothing. Closes the stream it was given.
 */
export const runGeneration = async (parts: GenerationParts, opened: EngineStream, signal: AbortSignal): Promise<void> => {
	const { engine, line, changes, clock } = parts;
	let stream = opened;
	let chunkIndex = 0;
	let nextFrameId = 0;
	let invalidChunks = 0;
	let isFresh = true;

	const generateChunk = async (): Promise<void> => {
		await line.waitForStart(signal);
		const startedAtMs = clock.nowMs();
		const inputs = changes.latch(chunkIndex, startedAtMs);
		if (isFresh) {
			isFresh = false;
			parts.onStarted(chunkIndex, nextFrameId);
		}
		const firstFrameId = nextFrameId;
		const stallsBefore = line.pacer.stats.stalls;
		line.chunkStarted();
		try {
			const run = stream.generate(inputs, signal);
			run.timings.catch(() => undefined);
			for await (const frame of run.frames) {
				nextFrameId = frame.frameId + 1;
				parts.onFrame(frame);
				line.push(frame);
			}
			const timings = await run.timings;
			line.chunkFinished();
			const nowMs = clock.nowMs();
			parts.onChunk({
				chunkIndex, timings, firstFrameId, steps: inputs.steps,
				frames: nextFrameId - firstFrameId,
				startedAtMs,
				generateMs: nowMs - startedAtMs,
				leadMs: line.pacer.leadMs(nowMs),
				deadlineMissed: line.pacer.stats.stalls > stallsBefore,
			});
		} catch (error) {
			line.chunkFailed();
			throw error;
		}
	};

	try {
		for (;; chunkIndex += 1) {
			try {
				await generateChunk();
				invalidChunks = 0;
			} catch (error) {
				signal.throwIfAborted();
				const failure = TurbocastError.from(error, 'engine_failed');
				invalidChunks += failure.code === 'generation_invalid' ? 1 : 0;
				if ((failure.code !== 'engine_failed' && failure.code !== 'generation_invalid') || invalidChunks > MOST_INVALID_CHUNKS) {
					throw failure;
				}
				parts.onLoss(failure);
				await stream.close();
				stream = await openAgain(engine, { ...parts.stream, firstChunkIndex: chunkIndex + 1, firstFrameId: nextFrameId }, signal);
				isFresh = true;
			}
		}
	} catch (error) {
		if (!signal.aborted) {
			throw error;
		}
	} finally {
		await stream.close();
	}
};
