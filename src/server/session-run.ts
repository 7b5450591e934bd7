/** What exists of a session once it was started: the whole line from the engine's stream to the frames that are sent, and word of both ends. */
import type { EngineState, EngineStream } from '../engine/engine.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ServerMessage, ServerMessages } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import type { Ticket } from './admission.js';
import { ChangeLog } from './change-log.js';
import { EncoderShelf } from './encoder-shelf.js';
import { FrameLine } from './frame-line.js';
import { runGeneration, type ChunkReport } from './generation-loop.js';
import { KeyframeGate } from './keyframe-gate.js';
import type { Member } from './member.js';
import { runPlayout } from './playout-loop.js';
import { appliedMessage, chunkMessage } from './session-reports.js';
import type { SessionParts } from './session-parts.js';
import type { StartRequest } from './start-request.js';

export type SessionRunEvents = {
	/** To everyone. */
	readonly send: (message: ServerMessage) => void;
	/** To everyone, with the `event_id` for its author alone. */
	readonly sendOf: (author: Member | undefined, message: ServerMessages['event.applied']) => void;
	/** Something went wrong, and the session goes on. */
	readonly onLoss: (error: TurbocastError) => void;
	/** It cannot go on. */
	readonly onFailed: (error: TurbocastError) => void;
	/** All that frames go to. */
	readonly watching: () => readonly Viewer[];
	/** Nobody has asked for the video at all. */
	readonly isHeadless: () => boolean;
};

export class SessionRun {
	readonly request: StartRequest;
	readonly ticket: Ticket;
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly encoders: EncoderShelf;
	readonly keyframes = new KeyframeGate();
	readonly #parts: SessionParts;
	readonly #events: SessionRunEvents;
	#frames = 0;
	#loops: readonly Promise<void>[] = [];

	constructor(parts: SessionParts, request: StartRequest, ticket: Ticket, events: SessionRunEvents) {
		const { config, engine, clock, encoders } = parts;
		const { width, height, inputs } = request;
		this.#parts = parts;
		this.#events = events;
		this.request = request;
		this.ticket = ticket;
		this.line = new FrameLine({ model: engine.model, maxLeadMs: config.maxLeadMs, firstRtpTimestamp: parts.randomUint32(), clock });
		this.changes = new ChangeLog(inputs, Object.fromEntries(engine.model.controls.map((control) => [control.name, control.default])));
		this.encoders = new EncoderShelf(encoders, { width, height, fps: engine.model.fps, bitrateBps: config.bitrateBps });
	}

	/** Frames generated so far. */
	get frames(): number {
		return this.#frames;
	}

	/** Starts the two loops and the watch over them. Both end with the signal; the stream is closed with them. */
	play(stream: EngineStream, signal: AbortSignal): void {
		const { engine, clock, onFrame, metrics } = this.#parts;
		const { width, height, seed } = this.request;
		const { send, sendOf, onLoss, onFailed, watching, isHeadless } = this.#events;
		const stopListening = engine.onState((state) => this.#engineChanged(state));
		signal.addEventListener('abort', stopListening, { once: true });
		const generation = runGeneration({
			engine, clock, line: this.line, changes: this.changes, stream: { seed, width, height },
			onStarted: (chunkIndex, firstFrameId) => send({
				type: 'generation.started', chunk_index: chunkIndex, seed, media_ms: (firstFrameId * 1000) / engine.model.fps, history: chunkIndex === 0 ? 'new' : 'lost',
			}),
			onFrame: (frame) => {
				this.#frames += 1;
				onFrame?.(frame);
			},
			onChunk: (report) => this.#chunkCompleted(report),
			onLoss: (error) => this.#chunkLost(error),
		}, stream, signal);
		const playout = runPlayout({
			line: this.line, changes: this.changes, clock, watching, isHeadless, onLoss, keyframes: this.keyframes,
			encoderFor: (codec) => this.encoders.for(codec),
			onSent: (chunk, viewers) => {
				metrics.frames.add(viewers, { outcome: 'sent' });
				metrics.encodeMs.observe(chunk.encodeMs, { codec: chunk.codec });
			},
			onLost: (outcome) => metrics.frames.add(1, { outcome }),
			onApplied: (changes, played) => {
				for (const change of changes) {
					const message = appliedMessage(change, played, clock.nowMs());
					metrics.changeMs.observe(message.server_latency_ms);
					sendOf(change.author, message);
				}
			},
		}, signal);
		this.#loops = [generation, playout];
		for (const loop of this.#loops) {
			loop.catch((error: unknown) => onFailed(TurbocastError.from(error)));
		}
	}

	/** After the signal of `play` has aborted: resolves when the engine has let go of the stream and the encoders are closed. Idempotent. */
	async close(): Promise<void> {
		await Promise.all([...this.#loops.map((loop) => loop.catch(() => undefined)), this.encoders.close()]);
	}

	#engineChanged(state: EngineState): void {
		if (state.kind === 'restarting') {
			this.#parts.metrics.engineLosses.add();
			const error = new TurbocastError('engine_failed', 'The engine stopped and is being restarted; the video goes on by itself in a moment.', { cause: state.error });
			this.#events.send({ type: 'session.reconnecting', code: error.code, message: error.message });
			this.#events.onLoss(error);
		} else if (state.kind === 'failed') {
			this.#events.onFailed(state.error);
		}
	}

	/** The engine's own end was already told by its change of state. */
	#chunkLost(error: TurbocastError): void {
		this.#parts.log.warn({ code: error.code, err: error }, 'A chunk was lost; generation goes on with the next.');
		if (error.code !== 'engine_failed') {
			this.#events.onLoss(error);
		}
	}

	#chunkCompleted(report: ChunkReport): void {
		const { metrics, engine, admission } = this.#parts;
		const { width, height, seed } = this.request;
		admission.observe({ width, height, steps: report.steps }, report.timings);
		metrics.chunkCompleted(report);
		this.#events.send(chunkMessage(report, { modelFps: engine.model.fps, fps: this.line.pacer.fps, seed }));
	}
}
