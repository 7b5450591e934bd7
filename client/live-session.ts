/**
 * One session: its state, its changes and its events, over as many connections as it takes. Long, for it is one subject: what every message means for
 * the state and for whoever waits. The sockets, the video, the clocks and the changes have files of their own.
 */
import { assertNever } from '../src/protocol/assert-never.js';
import type { Finding } from '../src/protocol/diagnoses.js';
import { TurbocastError } from '../src/protocol/errors.js';
import type { StepCount } from '../src/protocol/limits.js';
import type { ClientMessage, ClientMessages, FrameMeta, ServerMessage, ServerMessages } from '../src/protocol/messages.js';
import { PendingChanges, type Change } from './change.js';
import { ClockSync, type ClockOffset } from './clock-sync.js';
import { ControlLink } from './control-link.js';
import type { TokenSource } from './control-socket.js';
import { abortable, deferred, untilAborted } from './deferred.js';
import { diagnose, type DiagnosisOptions } from './diagnosis.js';
import { EventStream } from './event-stream.js';
import { Gate } from './gate.js';
import { Liveness } from './liveness.js';
import { PendingReplies } from './pending-replies.js';
import type { Platform, ShownFrame, VideoSink } from './platform.js';
import type { ReconnectPolicy } from './reconnect.js';
import { fetchRecording, type RecordingSpan } from './recording.js';
import type { ResumeStore } from './resume-store.js';
import type { SessionEvent } from './session-event.js';
import { actionMessage, forkMessage, resetMessage, shareMessage, startAfter, startMessage, updateMessage, type At, type ForkOptions, type Prompt, type PromptOptions, type RequestOptions, type ShareOptions, type StartOptions, type UpdateOptions } from './session-request.js';
import { chunkIndexOf, isOver, type ModelInfo, type RunInfo, type SessionState } from './session-state.js';
import { TimelineBook } from './timeline-book.js';
import { VideoLink } from './video-link.js';
import type { TransportChoice, TransportState } from './video-transport.js';

export type SessionOptions = {
	readonly url: string;
	readonly token: TokenSource | undefined;
	readonly platform: Platform;
	readonly reconnect: ReconnectPolicy;
	readonly store: ResumeStore;
	readonly transport: TransportChoice | undefined;
};

