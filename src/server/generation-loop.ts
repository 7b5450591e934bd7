/** Chunk after chunk out of the engine, as early as the pacer allows and no earlier; goes on by itself when an engine is lost. */
import { createHash } from 'node:crypto';
import type { RawFrame } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import type { ChunkInputs, ChunkTimings } from '../engine/protocol.js';
import type { StreamSnapshot } from '../engine/stream-state.js';
import type { Engine, EngineStream, StreamOptions } from '../engine/engine.js';
import { TurbocastError } from '../protocol/errors.js';
import type { History } from '../protocol/messages.js';
import type { ChangeLog } from './change-log.js';
import type { FrameLine } from './frame-line.js';

export type ChunkReport = {
	readonly chunkIndex: number;
	/** What it was made from, besides the past. */
	readonly inputs: ChunkInputs;
	/** Where its past came from, when that is not the chunk before. */
	readonly history: History | undefined;
	/** Of all its frames, where that is wanted. */
	readonly sha256: string | undefined;
	readonly seed: number;
	readonly frames: number;
	readonly firstFrameId: number;
	readonly lastFrame: RawFrame | undefined;
	/** The stream's state after it. */
	readonly snapshot: StreamSnapshot | undefined;
	readonly timings: ChunkTimings;
	/** On the clock. */
	readonly startedAtMs: number;
	readonly generateMs: number;
	/** How far generation was ahead of display at the end of the chunk. */
	readonly leadMs: number;
	/** The picture stood still while it was made. */
	readonly deadlineMissed: boolean;
};

export type GenerationStart = { readonly chunkIndex: number; readonly firstFrameId: number; readonly seed: number; readonly history: History };

export type GenerationParts = {
	readonly engine: Engine;
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly clock: Clock;
	readonly stream: StreamOptions;
	/** Whether reports are to have the hash of the chunk's frames. */
	readonly wantsHash: boolean;
	/** Generation begins with this chunk, or goes on after an engine or the past was lost or left. */
	readonly onStarted: (start: GenerationStart) => void;
	readonly onFrame: (frame: RawFrame) => void;
	readonly onChunk: (report: ChunkReport) => void;
	/** A chunk was lost, and generation goes on: with the same again, or the next. */
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

/** How a chunk is begun, and begun again after an engine was lost. */
type Attempt = { readonly chunkIndex: number; readonly firstFrameId: number; readonly inputs: ChunkInputs };

/**
 * Generates until the signal aborts, which makes it return. A chunk whose engine is lost is made again on the next one, from the copy of the
 * stream's state: the same bits, so its frames that were queued before are left out. Throws when it cannot go on: `engine_failed`
 * when the engine has given up, `generation_invalid` when two chunks in a row came to nothing. Closes the stream it was given.
 */
export const runGeneration = async (parts: GenerationParts, opened: EngineStream, signal: AbortSignal): Promise<void> => {
	const { engine, line, changes, clock } = parts;
	let stream = opened;
	let nextFrameId = parts.stream.firstFrameId ?? 0;
	let invalidChunks = 0;
	/** Where the past of the next chunk comes from, when that is to be told. */
	let history: History | undefined = parts.stream.restore === undefined ? 'new' : 'forked';

	const generateChunk = async ({ chunkIndex, firstFrameId, inputs }: Attempt, startedAtMs: number): Promise<void> => {
		const hash = parts.wantsHash ? createHash('sha256') : undefined;
		history ??= inputs.past === 'forget' ? 'new' : undefined;
		const told = history;
		if (history !== undefined) {
			parts.onStarted({ chunkIndex, firstFrameId, seed: inputs.seed ?? stream.seed, history });
			history = undefined;
		}
		const stallsBefore = line.pacer.stats.stalls;
		line.chunkStarted();
		try {
			const run = stream.generate(inputs, signal, line.pacer.leadMs(clock.nowMs()));
			run.timings.catch(() => undefined);
			let lastFrame: RawFrame | undefined;
			for await (const frame of run.frames) {
				lastFrame = frame;
				hash?.update(frame.data);
				if (frame.frameId < nextFrameId) {
					line.pacer.frameRepeated();
					continue;
				}
				nextFrameId = frame.frameId + 1;
				parts.onFrame(frame);
				line.push(frame);
			}
			const timings = await run.timings;
			line.chunkFinished();
			const nowMs = clock.nowMs();
			parts.onChunk({
				chunkIndex, timings, firstFrameId, inputs, lastFrame,
				seed: inputs.seed ?? stream.seed,
				history: told,
				sha256: hash?.digest('hex'),
				snapshot: stream.snapshot,
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

	/** Whether the chunk is to be made again on the stream that was opened anew. Throws where there is no going on. */
	const recover = async (error: unknown, { chunkIndex, firstFrameId }: Attempt): Promise<boolean> => {
		signal.throwIfAborted();
		const failure = TurbocastError.from(error, 'engine_failed');
		const isInvalid = failure.code === 'generation_invalid';
		invalidChunks += isInvalid ? 1 : 0;
		if ((failure.code !== 'engine_failed' && !isInvalid) || invalidChunks > MOST_INVALID_CHUNKS) {
			throw failure;
		}
		parts.onLoss(failure);
		const { snapshot } = stream;
		await stream.close();
		const { restore, ...fresh } = parts.stream;
		if (isInvalid) {
			// The same state and inputs would only give the same numbers again.
			history = 'lost';
			stream = await openAgain(engine, { ...fresh, firstChunkIndex: chunkIndex + 1, firstFrameId: nextFrameId }, signal);
			return false;
		}
		const state = snapshot ?? restore;
		const isWhole = state === undefined ? chunkIndex === (fresh.firstChunkIndex ?? 0) : state.nextChunkIndex === chunkIndex;
		history = isWhole ? 'restored' : 'lost';
		stream = await openAgain(engine, {
			...fresh, firstChunkIndex: chunkIndex, firstFrameId, ...(isWhole && state !== undefined ? { restore: state } : {}),
		}, signal);
		return true;
	};

	try {
		for (let chunkIndex = opened.nextChunkIndex; ; chunkIndex += 1) {
			await line.waitForStart(signal);
			const startedAtMs = clock.nowMs();
			const attempt = { chunkIndex, firstFrameId: nextFrameId, inputs: changes.latch(chunkIndex, startedAtMs) };
			for (let isToBeMade = true; isToBeMade;) {
				try {
					await generateChunk(attempt, startedAtMs);
					invalidChunks = 0;
					isToBeMade = false;
				} catch (error) {
					isToBeMade = await recover(error, attempt);
				}
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
