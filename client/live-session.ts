/** One session: its state, its changes and its events. */
import { assertNever } from '../src/protocol/assert-never.js';
import { TurbocastError } from '../src/protocol/errors.js';
import type { StepCount } from '../src/protocol/limits.js';
import type { ClientMessage, FrameMeta, ServerMessage, ServerMessages } from '../src/protocol/messages.js';
import { deferred, PendingChanges, type Change } from './change.js';
import { ControlSocket, type TokenSource } from './control-socket.js';
import { DisplayWatch } from './display-watch.js';
import { EventStream } from './event-stream.js';
import type { SessionEvent } from './session-event.js';
import { isOver, type ModelInfo, type SessionState } from './session-state.js';
import { VideoReceiver, type IceServers } from './video-receiver.js';

export type StartOptions = {
	readonly model?: string;
	/** `WIDTHxHEIGHT`, one of the model's sizes. */
	readonly size?: string;
	/** Unsigned 32 bits; the same seed and inputs give the same frames. */
	readonly seed?: number;
	/** Denoising steps per chunk: fewer are faster, more are sharper. */
	readonly steps?: StepCount;
	/** Rather fewer steps than waiting for a place. */
	readonly allowFewerSteps?: boolean;
};

/** A video connection that fails is made anew this many times in a session. */
const MOST_VIDEO_CONNECTIONS = 4;

