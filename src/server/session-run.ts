/** What exists of a session once it was started: the whole line from the engine's stream to the frames that are sent, and word of both ends. */
import type { RawFrame } from '../base/frame.js';
import type { EngineState, EngineStream, StreamOptions } from '../engine/engine.js';
import type { StreamSnapshot } from '../engine/stream-state.js';
import { Recording } from '../media/recording.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ServerMessage, ServerMessages } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import type { Ticket } from './admission.js';
import { ChangeLog, type ChangedInputs } from './change-log.js';
import { ChunkCalendar } from './chunk-calendar.js';
import { Encodes, isSmall } from './encodes.js';
import { EncoderShelf } from './encoder-shelf.js';
import { FrameLine } from './frame-line.js';
import { runGeneration, type ChunkReport } from './generation-loop.js';
import { KeyframeGate } from './keyframe-gate.js';
import type { Member } from './member.js';
import { runPlayout } from './playout-loop.js';
import { appliedMessage, chunkMessage } from './session-reports.js';
import type { SessionParts } from './session-parts.js';
import { chunkLine, modelHash, SessionLog } from './session-log.js';
import type { StartRequest } from './start-request.js';

/** Shares of the model's frame rate between which nothing is said: a session that hovers at the edge does not chatter. */
const BEHIND_BELOW = 0.95;
const RECOVERED_FROM = 0.99;

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

/** Where a session goes on that did not begin by itself: a chunk of another one. */
export type Continuation = {
	readonly request: StartRequest;
	readonly snapshot: StreamSnapshot;
	readonly changes: ChangeLog;
	/** Of the chunk before, shown first. */
	readonly lastFrame: RawFrame;
	/** To be heard in the first chunk. */
	readonly change: ChangedInputs;
};

/** After the last whole chunk. */
type Latest = { readonly snapshot: StreamSnapshot; readonly lastFrame: RawFrame };

export class SessionRun {
	readonly request: StartRequest;
	readonly ticket: Ticket;
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly calendar: ChunkCalendar;
	readonly encoders: EncoderShelf;
	readonly #keyframes = new KeyframeGate();
	readonly #recording: Recording | undefined;
	readonly #encodes: Encodes;
	readonly #parts: SessionParts;
	readonly #events: SessionRunEvents;
	readonly #continuation: Continuation | undefined;
	#frames = 0;
	#latest: Latest | undefined;
	#log: SessionLog | undefined;
	#lastPlayed = { frameId: 0, mediaMs: 0 };
	/** Whether display is slower than the model wants because generation falls behind. */
	#isBehind = false;
	#loops: readonly Promise<void>[] = [];

	constructor(parts: SessionParts, request: StartRequest, ticket: Ticket, events: SessionRunEvents, continuation?: Continuation) {
		const { config, engine, clock, encoders } = parts;
		const { width, height } = request;
		this.#parts = parts;
		this.#events = events;
		this.request = request;
		this.ticket = ticket;
		this.#continuation = continuation;
		this.#recording = config.recording === undefined ? undefined : new Recording(config.recording);
		this.line = new FrameLine({ model: engine.model, maxLeadMs: request.maxLeadMs, firstRtpTimestamp: parts.randomUint32(), clock });
		this.changes = continuation?.changes ?? new ChangeLog(request.state, { controlDefaults: Object.fromEntries(engine.model.controls.map((control) => [control.name, control.default])) });
		this.calendar = new ChunkCalendar(engine.model, continuation?.snapshot.nextChunkIndex, continuation === undefined ? undefined : continuation.lastFrame.frameId + 1);
		this.#encodes = new Encodes({ floorBps: config.bitrateFloorBps, mostBps: config.bitrateBps });
		this.encoders = new EncoderShelf(encoders, { width, height, fps: engine.model.fps, bitrateBps: config.bitrateBps });
	}

	/** Frames generated so far. */
	get frames(): number {
		return this.#frames;
	}

	/** Opens its engine stream, with what the place was given for, and gets ready what the first frames need. */
	open(viewer: Viewer | undefined): Promise<EngineStream> {
		const { engine } = this.#parts;
		this.changes.adjust({ steps: this.ticket.steps });
		this.changes.state.prompts.forEach(({ text }) => engine.prepare(text));
		if (viewer !== undefined) {
			// Opened while the first chunk is being made; a failure is met again, and handled, at the first frame.
			this.encoders.for(viewer.codec).catch(() => undefined);
		}
		return engine.openStream(this.streamOptions);
	}

	/** What its engine stream is to be opened with. */
	get streamOptions(): StreamOptions {
		const { width, height } = this.request;
		const from = this.#continuation;
		return {
			seed: this.changes.state.seed, width, height, keepsSnapshot: true,
			...(from === undefined ? {} : { restore: from.snapshot, firstFrameId: from.lastFrame.frameId + 1 }),
		};
	}

	/** On display, or last on display. */
	get lastPlayed(): { readonly frameId: number; readonly mediaMs: number } {
		return this.#lastPlayed;
	}

	/** What was sent of late. Throws `not_supported`. */
	get recording(): Recording {
		if (this.#recording === undefined) {
			throw new TurbocastError('not_supported', 'This server keeps no recordings; the operator turns them on with recording.minutes.');
		}
		return this.#recording;
	}

