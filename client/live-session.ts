/** One session: its state, its changes and its events, over as many connections as it takes. */
import { assertNever } from '../src/protocol/assert-never.js';
import { TurbocastError } from '../src/protocol/errors.js';
import type { StepCount } from '../src/protocol/limits.js';
import type { ClientMessage, ClientMessages, FrameMeta, ServerMessage, ServerMessages } from '../src/protocol/messages.js';
import { PendingChanges, type Change } from './change.js';
import { ClockSync, type ClockOffset } from './clock-sync.js';
import { ControlSocket, type TokenSource } from './control-socket.js';
import { abortable, deferred } from './deferred.js';
import { EventStream } from './event-stream.js';
import { PendingReplies } from './pending-replies.js';
import type { Platform, ShownFrame, VideoConnection, VideoSink } from './platform.js';
import type { ReconnectPolicy } from './reconnect.js';
import type { ResumeStore } from './resume-store.js';
import type { SessionEvent } from './session-event.js';
import { actionMessage, forkMessage, resetMessage, startMessage, updateMessage, type At, type ForkOptions, type Prompt, type PromptOptions, type RequestOptions, type StartOptions, type UpdateOptions } from './session-request.js';
import { isOver, type ModelInfo, type RunInfo, type SessionState } from './session-state.js';
import { TimelineBook } from './timeline-book.js';

export type SessionOptions = {
	readonly url: string;
	readonly token: TokenSource | undefined;
	readonly platform: Platform;
	readonly reconnect: ReconnectPolicy;
	readonly store: ResumeStore;
};

/** A video connection that fails is made anew this many times in a row. */
const MOST_VIDEO_CONNECTIONS = 4;
/** What is asked for while there is no connection waits for one: more than this is no longer what anybody wants. */
const MOST_WAITING_REQUESTS = 64;

const isRefusal = (error: TurbocastError): boolean => error.code === 'unauthorized' || error.code === 'token_expired';

/** Made by `connect`. */
export class LiveSession {
	/** What the server's model is, once connected. Rejects when the connection fails. */
	readonly created: Promise<ModelInfo>;
	/** As `created`, and the video connection is up too: a prompt now shows its picture soonest. */
	readonly ready: Promise<ModelInfo>;
	/** Resolves with the last state: `ended` or `failed`. Never rejects. */
	readonly ended: Promise<SessionState>;
	readonly #created = deferred<ModelInfo>();
	readonly #ready = deferred<ModelInfo>();
	readonly #ended = deferred<SessionState>();
	readonly #options: SessionOptions;
	readonly #sink: VideoSink;
	readonly #clock: ClockSync;
	readonly #book: TimelineBook;
	readonly #changes: PendingChanges;
	readonly #replies = new PendingReplies();
	readonly #events = new EventStream<SessionEvent>();
	#socket: ControlSocket;
	/** Settled when the present connection may carry requests. */
	#open = deferred<void>();
	#isOpen = false;
	#waitingRequests = 0;
	#connection: VideoConnection | undefined;
	#videoFailures = 0;
	#nextEvent = 1;
	#state: SessionState = { kind: 'connecting' };
	#greeting: ServerMessages['session.created'] | undefined;
	#run: RunInfo | undefined;
	/** What would start this session again, as it is now. */
	#start: ClientMessages['session.start'] | undefined;
	#resumeToken: string | undefined;
	/** Id of the message that is to bring the session back, until it is answered. */
	#resuming: string | undefined;
	#wasResumed = false;
	/** The last error that no message of ours caused: the reason of a close that follows it. */
	#lastError: TurbocastError | undefined;
	#hasServerEnded = false;
	#isTokenFresh = false;
	#attempt = 0;
	#lostAtMs = 0;
	#retryTimer: ReturnType<typeof setTimeout> | undefined;

