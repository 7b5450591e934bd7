/**
 * One connection's session, from `session.created` to `session.ended`. This is the one file that knows the whole line: engine
 * stream → generation loop → frame line → playout loop → encoder → viewer. Each part has a file of its own; here they are joined and ended.
 */
import type { RawFrame } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import type { Engine, EngineState } from '../engine/engine.js';
import type { Encoders } from '../media/encoder.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_MESSAGE_BYTES, MAX_PROMPT_LENGTH, MAX_PROMPTS, PROTOCOL_VERSION } from '../protocol/limits.js';
import { errorMessage, type ClientMessage, type ClientMessages, type EndReason, type ExpiringReason, type ServerMessage } from '../protocol/messages.js';
import { chunkMs } from '../model/spec.js';
import type { Transport } from '../transport/transport.js';
import type { Admission, QueuePlace, Ticket } from './admission.js';
import type { Grant } from './auth.js';
import { ChangeLog, type CarriedChange, type ChangedInputs } from './change-log.js';
import { EncoderShelf } from './encoder-shelf.js';
import { FrameLine } from './frame-line.js';
import { runGeneration, type ChunkReport } from './generation-loop.js';
import type { ModelInfo } from './model-info.js';
import { runPlayout, type PlayedFrame } from './playout-loop.js';
import { RateLimit } from './rate-limit.js';
import type { ServerConfig } from './server-config.js';
import type { ServerMetrics } from './server-metrics.js';
import { newSessionId } from './session-id.js';
import { checkControls, checkSteps, resolveStart, type StartRequest } from './start-request.js';
import { ViewerSlot } from './viewer-slot.js';

export type SessionParts = {
	readonly config: ServerConfig;
	readonly engine: Engine;
	readonly encoders: Encoders;
	readonly transport: Transport;
	readonly admission: Admission;
	readonly model: ModelInfo;
	readonly metrics: ServerMetrics;
	readonly log: Log;
	readonly clock: Clock;
	/** Unsigned 32 bits. */
	readonly randomUint32: () => number;
	readonly onFrame?: ((frame: RawFrame) => void) | undefined;
};

/** Who is at the other end. */
export type Visitor = { readonly grant: Grant; readonly address: string };

/** The way to the client. */
export type SessionPeer = {
	readonly send: (message: ServerMessage) => void;
	/** After the last message; 1000 when the session ended as the client wished. */
	readonly close: (closeCode: number, reason: string) => void;
};

/** What exists once a session was started. */
type Run = {
	readonly request: StartRequest;
	readonly ticket: Ticket;
	readonly line: FrameLine;
	readonly changes: ChangeLog;
	readonly encoders: EncoderShelf;
	frames: number;
};

type SessionState =
	| { readonly kind: 'waiting' }
	/** In the line for a place; changes are taken already. */
	| { readonly kind: 'queued'; readonly run: Run }
	/** The engine opens the stream. */
	| { readonly kind: 'starting'; readonly run: Run }
	| { readonly kind: 'generating'; readonly run: Run }
	| { readonly kind: 'ended'; readonly reason: EndReason };

export type SessionStateKind = SessionState['kind'];
/** All but the last, in which a session is not counted any more. */
export const SESSION_STATES = ['waiting', 'queued', 'starting', 'generating'] as const satisfies readonly SessionStateKind[];

/** What a client secret for viewing alone may not do. */
const CONTROLLING: ReadonlySet<ClientMessage['type']> = new Set([
	'session.start', 'session.update', 'input.action', 'session.pause', 'session.resume', 'session.reset', 'session.fork', 'session.share', 'session.stop',
] as const);
const DEFAULT_OFFERS_PER_MINUTE = 30;

export class Session {
	readonly id = newSessionId();
	readonly #parts: SessionParts;
	readonly #peer: SessionPeer;
	readonly #visitor: Visitor;
	readonly #maxMs: number;
	readonly #log: Log;
	readonly #viewers: ViewerSlot;
	readonly #offers: RateLimit;
	/** Aborts everything that this session runs. */
	readonly #life = new AbortController();
	/** Aborts the timer that runs while nobody has started, or nobody watches. */
	#timeout = new AbortController();
	#state: SessionState = { kind: 'waiting' };
	#ending: Promise<void> | undefined;