	/** Where another session can go on. Throws `invalid_state` before the first chunk is whole. */
	fork(change: ChangedInputs): Continuation {
		if (this.#latest === undefined) {
			throw new TurbocastError('invalid_state', 'There is nothing to fork before the first chunk is complete; wait for chunk.completed.');
		}
		const { snapshot, lastFrame } = this.#latest;
		return { request: { ...this.request, maxLeadMs: this.line.maxLeadMs }, snapshot, lastFrame, change, changes: this.changes.forkAt(snapshot.nextChunkIndex) };
	}

	requestKeyframe(viewer: Viewer): void {
		this.#keyframes.request(this.#encodes.of(viewer));
	}

	setMaxLead(maxLeadMs: number, eventId: string | undefined): void {
		this.line.setMaxLead(maxLeadMs);
		this.#tellPacing('requested', eventId);
	}

	/** Starts the two loops and the watch over them. Both end with the signal; the stream is closed with them. */
	play(sessionId: string, stream: EngineStream, signal: AbortSignal): void {
		this.#openLog(sessionId, stream.seed);
		const { engine, clock, onFrame, metrics } = this.#parts;
		const { send, sendOf, onLoss, onFailed, watching, isHeadless } = this.#events;
		if (this.#continuation !== undefined) {
			this.line.push(this.#continuation.lastFrame);
		}
		const stopListening = engine.onState((state) => this.#engineChanged(state));
		signal.addEventListener('abort', stopListening, { once: true });
		const generation = runGeneration({
			engine, clock, line: this.line, changes: this.changes, stream: this.streamOptions, wantsHash: this.#log !== undefined,
			onStarted: ({ chunkIndex, firstFrameId, seed, history }) => send({
				type: 'generation.started', chunk_index: chunkIndex, seed, media_ms: (firstFrameId * 1000) / engine.model.fps, history,
			}),
			onFrame: (frame) => {
				this.#frames += 1;
				onFrame?.(frame);
			},
			onChunk: (report) => this.#chunkCompleted(report),
			onLoss: (error) => this.#chunkLost(error),
		}, stream, signal);
		const playout = runPlayout({
			line: this.line, changes: this.changes, clock, watching, isHeadless, onLoss, keyframes: this.#keyframes, encodes: this.#encodes,
			encoderFor: (name) => this.encoders.for(name),
			onPlayed: ({ frame, mediaMs }) => {
				this.#lastPlayed = { frameId: frame.frameId, mediaMs };
			},
			onEncoded: (chunk, encode) => {
				// The smaller picture is for a network that is bad now; and where a way is narrow, nobody's picture is to wait for a key frame of the recording.
				if (!isSmall(encode) && this.#recording?.add(chunk, this.#lastPlayed.mediaMs) === true && watching().every(({ bandwidthBps }) => bandwidthBps === undefined)) {
					this.#keyframes.request(encode);
				}
			},
			onSent: (chunk, viewers, bitrateBps) => {
				metrics.frames.add(viewers, { outcome: 'sent' });
				metrics.bitrateKbps.observe(bitrateBps / 1000);
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
		await this.#log?.close();
	}

	#openLog(sessionId: string, seed: number): void {
		const { config, engine, log } = this.#parts;
		const { width, height } = this.request;
		if (config.sessionsFolder === undefined) {
			return;
		}
		try {
			this.#log = new SessionLog(config.sessionsFolder, {
				type: 'session', format: 1, session_id: sessionId, model: engine.model.name, model_sha256: modelHash(engine.model), profile: engine.profile, width, height, seed,
			}, log);
		} catch (error) {
			log.error({ err: error }, 'The record of the session cannot be begun; the session goes on without.');
		}
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
		const { width, height } = this.request;
		this.calendar.completed(report.chunkIndex, report.firstFrameId + report.frames);
		if (report.snapshot !== undefined && report.lastFrame !== undefined) {
			this.#latest = { snapshot: report.snapshot, lastFrame: report.lastFrame };
		}
		if (report.sha256 !== undefined) {
			this.#log?.write(chunkLine({
				chunk_index: report.chunkIndex, first_frame_id: report.firstFrameId, frames: report.frames, seed: report.seed, sha256: report.sha256,
				...(report.history === undefined ? {} : { history: report.history }),
			}, report.inputs));
		}
		admission.observe({ width, height, steps: report.inputs.steps }, report.timings);
		metrics.chunkCompleted(report);
		this.#events.send(chunkMessage(report, { modelFps: engine.model.fps, fps: this.line.pacer.fps }));
		this.#watchPace();
	}

	/** Says so when display has to slow down, and when it need not any more. */
	#watchPace(): void {
		const share = this.line.pacer.fps / this.#parts.engine.model.fps;
		if (!this.#isBehind && share < BEHIND_BELOW) {
			this.#isBehind = true;
			this.#tellPacing('behind');
		} else if (this.#isBehind && share >= RECOVERED_FROM) {
			this.#isBehind = false;
			this.#tellPacing('recovered');
		}
	}

	#tellPacing(reason: ServerMessages['pacing.updated']['reason'], eventId?: string): void {
		const { pacer, maxLeadMs } = this.line;
		this.#events.send({
			type: 'pacing.updated', ...(eventId === undefined ? {} : { event_id: eventId }), reason,
			fps: pacer.fps, lead_ms: pacer.leadMs(this.#parts.clock.nowMs()), max_lead_ms: maxLeadMs,
		});
	}
}
