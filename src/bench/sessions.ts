/** How many streams of an own model one engine keeps in time: its own server, with as many as can be, each asking for its chunks as a player does. */
import type { Clock } from '../base/time.js';
import { EngineServer } from '../engine/engine-server.js';
import { loadNetworks } from '../engine/networks.js';
import { DEFAULT_MAX_STREAMS, type EngineEvent } from '../engine/protocol.js';
import { openModelFolder } from '../model/model-folder.js';
import { framesPerChunk, ownModel } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { OwnModelOptions } from './own-model.js';
import type { SessionsReport, SessionsTry } from './session-report.js';
import { percentile } from './timing.js';

/** What makes the chunks of many streams. */
export type ChunkMaker = {
	/** Resolves when the next chunk of a stream, of which none is being made, is whole. */
	readonly chunk: (stream: number, dueInMs: number) => Promise<void>;
	/** Ends the streams, whatever they are at. */
	readonly close: () => Promise<void>;
};

export type Pace = {
	/** What a chunk plays for: so often each stream asks for one, which is to be whole when the next is asked for. */
	readonly periodMs: number;
	/** Chunks of each stream before those that count: its window fills. */
	readonly warmChunks: number;
	/** Chunks of each stream that count. */
	readonly chunks: number;
};

/** Late chunks of a try that still counts as in time. */
const MOST_LATE = 0.05;

/**
 * So many streams at once, their chunks spread evenly over a period. A stream asks for a chunk when the one before has begun to play, or, if it is late, when that is there; what has not come
 * when the try is over is late.
 */
export const trySessions = async (sessions: number, maker: ChunkMaker, { periodMs, warmChunks, chunks }: Pace, { nowMs, sleep }: Clock): Promise<SessionsTry> => {
	const [startMs, isOver] = [nowMs(), new AbortController()];
	const took: number[] = [];
	let inTime = 0;
	const play = async (stream: number): Promise<void> => {
		for (let index = 0; index < warmChunks + chunks; index++) {
			const askAtMs = startMs + (stream / sessions + index) * periodMs;
			await sleep(askAtMs - nowMs(), isOver.signal);
			const askedMs = nowMs();
			await maker.chunk(stream, askAtMs + periodMs - askedMs);
			if (isOver.signal.aborted) {
				return;
			}
			if (index >= warmChunks) {
				took.push(nowMs() - askedMs);
				inTime += nowMs() <= askAtMs + periodMs ? 1 : 0;
			}
		}
	};
	const streams = Array.from({ length: sessions }, (_, stream) => play(stream));
	// All that is in time has come by then.
	const ended = sleep((warmChunks + chunks + 1) * periodMs, isOver.signal).then(() => undefined, () => undefined);
	try {
		await Promise.race([Promise.all(streams), ended]);
	} finally {
		isOver.abort(new Error('The try is over.'));
		await maker.close();
		await Promise.allSettled(streams);
	}
	return { sessions, lateShare: 1 - inTime / (sessions * chunks), p95Ms: percentile(took, 0.95) };
};

/** The most that are kept in time: half of what one's chunks leave time for, twice as many until they are not, then halfway between, until the two are a tenth apart. */
export const findSessions = async (attempt: (sessions: number) => Promise<SessionsTry>, periodMs: number, most: number): Promise<Pick<SessionsReport, 'kept' | 'missed'>> => {
	let [kept, missed]: [SessionsTry | undefined, SessionsTry | undefined] = [undefined, undefined];
	for (let next = 1; ;) {
		const found = await attempt(next);
		[kept, missed] = found.lateShare <= MOST_LATE ? [found, missed] : [kept, found];
		const low: number = kept?.sessions ?? 0;
		const high: number | undefined = missed?.sessions;
		if (high === undefined ? low >= most : high - low <= Math.max(1, low / 10)) {
			return { kept, missed };
		}
		next = high === undefined ? Math.min(most, Math.max(2 * low, low === 1 ? Math.floor(periodMs / (2 * found.p95Ms)) : 0)) : Math.floor((low + high) / 2);
	}
};

/** Chunks of each stream that count. */
const CHUNKS = 10;

/** Throws `internal` where a try would take longer than the budget. */
export const measureSessions = async ({ folder, clock, budgetMs, most = DEFAULT_MAX_STREAMS, ...own }: OwnModelOptions & { readonly clock: Clock; readonly budgetMs: number; /** Default: what an engine takes. */ readonly most?: number }): Promise<SessionsReport> => {
	const spec = ownModel((await openModelFolder(folder, { verify: false })).spec);
	const { width, height, fps, default_steps: steps, stream } = spec;
	const [periodMs, warmChunks] = [1000 * framesPerChunk(spec) / fps, Math.ceil(stream.window_latents / stream.latents_per_chunk)];
	const tryMs = (warmChunks + CHUNKS) * periodMs;
	if (tryMs > budgetMs) {
		throw new TurbocastError('internal', `a try takes ${(tryMs / 1000).toPrecision(2)} s, and --budget is ${(budgetMs / 1000).toPrecision(2)} s`);
	}
	/** By stream: what a chunk that is asked for ends with. */
	const waiting = new Map<number, (event: EngineEvent) => void>();
	const server = new EngineServer({
		load: (size) => loadNetworks({ ...own, ...size, folder, batch: 'auto' }), isBatchMeasured: true, nowMs: clock.nowMs,
		send: (event) => {
			if ('stream' in event && event.type !== 'frames') {
				waiting.get(event.stream)?.(event);
			}
		},
	});
	let opened = 0;
	/** Streams that nobody had before. */
	const makerOf = (sessions: number): ChunkMaker => {
		const first = opened;
		opened += sessions;
		const next = new Array<number>(sessions).fill(0);
		for (let index = 0; index < sessions; index++) {
			server.receive({ type: 'stream.open', stream: first + index, seed: index, width, height, firstChunkIndex: 0, checkpoints: false });
		}
		return {
			chunk: (index, dueInMs) => new Promise((resolve, reject) => {
				const [id, chunkIndex] = [first + index, next[index] ?? 0];
				waiting.set(id, (event) => {
					next[index] = chunkIndex + 1;
					waiting.delete(id);
					if (event.type === 'chunk.failed') {
						reject(new TurbocastError(event.code, event.message));
					} else {
						resolve();
					}
				});
				server.receive({ type: 'chunk.generate', stream: id, chunkIndex, inputs: { prompt: spec.examples[index % spec.examples.length] ?? '', steps, controls: {} }, dueInMs: Math.max(0, dueInMs) });
			}),
			close: async () => {
				// One that is cancelled says so.
				const ends = Array.from({ length: sessions }, (_, index) => first + index).filter((id) => waiting.has(id)).map((id) => new Promise<void>((resolve) => {
					const tell = waiting.get(id);
					waiting.set(id, (event) => {
						tell?.(event);
						resolve();
					});
				}));
				for (let index = 0; index < sessions; index++) {
					server.receive({ type: 'stream.close', stream: first + index });
				}
				await Promise.all(ends);
			},
		};
	};
	try {
		await server.warm(width, height);
		const found = await findSessions((sessions) => trySessions(sessions, makerOf(sessions), { periodMs, warmChunks, chunks: CHUNKS }, clock), periodMs, most);
		return { fps, steps, periodMs, isRecorded: own.recordsForwards ?? false, ...found };
	} finally {
		await server.close();
	}
};