	constructor(parts: SessionParts, peer: SessionPeer, visitor: Visitor) {
		this.#parts = parts;
		this.#peer = peer;
		this.#visitor = visitor;
		this.#maxMs = Math.min(parts.config.sessionMaxMs, visitor.grant.maxSessionMs);
		this.#log = parts.log.child({ session: this.id });
		this.#offers = new RateLimit(parts.config.offersPerMinute ?? DEFAULT_OFFERS_PER_MINUTE, 60_000, parts.clock.nowMs());
		this.#viewers = new ViewerSlot(parts.transport, {
			onWatching: () => this.#watchingChanged(),
			onKeyframeNeeded: (viewer) => this.#run?.encoders.requestKeyframe(viewer.codec),
		});
	}

	get hasEnded(): boolean {
		return this.#state.kind === 'ended';
	}

	get stateKind(): SessionStateKind {
		return this.#state.kind;
	}

	/** Started, and not ended. */
	get isRunning(): boolean {
		return this.#run !== undefined;
	}

	/** Tells the client that the session will end, and when. */
	warnOfEnd(reason: ExpiringReason, secondsLeft: number): void {
		this.#peer.send({ type: 'session.expiring', reason, seconds_left: secondsLeft });
	}

	get #run(): Run | undefined {
		return this.#state.kind === 'waiting' || this.#state.kind === 'ended' ? undefined : this.#state.run;
	}

	/** Sends `session.created`; until a start, the start timeout runs. */
	greet(): void {
		const { config, model } = this.#parts;
		this.#peer.send({
			type: 'session.created', session_id: this.id, protocol_version: PROTOCOL_VERSION, model,
			ice_servers: config.iceServers.map((server) => ({ ...server })),
			resume_token: this.id,
			limits: {
				max_message_bytes: MAX_MESSAGE_BYTES, max_prompt_length: MAX_PROMPT_LENGTH, max_prompts: MAX_PROMPTS, max_session_ms: this.#maxMs,
				idle_timeout_ms: config.idleTimeoutMs, start_timeout_ms: config.startTimeoutMs, resume_grace_ms: 0, max_lead_ms: config.maxLeadMs,
			},
		});
		this.#awaitStart();
	}

	#awaitStart(): void {
		const { startTimeoutMs } = this.#parts.config;
		this.#startTimer(startTimeoutMs, () => this.#fail(
			new TurbocastError('start_timeout', `No session was started within ${Math.round(startTimeoutMs / 1000)} seconds; connect again when there is a prompt.`), 'idle'));
	}

	/** Does what the message asks. Throws what the client is to be told; the session goes on. */
	async handle(message: ClientMessage): Promise<void> {
		if (!this.#visitor.grant.mayControl && CONTROLLING.has(message.type)) {
			throw new TurbocastError('forbidden', `This client secret is for watching only; ${message.type} needs one with the action "control".`);
		}
		switch (message.type) {
			case 'session.start':
				return this.#start(message);
			case 'session.update':
				return this.#update(message);
			case 'input.action':
				return this.#change(message.event_id, 'input.action', { controls: checkControls(this.#parts.engine.model, message.axes) });
			case 'session.stop':
				void this.end('stopped');
				return;
			case 'webrtc.offer':
				return this.#offer(message);
			case 'webrtc.candidate':
				return this.#viewers.addCandidate(message.candidate);
			case 'session.pause':
			case 'session.resume':
			case 'session.reset':
			case 'session.fork':
			case 'session.share':
			case 'control.request':
			case 'control.grant':
			case 'control.release':
				throw new TurbocastError('not_supported', `This server does not do ${message.type} yet.`);
			case 'ping':
				this.#peer.send({ ...message, type: 'pong', server_ms: this.#parts.clock.nowMs() });
				return;
			default:
				return assertNever(message);
		}
	}

	/**
	 * Ends the session: says so, gives the place back at once, then closes viewer, encoders and stream. `error` is sent first
	 * when there is one, and names the close code. Idempotent.
	 */
	end(reason: EndReason, error?: TurbocastError): Promise<void> {
		this.#ending ??= this.#end(reason, error);
		return this.#ending;
	}

	async #end(reason: EndReason, error: TurbocastError | undefined): Promise<void> {
		const run = this.#run;
		this.#state = { kind: 'ended', reason };
		if (error !== undefined) {
			this.#tell(error);
		}
		const frames = run?.frames ?? 0;
		const { model, metrics } = this.#parts;
		this.#peer.send({ type: 'session.ended', session_id: this.id, reason, generated_ms: (frames * 1000) / model.fps, frames });
		run?.ticket.release();
		this.#life.abort(new TurbocastError('invalid_state', 'The session has ended.'));
		this.#timeout.abort();
		this.#peer.close(error?.entry.closeCode ?? 1000, reason);
		if (run !== undefined) {
			metrics.sessions.add(1, { reason });
			this.#log.info({ reason, frames, code: error?.code }, 'The session has ended.');
		}
		const closings = await Promise.allSettled([this.#viewers.close(`session ended: ${reason}`), run?.encoders.close()]);
		for (const closing of closings) {
			if (closing.status === 'rejected') {
				this.#log.error({ err: closing.reason as unknown }, 'A part of the session did not close.');
			}
		}
	}

	async #start(message: ClientMessages['session.start']): Promise<void> {
		const { config, engine, admission, clock, encoders, metrics } = this.#parts;
		if (this.#state.kind !== 'waiting') {
			throw new TurbocastError('invalid_state', 'This session is already started; change it with session.update, or open another connection.');
		}
		const receivedAtMs = clock.nowMs();
		const request = resolveStart(message, engine.model, config.defaultSteps, this.#parts.randomUint32);
		const { width, height, seed, inputs } = request;
		const run: Run = {
			request,
			ticket: admission.enter({
				keyId: this.#visitor.grant.keyId, address: this.#visitor.address, width, height, steps: inputs.steps,
				allowFewerSteps: message.parameters?.allow_fewer_steps ?? false,
				onQueued: (place) => this.#queued(place),
			}),
			line: new FrameLine({ model: engine.model, maxLeadMs: config.maxLeadMs, firstRtpTimestamp: this.#parts.randomUint32(), clock }),
			changes: new ChangeLog(inputs, Object.fromEntries(engine.model.controls.map((control) => [control.name, control.default]))),
			encoders: new EncoderShelf(encoders, { width, height, fps: engine.model.fps, bitrateBps: config.bitrateBps }),
			frames: 0,
		};
		run.changes.add({ eventId: message.event_id, receivedAtMs }, {});
		if (run.ticket.isWaiting && !(await this.#waitInLine(run))) {
			return;
		}
		this.#state = { kind: 'starting', run };
		metrics.queueMs.observe(clock.nowMs() - receivedAtMs);
		run.changes.adjust({ steps: run.ticket.steps });
		engine.prepare(run.changes.inputs.prompt);
		const { viewer } = this.#viewers;
		if (viewer !== undefined) {
			// Opened while the first chunk is being made; a failure is met again, and handled, at the first frame.
			run.encoders.for(viewer.codec).catch(() => undefined);
		}
		const { signal } = this.#life;
		try {
			const stream = await engine.openStream({ seed, width, height });
			if (signal.aborted) {
				return await stream.close();
			}
			this.#state = { kind: 'generating', run };
			this.#accept(message.event_id, run, inputs.prompt);
			this.#peer.send({
				type: 'session.ready', session_id: this.id, model: engine.model.name, seed, steps: run.changes.inputs.steps, width, height,
				cold_start_ms: engine.state.kind === 'ready' ? engine.state.coldStartMs : 0,
				resumed: false, is_paused: false, prompts: [{ text: run.changes.inputs.prompt, weight: 1 }], controls: run.changes.inputs.controls, max_lead_ms: config.maxLeadMs, expires_in_ms: this.#maxMs,
			});
			this.#log.info({ prompt: inputs.prompt, seed, steps: run.changes.inputs.steps, width, height }, 'The session has started.');
			this.#play(run, stream);
		} catch (error) {
			if (!signal.aborted) {
				run.ticket.release();
				this.#state = { kind: 'waiting' };
				this.#awaitStart();
				await run.encoders.close();
				throw error;
			}
		}
	}

	/** False when the session ended in the line. Throws why there will be no place. */
	async #waitInLine(run: Run): Promise<boolean> {
		const { signal } = this.#life;
		this.#state = { kind: 'queued', run };
		// Whoever waits for us is not late.
		this.#timeout.abort();
		const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
		try {
			await Promise.race([run.ticket.admitted, ended]);
		} catch (error) {
			if (!signal.aborted) {
				this.#state = { kind: 'waiting' };
				this.#awaitStart();
				throw error;
			}
		}
		return !signal.aborted;
	}

	#queued({ position, queueSize, estimatedWaitMs }: QueuePlace): void {
		this.#peer.send({ type: 'session.queued', session_id: this.id, position, queue_size: queueSize, estimated_wait_ms: estimatedWaitMs });
	}

	/** Starts the two loops and the watch over them. */
	#play(run: Run, stream: Awaited<ReturnType<Engine['openStream']>>): void {
		const { engine, clock, onFrame, metrics } = this.#parts;
		const { signal } = this.#life;
		const { width, height, seed } = run.request;
		const stopListening = engine.onState((state) => this.#engineChanged(state));
		signal.addEventListener('abort', stopListening, { once: true });
		const generation = runGeneration({
			engine, clock, line: run.line, changes: run.changes, stream: { seed, width, height },
			onStarted: (chunkIndex, firstFrameId) => this.#peer.send({
				type: 'generation.started', chunk_index: chunkIndex, seed, media_ms: (firstFrameId * 1000) / engine.model.fps, history: chunkIndex === 0 ? 'new' : 'lost',
			}),
			onFrame: (frame) => {
				run.frames += 1;
				onFrame?.(frame);
			},
			onChunk: (report) => this.#chunkCompleted(report, run),
			onLoss: (error) => this.#chunkLost(error),
		}, stream, signal);
		const playout = runPlayout({
			line: run.line, changes: run.changes, clock,
			encoderFor: (codec) => run.encoders.for(codec),
			watching: () => this.#viewers.watching,
			isHeadless: () => !this.#viewers.wasOffered,
			onSent: ({ chunk }) => {
				metrics.frames.add(1, { outcome: 'sent' });
				metrics.encodeMs.observe(chunk.encodeMs);
			},
			onDropped: () => metrics.frames.add(1, { outcome: 'dropped' }),
			onApplied: (changes, played) => this.#applied(changes, played),
			onLoss: (error) => this.#tell(error),
		}, signal);
		for (const loop of [generation, playout]) {
			loop.catch((error: unknown) => this.#fail(TurbocastError.from(error), 'failed'));
		}
		clock.sleep(this.#maxMs, signal).then(
			() => this.#fail(new TurbocastError('max_duration', `The session reached its longest duration of ${Math.round(this.#maxMs / 1000)} seconds; start another one.`), 'max_duration'),
			() => undefined,
		);
		this.#watchingChanged();
	}

	#update(message: ClientMessages['session.update']): void {
		const { prompt } = message;
		for (const field of ['prompts', 'transition', 'seed', 'pacing', 'at'] as const) {
			if (message[field] !== undefined) {
				throw new TurbocastError('not_supported', `This server does not know \`${field}\` in session.update yet.`, { param: field });
			}
		}
		const steps = message.parameters?.steps;
		if (prompt === undefined && steps === undefined) {
			throw new TurbocastError('invalid_request', 'session.update changes nothing: give a `prompt` or `parameters.steps`.');
		}
		this.#change(message.event_id, 'session.update', { prompt, steps: steps === undefined ? undefined : checkSteps(this.#parts.engine.model, steps) });
	}

	/** Takes a change for the next chunk and says so. */
	#change(eventId: string | undefined, type: string, inputs: ChangedInputs): void {
		const run = this.#run;
		if (run === undefined) {
			throw new TurbocastError('invalid_state', `Send session.start before ${type}.`);
		}
		if (inputs.steps !== undefined) {
			run.ticket.useSteps(inputs.steps);
		}
		run.changes.add({ eventId, receivedAtMs: this.#parts.clock.nowMs() }, inputs);
		if (inputs.prompt !== undefined) {
			this.#parts.engine.prepare(inputs.prompt);
		}
		this.#accept(eventId, run, inputs.prompt);
	}

	#accept(eventId: string | undefined, run: Run, prompt: string | undefined): void {
		const { model } = this.#parts.engine;
		this.#peer.send({
			type: 'event.accepted', ...(eventId === undefined ? {} : { event_id: eventId }),
			will_apply_at_chunk: run.changes.nextChunkIndex,
			will_apply_at_media_ms: run.changes.nextChunkIndex * chunkMs(model),
			unknown_words: prompt === undefined ? [] : this.#parts.engine.unknownWords(prompt),
		});
	}

	async #offer(message: ClientMessages['webrtc.offer']): Promise<void> {
		const retryAfterMs = this.#offers.take(this.#parts.clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', 'Too many offers; one connection needs only a few.', { retryAfterMs });
		}
		const accepting = this.#viewers.accept(message.sdp);
		// The first offer ends a headless playout: from now on the frames wait for the viewer.
		this.#watchingChanged();
		const sdp = await accepting.catch((error: unknown) => {
			this.#watchingChanged();
			throw error;
		});
		this.#peer.send({ type: 'webrtc.answer', ...(message.event_id === undefined ? {} : { event_id: message.event_id }), sdp });
	}

	/**
	 * The viewer came or went: without one, playout stops, generation stops at the lead, and the idle timeout runs. In a session
	 * that never had one (a client that only steers and listens) playout goes on unseen, so that its events come in time.
	 */
	#watchingChanged(): void {
		const run = this.#run;
		if (run === undefined || this.#state.kind === 'queued') {
			return;
		}
		const { watching } = this.#viewers;
		run.line.setWatched(watching !== undefined || !this.#viewers.wasOffered);
		if (watching !== undefined) {
			this.#timeout.abort();
			run.encoders.requestKeyframe(watching.codec);
			return;
		}
		const { idleTimeoutMs } = this.#parts.config;
		this.#startTimer(idleTimeoutMs, () => this.#fail(
			new TurbocastError('idle_timeout', `Nobody was watching for ${Math.round(idleTimeoutMs / 1000)} seconds; connect again to go on.`), 'idle'));
	}

	#engineChanged(state: EngineState): void {
		if (state.kind === 'restarting') {
			this.#parts.metrics.engineLosses.add();
			const { code, message } = new TurbocastError('engine_failed', 'The engine stopped and is being restarted; the video goes on by itself in a moment.', { cause: state.error });
			this.#peer.send({ type: 'session.reconnecting', code, message });
			this.#tell(new TurbocastError(code, message));
		} else if (state.kind === 'failed') {
			this.#fail(state.error, 'failed');
		}
	}

	/** The engine's own end was already told by its change of state. */
	#chunkLost(error: TurbocastError): void {
		this.#log.warn({ code: error.code, err: error }, 'A chunk was lost; generation goes on with the next.');
		if (error.code !== 'engine_failed') {
			this.#tell(error);
		}
	}

	#chunkCompleted(report: ChunkReport, { request: { width, height, seed }, line }: Run): void {
		const { metrics, engine, admission } = this.#parts;
		const { timings, steps } = report;
		admission.observe({ width, height, steps }, timings);
		metrics.chunkCompleted(report);
		this.#peer.send({
			type: 'chunk.completed',
			chunk_index: report.chunkIndex, frames: report.frames, first_frame_id: report.firstFrameId,
			media_ms: (report.firstFrameId * 1000) / engine.model.fps, steps, seed,
			timings: { queue_ms: timings.queueMs, text_ms: timings.textMs, recache_ms: 0, denoise_ms: timings.denoiseMs, clean_ms: timings.cleanMs, decode_ms: timings.decodeMs },
			t_started_ms: report.startedAtMs, t_completed_ms: report.startedAtMs + report.generateMs,
			lead_ms: report.leadMs,
			fps: line.pacer.fps,
			deadline_missed: report.deadlineMissed,
		});
	}

	#applied(changes: readonly CarriedChange[], { frame, rtpTimestamp, mediaMs, takenAtMs }: PlayedFrame): void {
		const nowMs = this.#parts.clock.nowMs();
		for (const change of changes) {
			const serverLatencyMs = nowMs - change.receivedAtMs;
			this.#parts.metrics.changeMs.observe(serverLatencyMs);
			this.#peer.send({
				type: 'event.applied', ...(change.eventId === undefined ? {} : { event_id: change.eventId }),
				chunk_index: frame.chunkIndex, frame_id: frame.frameId, rtp_timestamp: rtpTimestamp, media_ms: mediaMs,
				server_latency_ms: serverLatencyMs,
				timings: {
					wait_ms: change.startedAtMs - change.receivedAtMs, generate_ms: frame.generatedAtMs - change.startedAtMs,
					hold_ms: takenAtMs - frame.generatedAtMs, encode_ms: nowMs - takenAtMs,
				},
			});
		}
	}

	#tell(error: TurbocastError): void {
		this.#parts.metrics.errors.add(1, { code: error.code });
		this.#peer.send(errorMessage(error));
	}

	#fail(error: TurbocastError, reason: EndReason): void {
		if (error.code === 'internal') {
			this.#log.error({ err: error }, 'The session failed.');
		}
		void this.end(reason, error);
	}

	#startTimer(delayMs: number, onElapsed: () => void): void {
		this.#timeout.abort();
		this.#timeout = new AbortController();
		this.#parts.clock.sleep(delayMs, this.#timeout.signal).then(onElapsed, () => undefined);
	}
}
