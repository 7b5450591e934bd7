/** One stream seen from the main process: what was asked of the engine, and what has come back. */
import { BoundedQueue } from '../base/bounded-queue.js';
import type { RawFrame } from '../base/frame.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ChunkRun, EngineStream, StreamOptions } from './engine.js';
import type { ModelSpec } from '../model/spec.js';
import type { ChunkInputs, ChunkTimings, EngineEvent, EngineRequest } from './protocol.js';
import { StreamCopy, type StreamSnapshot } from './stream-state.js';

/** Events of a stream. */
export type StreamEvent = Extract<EngineEvent, { readonly stream: number }>;

/** What a stream needs of the engine around it. */
export type StreamPort = {
	readonly send: (request: EngineRequest) => void;
	readonly nowMs: () => number;
	readonly model: ModelSpec;
	/** Frames in a chunk: the most that can ever wait to be read. */
	readonly framesPerChunk: number;
	/** A chunk is whole; from its request, the waiting for other streams included. */
	readonly onChunk: (tookMs: number) => void;
	readonly onClosed: () => void;
};

/** The frame id is given when a frame is read, so that frames of a cancelled chunk that nobody read leave no gap. */
type PendingFrame = Omit<RawFrame, 'frameId'>;

type Run = {
	readonly chunkIndex: number;
	readonly askedAtMs: number;
	readonly queue: BoundedQueue<PendingFrame>;
	readonly settled: Promise<unknown>;
	/** Ends the run: with timings, or with what went wrong. */
	readonly end: (outcome: ChunkTimings | Error) => void;
	/** Why it was cancelled, once it was. */
	cancelReason: Error | undefined;
};

type StreamState =
	| { readonly kind: 'idle' }
	| { readonly kind: 'running'; readonly run: Run }
	/** Nothing more will come; `error` is what every later run ends with. */
	| { readonly kind: 'ended'; readonly error: TurbocastError };

const reasonOf = (signal: AbortSignal | undefined): Error =>
	signal?.reason instanceof Error ? signal.reason : new Error('Generation was cancelled.', { cause: signal?.reason });

export class StreamHost implements EngineStream {
	readonly seed: number;
	readonly #id: number;
	readonly #port: StreamPort;
	readonly #copy: StreamCopy;
	#state: StreamState = { kind: 'idle' };
	#nextChunkIndex: number;
	#nextFrameId: number;

	constructor(id: number, options: StreamOptions, port: StreamPort) {
		this.#id = id;
		this.#port = port;
		this.seed = options.seed;
		this.#copy = new StreamCopy(port.model, options.restore);
		this.#nextChunkIndex = options.restore?.nextChunkIndex ?? options.firstChunkIndex ?? 0;
		this.#nextFrameId = options.firstFrameId ?? 0;
	}

	get nextChunkIndex(): number {
		return this.#nextChunkIndex;
	}

	get snapshot(): StreamSnapshot | undefined {
		return this.#copy.snapshot;
	}

	generate(inputs: ChunkInputs, signal?: AbortSignal, dueInMs?: number): ChunkRun {
		if (this.#state.kind === 'running') {
			throw new TurbocastError('invalid_state', 'This stream is generating a chunk; wait for its end before asking for the next one.');
		}
		const chunkIndex = this.#nextChunkIndex;
		const queue = new BoundedQueue<PendingFrame>(this.#port.framesPerChunk, 'drop-oldest');
		let settle: (outcome: ChunkTimings | Error) => void = () => undefined;
		const timings = new Promise<ChunkTimings>((resolve, reject) => {
			settle = (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome));
		});
		// Whoever reads the frames hears of a failure there; the second telling must not end the process.
		const settled = timings.catch(() => undefined);
		const onAbort = (): void => this.#cancel(run, reasonOf(signal));
		const run: Run = {
			chunkIndex,
			askedAtMs: this.#port.nowMs(),
			queue,
			settled,
			end: (outcome) => {
				signal?.removeEventListener('abort', onAbort);
				if (run.cancelReason !== undefined && outcome instanceof Error) {
					queue.clear();
				}
				queue.close(outcome instanceof Error ? outcome : undefined);
				settle(outcome);
			},
			cancelReason: undefined,
		};
		if (this.#state.kind === 'ended') {
			run.end(this.#state.error);
		} else if (signal?.aborted === true) {
			run.end(reasonOf(signal));
		} else {
			signal?.addEventListener('abort', onAbort, { once: true });
			this.#state = { kind: 'running', run };
			this.#port.send({ type: 'chunk.generate', stream: this.#id, chunkIndex, inputs, ...(dueInMs === undefined ? {} : { dueInMs }) });
		}
		return { chunkIndex, frames: this.#read(run), timings };
	}

	close(): Promise<void> {
		if (this.#state.kind !== 'ended') {
			this.#port.send({ type: 'stream.close', stream: this.#id });
			this.end(new TurbocastError('invalid_state', 'The stream was closed.'));
		}
		return Promise.resolve();
	}

	/** Ends the stream: nothing more will come from the engine. Idempotent. */
	end(error: TurbocastError): void {
		const state = this.#state;
		if (state.kind === 'ended') {
			return;
		}
		this.#state = { kind: 'ended', error };
		if (state.kind === 'running') {
			state.run.end(state.run.cancelReason ?? error);
		}
		this.#port.onClosed();
	}

	/** Takes an event of this stream; one that belongs to no chunk at hand is late and means nothing. */
	receive(event: StreamEvent): void {
		if (this.#state.kind !== 'running' || event.chunkIndex !== this.#state.run.chunkIndex) {
			return;
		}
		const { run } = this.#state;
		switch (event.type) {
			case 'frames':
				for (const [index, data] of event.frames.entries()) {
					run.queue.offer({
						chunkIndex: event.chunkIndex, indexInChunk: event.firstIndexInChunk + index, width: event.width, height: event.height,
						// A copy: what arrives is a view into the channel's buffer, which other frames share.
						data: new Uint8Array(data), generatedAtMs: this.#port.nowMs(),
					});
				}
				return;
			case 'chunk.done':
				// Also after an abort that came too late: the engine's history holds this chunk now.
				this.#nextChunkIndex = event.chunkIndex + 1;
				this.#port.onChunk(this.#port.nowMs() - run.askedAtMs);
				if (event.checkpoint !== undefined) {
					this.#copy.take(event.checkpoint);
				}
				return this.#finish(run, event.timings);
			case 'chunk.cancelled':
				return this.#finish(run, run.cancelReason ?? new TurbocastError('engine_failed', 'The engine cancelled the chunk by itself.'));
			case 'chunk.failed':
				return this.#finish(run, new TurbocastError(event.code, event.message));
		}
	}

	#finish(run: Run, outcome: ChunkTimings | Error): void {
		this.#state = { kind: 'idle' };
		run.end(outcome);
	}

	#cancel(run: Run, reason: Error): void {
		if (this.#state.kind === 'running' && this.#state.run === run && run.cancelReason === undefined) {
			run.cancelReason = reason;
			this.#port.send({ type: 'chunk.cancel', stream: this.#id });
		}
	}

	/** Reading to the end waits for the engine; leaving early cancels the chunk and waits until the engine has let go. */
	async *#read(run: Run): AsyncGenerator<RawFrame, void> {
		try {
			for await (const frame of run.queue) {
				yield { frameId: this.#nextFrameId++, ...frame };
			}
		} finally {
			this.#cancel(run, new Error('Reading of the frames was given up.'));
			await run.settled;
		}
	}
}