	constructor(options: SessionOptions) {
		this.#options = options;
		this.created = this.#created.promise;
		this.ready = this.#ready.promise;
		this.ended = this.#ended.promise;
		this.#clock = new ClockSync({
			sendPing: (sentAtMs) => this.#socket.send({ type: 'ping', ts_ms: sentAtMs }),
			onSynced: (offset) => this.#events.emit({ type: 'clock.synced', offset }),
			onSilence: () => this.#lost(new TurbocastError('transport_failed', 'The server has not answered for a while; the network may be gone.')),
			nowMs: () => performance.now(),
		});
		this.#book = new TimelineBook(() => this.#clock.offset);
		this.#changes = new PendingChanges(this.#book);
		this.#sink = options.platform.openSink((frame) => this.#shown(frame));
		this.#resumeToken = options.store.load();
		this.#socket = this.#connect();
		globalThis.addEventListener?.('online', this.#onOnline);
	}

	get state(): SessionState {
		return this.#state;
	}

	/** Name of the session, the same over all connections; `undefined` before the first. */
	get id(): string | undefined {
		return this.#run?.session_id ?? this.#greeting?.session_id;
	}

	/** What was announced on the present connection: model and limits. */
	get greeting(): ServerMessages['session.created'] | undefined {
		return this.#greeting;
	}

	/** What runs; `undefined` before a place was found. */
	get run(): RunInfo | undefined {
		return this.#run;
	}

	/** The server's clock against `performance.now()`, or `undefined` before the first round trip. */
	get clock(): ClockOffset | undefined {
		return this.#clock.offset;
	}

	/** Events from now on; any number of readers. Ends with the session, or when the signal aborts. */
	events({ signal }: { readonly signal?: AbortSignal } = {}): AsyncIterableIterator<SessionEvent, undefined> {
		return this.#events.read(signal);
	}

	/** Statistics of the video connection (webrtc-stats), or `undefined` before there is one. */
	async stats(): Promise<RTCStatsReport | undefined> {
		return this.#connection?.getStats();
	}

	/** Starts generating. Resolves when the server has accepted the prompt. */
	async start(prompt: Prompt, options: StartOptions = {}): Promise<Change> {
		return this.#request((eventId) => {
			const message = startMessage(eventId, prompt, options);
			if (this.#start === undefined) {
				this.#start = message;
				this.#keep(this.#greeting?.resume_token);
				this.#sink.show();
				if (this.#state.kind === 'ready' || this.#state.kind === 'connecting' || this.#state.kind === 'reconnecting') {
					this.#enter({ kind: 'starting' });
				}
			}
			return message;
		}, options);
	}

	/** Changes the prompt while the video goes on. Resolves when the server has accepted it. */
	setPrompt(prompt: Prompt, options: PromptOptions = {}): Promise<Change> {
		return this.update({ ...options, prompt });
	}

	setSteps(steps: StepCount, options: RequestOptions = {}): Promise<Change> {
		return this.update({ ...options, steps });
	}

	/** Changes several things at once, all heard by the same chunk. */
	async update(options: UpdateOptions): Promise<Change> {
		return this.#request((eventId) => {
			const message = updateMessage(eventId, options);
			const { prompt, prompts, seed, parameters } = message;
			if (this.#start !== undefined) {
				const { prompt: before, prompts: mixBefore, ...rest } = this.#start;
				const words = prompt !== undefined ? { prompt } : prompts !== undefined ? { prompts } : { ...(before === undefined ? {} : { prompt: before }), ...(mixBefore === undefined ? {} : { prompts: mixBefore }) };
				this.#start = { ...rest, ...words, ...(seed === undefined ? {} : { seed }), ...(parameters === undefined ? {} : { parameters: { ...rest.parameters, ...parameters } }) };
			}
			return message;
		}, options);
	}

	/** Sets controls of the model, by name; each keeps its value until it is set again. */
	async act(axes: { readonly [control: string]: number }, options: RequestOptions & { readonly at?: At } = {}): Promise<Change> {
		return this.#request((eventId) => actionMessage(eventId, axes, options.at), options);
	}

	/** Forgets all that was seen and begins anew, with the prompt that is in use and this seed, or a new one. */
	async reset(options: RequestOptions & { readonly seed?: number } = {}): Promise<Change> {
		return this.#request((eventId) => resetMessage(eventId, options.seed), options);
	}

	/** Holds the picture. Resolves when it stands still. */
	async pause(options: RequestOptions = {}): Promise<void> {
		await this.#ask((event_id) => ({ type: 'session.pause', event_id }), options);
	}

	/** Goes on where `pause` stopped. */
	async play(options: RequestOptions = {}): Promise<void> {
		await this.#ask((event_id) => ({ type: 'session.resume', event_id }), options);
	}

	/** A second session that begins where this one is, under a token for `connect(url, { resumeToken })`. */
	async fork(options: ForkOptions = {}): Promise<ServerMessages['session.forked']> {
		return this.#ask((eventId) => forkMessage(eventId, options), options) as Promise<ServerMessages['session.forked']>;
	}

	/** Ends the session properly. Resolves with the last state. */
	async stop({ signal }: RequestOptions = {}): Promise<SessionState> {
		if (!isOver(this.#state)) {
			try {
				await abortable(this.#open.promise, signal);
				this.#socket.send({ type: 'session.stop' });
			} catch {
				this.close();
			}
		}
		return abortable(this.ended, signal);
	}

	/** Ends the session and drops the connection at once. Idempotent. */
	close(): void {
		if (isOver(this.#state)) {
			return;
		}
		try {
			this.#socket.send({ type: 'session.stop' });
		} catch {
			// Nobody there to hear it.
		}
		this.#finish(undefined);
	}

	async #request(message: (eventId: string) => ClientMessage, { signal }: RequestOptions): Promise<Change> {
		const askedAtMs = performance.now();
		await this.#whenOpen(signal);
		const eventId = this.#newEventId();
		const built = message(eventId);
		const change = this.#changes.add(eventId, built, askedAtMs);
		this.#send(built);
		return this.#untilAborted(change, signal, (reason) => this.#changes.refuse(eventId, reason));
	}

	async #ask(message: (eventId: string) => ClientMessage, { signal }: RequestOptions): Promise<ServerMessage> {
		await this.#whenOpen(signal);
		const eventId = this.#newEventId();
		const reply = this.#replies.add(eventId);
		this.#send(message(eventId));
		return this.#untilAborted(reply, signal, (reason) => this.#replies.refuse(eventId, reason));
	}

	async #untilAborted<T>(answer: Promise<T>, signal: AbortSignal | undefined, forget: (reason: Error) => void): Promise<T> {
		try {
			return await abortable(answer, signal);
		} catch (error) {
			forget(error instanceof Error ? error : new Error(String(error)));
			throw error;
		}
	}

	/** Throws when the session is over, or will not be open for too many already. */
	async #whenOpen(signal: AbortSignal | undefined): Promise<void> {
		if (this.#waitingRequests >= MOST_WAITING_REQUESTS) {
			throw new TurbocastError('rate_limited', 'Too many requests wait for the connection; ask again when the session is back.');
		}
		this.#waitingRequests += 1;
		try {
			await abortable(this.#open.promise, signal);
		} finally {
			this.#waitingRequests -= 1;
		}
	}

	/** A socket that is closing loses it; it is sent again when the session is back. */
	#send(message: ClientMessage): void {
		try {
			this.#socket.send(message);
		} catch {
			// Its close event follows.
		}
	}

	#newEventId(): string {
		return `e${this.#nextEvent++}-${Math.trunc(Math.random() * 0x7fff_ffff).toString(36)}`;
	}

	#connect(): ControlSocket {
		this.#hasServerEnded = false;
		this.#lastError = undefined;
		const { platform, url, token } = this.#options;
		const socket: ControlSocket = new ControlSocket(platform.WebSocket, url, token, {
			onMessage: (message) => socket === this.#socket && this.#receive(message),
			onClose: (error) => socket === this.#socket && this.#lost(this.#lastError ?? error),
		});
		return socket;
	}

	#receive(message: ServerMessage): void {
		this.#events.emit(message);
		if (message.type !== 'error') {
			this.#replies.received(message);
		}
		switch (message.type) {
			case 'session.created':
				return this.#greeted(message);
			case 'webrtc.answer':
				this.#connection?.answer(message.sdp).catch((error: unknown) => this.#videoFailed(error));
				return;
			case 'webrtc.candidate':
				// One candidate of several: the others may still do.
				this.#connection?.addCandidate(message.candidate).catch((error: unknown) => console.warn('turbocast: a candidate was refused.', error));
				return;
			case 'event.accepted':
				return this.#changes.accepted(message);
			case 'event.applied':
				return this.#changes.applied(message);
			case 'generation.started':
				return this.#enter({ kind: 'generating', chunkIndex: message.chunk_index - 1 });
			case 'chunk.completed':
				// Whatever was wrong before is over.
				this.#lastError = undefined;
				this.#book.chunk(message);
				// Chunks of the lead may end after the picture was held.
				return this.#enter({ kind: this.#state.kind === 'paused' ? 'paused' : 'generating', chunkIndex: message.chunk_index });
			case 'session.reconnecting':
				return this.#enter({ kind: 'restarting', message: message.message });
			case 'session.paused':
				return this.#enter({ kind: 'paused', chunkIndex: this.#chunkIndex });
			case 'session.resumed':
				return this.#enter({ kind: 'generating', chunkIndex: this.#chunkIndex });
			case 'error':
				return this.#failed(message);
			case 'session.ended':
				this.#hasServerEnded = true;
				if (message.reason === 'stopped') {
					this.#lastError = undefined;
				}
				return;
			case 'session.queued':
				return this.#enter({ kind: 'queued', position: message.position, queueSize: message.queue_size, estimatedWaitMs: message.estimated_wait_ms });
			case 'session.ready':
				return this.#placed(message);
			case 'pong':
				return message.ts_ms === undefined ? undefined : this.#clock.received(message.ts_ms, message.server_ms);
			case 'pacing.updated':
			case 'session.expiring':
			case 'session.forked':
			case 'session.shared':
			case 'session.joined':
			case 'session.members':
			case 'control.requested':
			case 'control.granted':
			case 'control.revoked':
				return;
			default:
				return assertNever(message);
		}
	}

	get #chunkIndex(): number {
		return 'chunkIndex' in this.#state ? this.#state.chunkIndex : -1;
	}

	/** A connection is up: the session is brought back, or may be started. */
	#greeted(message: ServerMessages['session.created']): void {
		this.#greeting = message;
		this.#attempt = 0;
		this.#isTokenFresh = false;
		this.#clock.start();
		const resumeToken = this.#resumeToken;
		if (resumeToken !== undefined) {
			const { event_id: eventId = this.#newEventId() } = this.#start ?? {};
			this.#resuming = eventId;
			this.#send({ ...(this.#start ?? { type: 'session.start' }), event_id: eventId, resume_token: resumeToken });
		} else {
			this.#start = undefined;
			this.#keep(message.resume_token);
		}
		this.#created.resolve(message.model);
		this.#openVideo();
		if (this.#resuming === undefined) {
			this.#opened();
		}
	}

	/** The present connection carries requests: first those that the one before may have lost. */
	#opened(): void {
		this.#resuming = undefined;
		for (const message of this.#changes.unanswered.filter(({ event_id: id }) => id !== this.#start?.event_id)) {
			this.#send(message);
		}
		this.#isOpen = true;
		this.#open.resolve();
	}

	#placed(message: RunInfo): void {
		this.#run = message;
		this.#keep(message.resume_token ?? this.#greeting?.resume_token);
		if (this.#resuming !== undefined) {
			this.#wasResumed = message.resumed;
			// Word of its acceptance may have been lost with the connection before.
			this.#changes.accepted({ type: 'event.accepted', event_id: this.#resuming, will_apply_at_chunk: 0, will_apply_at_media_ms: 0, unknown_words: [] });
			this.#start ??= { type: 'session.start', prompts: message.prompts, seed: message.seed };
			this.#opened();
		}
		this.#sink.show();
		if (message.resumed) {
			this.#enter({ kind: message.is_paused ? 'paused' : 'generating', chunkIndex: this.#chunkIndex });
		} else if (this.#state.kind !== 'generating') {
			this.#enter({ kind: 'starting' });
		}
	}

	#keep(resumeToken: string | undefined): void {
		this.#resumeToken = this.#start === undefined && this.#run === undefined ? undefined : resumeToken;
		this.#options.store.save(this.#resumeToken);
	}

	#failed(message: ServerMessages['error']): void {
		const error = new TurbocastError(message.code, message.message, { param: message.param, retryAfterMs: message.retry_after_ms });
		const { event_id: eventId } = message;
		if (eventId === undefined) {
			this.#lastError = error;
			return;
		}
		this.#replies.refuse(eventId, error);
		this.#changes.refuse(eventId, error);
		if (eventId === this.#resuming) {
			// Too late to go on with that session; the connection is there for another.
			this.#notStarted();
			this.#opened();
		} else if (eventId === this.#start?.event_id && (this.#state.kind === 'starting' || this.#state.kind === 'queued')) {
			this.#notStarted();
		}
	}

	#notStarted(): void {
		this.#start = undefined;
		this.#run = undefined;
		this.#keep(undefined);
		const { model } = this.#greeting ?? {};
		if (model !== undefined) {
			this.#enter({ kind: 'ready', model });
		}
	}

	/** Sets up the video connection; a prompt may come before it is done. */
	#openVideo(): void {
		this.#connection?.close();
		const connection: VideoConnection = this.#sink.open(this.#greeting?.ice_servers ?? [], {
			onOffer: (sdp) => connection === this.#connection && this.#send({ type: 'webrtc.offer', sdp }),
			onCandidate: (candidate) => connection === this.#connection && this.#send({ type: 'webrtc.candidate', candidate }),
			onConnected: () => connection === this.#connection && this.#videoConnected(),
			onFailed: (error) => connection === this.#connection && this.#videoFailed(error),
			onFrameMeta: (meta) => this.#frameMeta(meta),
		});
		this.#connection = connection;
		connection.offer().catch((error: unknown) => connection === this.#connection && this.#videoFailed(error));
	}

	#videoConnected(): void {
		this.#videoFailures = 0;
		const { model } = this.#greeting ?? {};
		if (model === undefined) {
			return;
		}
		this.#ready.resolve(model);
		if (this.#start === undefined && this.#resuming === undefined && (this.#state.kind === 'connecting' || this.#state.kind === 'reconnecting')) {
			this.#enter({ kind: 'ready', model });
		}
	}

	#videoFailed(cause: unknown): void {
		if (isOver(this.#state) || this.#state.kind === 'reconnecting') {
			return;
		}
		this.#videoFailures += 1;
		if (this.#videoFailures < MOST_VIDEO_CONNECTIONS) {
			this.#openVideo();
			return;
		}
		this.#finish(new TurbocastError('transport_failed', 'The video connection could not be made; a firewall may block UDP between this machine and the server.', { cause }));
	}

	#frameMeta(meta: FrameMeta): void {
		this.#sink.announced(meta);
		this.#book.meta(meta);
		if (this.#wasResumed) {
			this.#changes.resumed(meta);
		}
		this.#events.emit(meta);
	}

	#shown(frame: ShownFrame): void {
		this.#changes.shown(frame);
		const known = this.#book.frame(frame);
		this.#events.emit({
			type: 'frame.displayed', rtp_timestamp: frame.rtpTimestamp, at_ms: frame.atMs, presented_frames: frame.presentedFrames,
			meta: known?.meta, timeline: known?.timeline,
		});
	}

	/** The connection is gone: it is made again when that can help. */
	#lost(error: TurbocastError | undefined): void {
		if (isOver(this.#state)) {
			return;
		}
		this.#socket.close();
		this.#clock.stop();
		const wasConnected = this.#greeting !== undefined;
		const isGone = this.#hasServerEnded && this.#start !== undefined;
		if (error === undefined || isGone) {
			this.#finish(error);
			return;
		}
		if (this.#isOpen) {
			this.#isOpen = false;
			this.#open = deferred();
		}
		this.#replies.end(error);
		this.#resuming = undefined;
		if (isRefusal(error) && typeof this.#options.token === 'function' && !this.#isTokenFresh) {
			// Client secrets run out; one that was made a moment ago and is refused as well will not do the third time.
			this.#isTokenFresh = true;
			this.#socket = this.#connect();
			return;
		}
		const nowMs = performance.now();
		if (this.#attempt === 0) {
			this.#lostAtMs = nowMs;
		}
		const delayMs = this.#options.reconnect({ attempt: this.#attempt, sinceMs: nowMs - this.#lostAtMs, error, wasConnected });
		if (delayMs === undefined) {
			this.#finish(error);
			return;
		}
		this.#enter({ kind: 'reconnecting', attempt: this.#attempt, delayMs, error });
		this.#attempt += 1;
		this.#retryTimer = setTimeout(() => this.#retry(), delayMs);
	}

	#retry(): void {
		clearTimeout(this.#retryTimer);
		this.#retryTimer = undefined;
		this.#socket = this.#connect();
	}

	/** A network is back: no reason to wait longer. */
	readonly #onOnline = (): void => {
		if (this.#state.kind === 'reconnecting' && this.#retryTimer !== undefined) {
			this.#retry();
		}
	};

	#enter(state: SessionState): void {
		if (isOver(this.#state)) {
			return;
		}
		this.#state = state;
		this.#events.emit({ type: 'state.changed', state });
	}

	/** The end, by an error or as wished. Idempotent. */
	#finish(error: TurbocastError | undefined): void {
		if (isOver(this.#state)) {
			return;
		}
		this.#enter(error === undefined ? { kind: 'ended', reason: 'stopped' } : { kind: 'failed', error });
		const reason = error ?? new TurbocastError('invalid_state', 'The session has ended; connect again.');
		clearTimeout(this.#retryTimer);
		globalThis.removeEventListener?.('online', this.#onOnline);
		this.#options.store.save(undefined);
		this.#clock.stop();
		this.#socket.close();
		this.#changes.end(reason);
		this.#replies.end(reason);
		this.#open.reject(reason);
		this.#created.reject(reason);
		this.#ready.reject(reason);
		this.#connection?.close();
		this.#sink.close();
		this.#ended.resolve(this.#state);
		this.#events.close();
	}
}