const OVER = 'The session has ended; connect again.';

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
	readonly #video: VideoLink;
	readonly #clock: ClockSync;
	readonly #liveness: Liveness;
	readonly #book: TimelineBook;
	readonly #changes: PendingChanges;
	readonly #replies = new PendingReplies();
	readonly #gate = new Gate();
	readonly #events = new EventStream<SessionEvent>();
	readonly #link: ControlLink;
	#nextEvent = 1;
	#state: SessionState = { kind: 'connecting' };
	#greeting: ServerMessages['session.created'] | undefined;
	#run: RunInfo | undefined;
	#members: ServerMessages['session.members'] | undefined;
	/** What would start this session again, as it is now. */
	#start: ClientMessages['session.start'] | undefined;
	#resumeToken: string | undefined;
	/** Id of the message that is to bring the session back, until it is answered. */
	#resuming: string | undefined;
	#wasResumed = false;
	/** The last error that no message of ours caused: the reason of a close that follows it. */
	#lastError: TurbocastError | undefined;
	/** The answer to the offer of video, where it was an error. */
	#offerError: TurbocastError | undefined;
	#hasServerEnded = false;
	#isGreeted = false;

	constructor(options: SessionOptions) {
		this.#options = options;
		this.created = this.#created.promise;
		this.ready = this.#ready.promise;
		this.ended = this.#ended.promise;
		this.#clock = new ClockSync({
			sendPing: (sentAtMs) => this.#link.send({ type: 'ping', ts_ms: sentAtMs }),
			onSynced: (offset) => this.#events.emit({ type: 'clock.synced', offset }),
			nowMs: () => performance.now(),
		});
		this.#liveness = new Liveness({
			ask: () => this.#clock.ping(),
			onSilence: () => this.#lost(new TurbocastError('transport_failed', 'The server has not answered for a while; the network may be gone.')),
			nowMs: () => performance.now(),
		});
		this.#book = new TimelineBook(() => this.#clock.offset);
		this.#changes = new PendingChanges(this.#book);
		this.#sink = options.platform.openSink((frame) => this.#shown(frame));
		this.#video = new VideoLink(this.#sink, options.transport ?? 'auto', options.platform.hasWebRtc, {
			send: (message) => this.#send(message),
			onConnected: () => this.#videoConnected(),
			onDisturbed: () => this.#liveness.doubt(),
			onFrameMeta: (meta) => this.#frameMeta(meta),
			onTransport: (state) => this.#events.emit({ type: 'transport.changed', ...state }),
			onFailed: (error) => this.#finish(error),
		});
		this.#resumeToken = options.store.load();
		const { url, token, platform, reconnect } = options;
		this.#link = new ControlLink({
			url, token, Socket: platform.WebSocket, reconnect,
			onHeard: () => {
				this.#liveness.heard();
				this.#video.heard();
			},
			onMessage: (message) => this.#receive(message),
			onUnit: (unit) => this.#video.unit(unit), onFrameMeta: (meta) => this.#video.socketMeta(meta),
			onClose: (error) => this.#lost(this.#lastError ?? error),
			onWaiting: (waiting) => this.#enter({ kind: 'reconnecting', ...waiting }),
		});
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

	/** How the picture comes, and why not by a better way. Told by `transport.changed` whenever it changes. */
	get transport(): TransportState {
		return this.#video.state;
	}

	/** The server's clock against `performance.now()`, or `undefined` before the first round trip. */
	get clock(): ClockOffset | undefined {
		return this.#clock.offset;
	}

	/** Events from now on; any number of readers. Ends with the session, or when the signal aborts. */
	events({ signal }: { readonly signal?: AbortSignal } = {}): AsyncIterableIterator<SessionEvent, undefined> {
		return this.#events.read(signal);
	}

	/** Statistics of the WebRTC connection (webrtc-stats), or `undefined` while there is none. */
	async stats(): Promise<RTCStatsReport | undefined> {
		return this.#video.stats();
	}

	/** Which hop between here and the picture fails, and what to do about it: for the support of an application, and its users. Takes ten seconds at most. */
	async diagnose(options: DiagnosisOptions = {}): Promise<Finding[]> {
		return diagnose({
			url: this.#options.url, state: this.#state, transport: this.transport, clock: this.clock, iceServers: this.#greeting?.ice_servers,
			report: await this.#video.report(), offerError: this.#offerError,
		}, options);
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
			this.#start &&= startAfter(this.#start, message);
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

	/** A token with which others see this session, or steer it too (`guest`): for `connect(url, { token })`, or behind the address of the page. */
	async share(options: ShareOptions = {}): Promise<ServerMessages['session.shared']> {
		return this.#ask((eventId) => shareMessage(eventId, options), options) as Promise<ServerMessages['session.shared']>;
	}

	/** Who is here and who steers; `undefined` while nobody ever joined. Told by `session.members` whenever it changes. */
	get members(): ServerMessages['session.members'] | undefined {
		return this.#members;
	}

	/** Asks to steer. Whether that was granted, `session.members` tells. */
	async requestControl({ signal }: RequestOptions = {}): Promise<void> {
		await this.#gate.pass(signal);
		this.#send({ type: 'control.request' });
	}

	async grantControl(memberId: string, { signal }: RequestOptions = {}): Promise<void> {
		await this.#gate.pass(signal);
		this.#send({ type: 'control.grant', member_id: memberId });
	}

	async releaseControl({ signal }: RequestOptions = {}): Promise<void> {
		await this.#gate.pass(signal);
		this.#send({ type: 'control.release' });
	}

	/** An MP4 file of what the server kept, without encoding it again; for whoever has the session or may steer it. */
	async recording({ signal, ...span }: RequestOptions & RecordingSpan = {}): Promise<Blob> {
		await this.#gate.pass(signal);
		const { url, token } = this.#options;
		return fetchRecording(url, this.id ?? '', this.#resumeToken ?? (typeof token === 'function' ? await token() : token), span, signal);
	}

	/** Ends the session properly. Resolves with the last state. */
	async stop({ signal }: RequestOptions = {}): Promise<SessionState> {
		if (!isOver(this.#state)) {
			try {
				await this.#gate.pass(signal);
				this.#link.send({ type: 'session.stop' });
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
			this.#link.send({ type: 'session.stop' });
		} catch {
			// Nobody there to hear it.
		}
		this.#finish(undefined);
	}

	async #request(message: (eventId: string) => ClientMessage, { signal }: RequestOptions): Promise<Change> {
		const askedAtMs = performance.now();
		await this.#gate.pass(signal);
		const eventId = this.#newEventId();
		const built = message(eventId);
		const change = this.#changes.add(eventId, built, askedAtMs);
		this.#send(built);
		return untilAborted(change, signal, (reason) => this.#changes.refuse(eventId, reason));
	}

	async #ask(message: (eventId: string) => ClientMessage, { signal }: RequestOptions): Promise<ServerMessage> {
		await this.#gate.pass(signal);
		const eventId = this.#newEventId();
		const reply = this.#replies.add(eventId);
		this.#send(message(eventId));
		return untilAborted(reply, signal, (reason) => this.#replies.refuse(eventId, reason));
	}

	/** A socket that is closing loses it; it is sent again when the session is back. */
	#send(message: ClientMessage): void {
		try {
			this.#link.send(message);
		} catch {
			// Its close event follows.
		}
	}

	#newEventId(): string {
		return `e${this.#nextEvent++}-${Math.trunc(Math.random() * 0x7fff_ffff).toString(36)}`;
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
				return this.#video.answer(message.sdp);
			case 'webrtc.candidate':
				return this.#video.addCandidate(message.candidate);
			case 'video.opened':
				return this.#video.opened();
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
				return this.#enter({ kind: 'paused', chunkIndex: chunkIndexOf(this.#state) });
			case 'session.resumed':
				return this.#enter({ kind: 'generating', chunkIndex: chunkIndexOf(this.#state) });
			case 'error':
				return this.#failed(message);
			case 'session.ended':
				// A connection that was turned away had no session: ours may still be held.
				this.#hasServerEnded = this.#isGreeted;
				if (message.reason === 'stopped') {
					this.#lastError = undefined;
				}
				return;
			case 'session.queued':
				return this.#enter({ kind: 'queued', position: message.position, queueSize: message.queue_size, estimatedWaitMs: message.estimated_wait_ms });
			case 'session.ready':
				return this.#placed(message);
			case 'session.joined':
				return this.#sink.show();
			case 'session.members':
				this.#members = message;
				return;
			case 'pong':
				return message.ts_ms === undefined ? undefined : this.#clock.received(message.ts_ms, message.server_ms);
			case 'pacing.updated': case 'session.expiring': case 'session.forked': case 'session.shared':
			case 'control.requested': case 'control.granted': case 'control.revoked':
				return;
			default:
				return assertNever(message);
		}
	}

	/** A connection is up: the session is brought back, or may be started. */
	#greeted(message: ServerMessages['session.created']): void {
		this.#greeting = message;
		this.#hasServerEnded = false;
		this.#isGreeted = true;
		this.#lastError = undefined;
		this.#offerError = undefined;
		this.#link.greeted();
		this.#clock.start();
		this.#liveness.start();
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
		this.#video.open(message.ice_servers);
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
		this.#gate.open();
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
			this.#enter({ kind: message.is_paused ? 'paused' : 'generating', chunkIndex: chunkIndexOf(this.#state) });
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
			if (error.code === 'unsupported_media') {
				this.#offerError = error;
			}
			return;
		}
		this.#video.refused(eventId, error);
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

	#videoConnected(): void {
		const { model } = this.#greeting ?? {};
		if (model !== undefined) {
			this.#ready.resolve(model);
		}
		if (model !== undefined && this.#start === undefined && this.#resuming === undefined && (this.#state.kind === 'connecting' || this.#state.kind === 'reconnecting')) {
			this.#enter({ kind: 'ready', model });
		}
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
		this.#clock.stop();
		this.#liveness.stop();
		this.#video.suspend();
		this.#gate.shut();
		this.#isGreeted = false;
		this.#resuming = undefined;
		const isGone = error === undefined || (this.#hasServerEnded && this.#start !== undefined);
		if (error !== undefined) {
			this.#replies.end(error);
		}
		this.#lastError = undefined;
		if (isGone || !this.#link.lost(error)) {
			this.#finish(error);
		}
	}

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
		const reason = error ?? new TurbocastError('invalid_state', OVER);
		this.#options.store.save(undefined);
		this.#clock.stop();
		this.#liveness.stop();
		this.#link.close();
		this.#changes.end(reason);
		this.#replies.end(reason);
		this.#gate.end(reason);
		this.#created.reject(reason);
		this.#ready.reject(reason);
		this.#video.close();
		this.#ended.resolve(this.#state);
		this.#events.close();
	}
}