const withoutUndefined = <T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
	Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };

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
	readonly #socket: ControlSocket;
	readonly #video: HTMLVideoElement | undefined;
	readonly #display: DisplayWatch | undefined;
	readonly #changes = new PendingChanges();
	readonly #events = new EventStream<SessionEvent>();
	#receiver: VideoReceiver | undefined;
	#receivers = 0;
	#iceServers: IceServers = [];
	#nextEvent = 1;
	#state: SessionState = { kind: 'connecting' };
	/** The last error that no message of ours caused: the reason of a close that follows it. */
	#lastError: TurbocastError | undefined;
	#wasStarted = false;

	constructor(url: string, video: HTMLVideoElement | undefined, token?: TokenSource) {
		this.created = this.#created.promise;
		this.ready = this.#ready.promise;
		this.ended = this.#ended.promise;
		this.#video = video;
		this.#display = video === undefined ? undefined : new DisplayWatch(video, (frame) => {
			this.#changes.displayed(frame.rtp_timestamp, frame.at_ms);
			this.#events.emit(frame);
		});
		this.#socket = new ControlSocket(url, token, {
			onMessage: (message) => this.#receive(message),
			onClose: (error) => this.#finish(this.#lastError ?? error),
		});
	}

	get state(): SessionState {
		return this.#state;
	}

	/** The video, once connected; for applications that show it themselves. */
	get stream(): MediaStream | undefined {
		return this.#receiver?.stream;
	}

	/** Events from now on; any number of readers. */
	events(): AsyncIterableIterator<SessionEvent, undefined> {
		return this.#events.read();
	}

	/** Statistics of the video connection (webrtc-stats), or `undefined` before there is one. */
	async stats(): Promise<RTCStatsReport | undefined> {
		return this.#receiver?.getStats();
	}

	/** Starts generating. Resolves when the server has accepted the prompt. */
	async start(prompt: string, options: StartOptions = {}): Promise<Change> {
		const askedAtMs = performance.now();
		await this.created;
		const { model, size, seed, steps, allowFewerSteps } = options;
		const change = this.#request((event_id) => withoutUndefined({
			type: 'session.start' as const, event_id, prompt, model, size, seed, parameters: steps === undefined && allowFewerSteps === undefined ? undefined : withoutUndefined({ steps, allow_fewer_steps: allowFewerSteps }),
		}), askedAtMs);
		this.#wasStarted = true;
		this.#attach();
		if (this.#state.kind === 'ready' || this.#state.kind === 'connecting') {
			this.#enter({ kind: 'starting' });
		}
		return change;
	}

	/** Changes the prompt while the video goes on. Resolves when the server has accepted it. */
	async setPrompt(prompt: string): Promise<Change> {
		return this.#request((event_id) => ({ type: 'session.update', event_id, prompt }));
	}

	async setSteps(steps: StepCount): Promise<Change> {
		return this.#request((event_id) => ({ type: 'session.update', event_id, parameters: { steps } }));
	}

	/** Sets controls of the model, by name; each keeps its value until it is set again. */
	async act(axes: { readonly [control: string]: number }): Promise<Change> {
		return this.#request((event_id) => ({ type: 'input.action', event_id, axes: { ...axes } }));
	}

	/** Ends the session properly. Resolves with the last state. */
	async stop(): Promise<SessionState> {
		if (!isOver(this.#state)) {
			try {
				await this.created;
				this.#socket.send({ type: 'session.stop' });
			} catch {
				this.close();
			}
		}
		return this.ended;
	}

	/** Drops the connection at once. Idempotent. */
	close(): void {
		this.#socket.close();
		this.#finish(undefined);
	}

	#request(message: (eventId: string) => ClientMessage, askedAtMs = performance.now()): Promise<Change> {
		const eventId = `e${this.#nextEvent++}`;
		const change = this.#changes.add(eventId, askedAtMs);
		try {
			this.#socket.send(message(eventId));
		} catch (error) {
			this.#changes.refuse(eventId, TurbocastError.from(error, 'transport_failed'));
		}
		return change;
	}

	#receive(message: ServerMessage): void {
		this.#events.emit(message);
		switch (message.type) {
			case 'session.created':
				this.#iceServers = message.ice_servers;
				this.#created.resolve(message.model);
				this.#openVideo(message.model);
				return;
			case 'webrtc.answer':
				this.#receiver?.answer(message.sdp).catch((error: unknown) => this.#videoFailed(error));
				return;
			case 'webrtc.candidate':
				// One candidate of several: the others may still do.
				this.#receiver?.addCandidate(message.candidate).catch((error: unknown) => console.warn('turbocast: a candidate was refused.', error));
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
				return this.#enter({ kind: 'generating', chunkIndex: message.chunk_index });
			case 'session.reconnecting':
				return this.#enter({ kind: 'restarting', message: message.message });
			case 'error':
				return this.#failed(message);
			case 'session.ended':
				if (message.reason === 'stopped') {
					this.#lastError = undefined;
				}
				return;
			case 'session.queued':
				return this.#enter({ kind: 'queued', position: message.position, queueSize: message.queue_size, estimatedWaitMs: message.estimated_wait_ms });
			case 'session.ready':
				return this.#state.kind === 'queued' ? this.#enter({ kind: 'starting' }) : undefined;
			case 'session.paused':
			case 'session.resumed':
			case 'session.expiring':
			case 'session.forked':
			case 'session.shared':
			case 'session.joined':
			case 'session.members':
			case 'control.requested':
			case 'control.granted':
			case 'control.revoked':
			case 'pacing.updated':
			case 'pong':
				return;
			default:
				return assertNever(message);
		}
	}

	#failed(message: ServerMessages['error']): void {
		const error = new TurbocastError(message.code, message.message, { param: message.param, retryAfterMs: message.retry_after_ms });
		if (message.event_id !== undefined && this.#changes.refuse(message.event_id, error)) {
			if (this.#state.kind === 'starting' || this.#state.kind === 'queued') {
				this.#wasStarted = false;
				void this.created.then((model) => (this.#state.kind === 'starting' || this.#state.kind === 'queued') && this.#enter({ kind: 'ready', model }));
			}
			return;
		}
		this.#lastError = error;
	}

	/** Sets up the video connection; a prompt may come before it is done. */
	#openVideo(model: ModelInfo): void {
		this.#receivers += 1;
		this.#receiver?.close();
		const receiver: VideoReceiver = new VideoReceiver(this.#iceServers, {
			onOffer: (sdp) => this.#socket.send({ type: 'webrtc.offer', sdp }),
			onCandidate: (candidate) => this.#sendCandidate(receiver, candidate),
			onConnected: () => {
				this.#ready.resolve(model);
				if (this.#state.kind === 'connecting') {
					this.#enter({ kind: 'ready', model });
				}
			},
			onFailed: () => receiver === this.#receiver && this.#videoFailed(undefined),
			onFrameMeta: (meta) => this.#frameMeta(meta),
		});
		this.#receiver = receiver;
		// A picture that is still shown stays until there is another to start.
		if (this.#video?.srcObject === null || this.#wasStarted) {
			this.#attach();
		}
		receiver.offer().catch((error: unknown) => this.#videoFailed(error));
	}

	#sendCandidate(receiver: VideoReceiver, candidate: Parameters<VideoReceiver['addCandidate']>[0]): void {
		if (receiver === this.#receiver && !isOver(this.#state)) {
			this.#socket.send({ type: 'webrtc.candidate', candidate });
		}
	}

	#videoFailed(cause: unknown): void {
		if (isOver(this.#state)) {
			return;
		}
		if (this.#receivers < MOST_VIDEO_CONNECTIONS) {
			void this.created.then((model) => !isOver(this.#state) && this.#openVideo(model));
			return;
		}
		this.#socket.close();
		this.#finish(new TurbocastError('transport_failed', 'The video connection could not be made; a firewall may block UDP between this browser and the server.', { cause }));
	}

	#attach(): void {
		const stream = this.#receiver?.stream;
		if (this.#video === undefined || stream === undefined || this.#video.srcObject === stream) {
			return;
		}
		this.#video.srcObject = stream;
		// Refused without a gesture unless muted: the application sees its own video not playing.
		this.#video.play().catch(() => undefined);
		this.#display?.start();
	}

	#frameMeta(meta: FrameMeta): void {
		this.#display?.announced(meta.rtp_timestamp);
		this.#events.emit(meta);
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
		const reason = error ?? new TurbocastError('invalid_state', 'The session has ended; connect again.');
		this.#changes.end(reason);
		this.#created.reject(reason);
		this.#ready.reject(reason);
		this.#display?.stop();
		this.#receiver?.close();
		this.#ended.resolve(this.#state);
		this.#events.close();
	}
}
