/**
 * One session, from `session.created` to `session.ended`: who is in it, and what state it is in. `session-run.ts` holds the line of a started
 * session, `member.ts` a connection, `steering.ts` the changes, `countdown.ts` what ends by itself.
 */
import type { Log } from '../base/log.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_MESSAGE_BYTES, MAX_PROMPT_LENGTH, MAX_PROMPTS, PROTOCOL_VERSION, type MemberRole } from '../protocol/limits.js';
import { errorMessage, type ClientMessage, type ClientMessages, type EndReason, type ExpiringReason, type ServerMessage, type ServerMessages } from '../protocol/messages.js';
import { Company, type Companion } from './company.js';
import { Countdown } from './countdown.js';
import type { Member } from './member.js';
import { assertMay } from './rights.js';
import { newSessionId } from './session-id.js';
import type { SessionParts } from './session-parts.js';
import { SessionRun } from './session-run.js';
import { resolveStart } from './start-request.js';
import { acceptedMessage, steer } from './steering.js';

type SessionState =
	| { readonly kind: 'waiting' }
	/** In the line for a place; changes are taken already. */
	| { readonly kind: 'queued'; readonly run: SessionRun }
	/** The engine opens the stream. */
	| { readonly kind: 'starting'; readonly run: SessionRun }
	| { readonly kind: 'generating'; readonly run: SessionRun }
	| { readonly kind: 'ended'; readonly reason: EndReason };

export type SessionStateKind = SessionState['kind'];
/** All but the last, in which a session is not counted any more. */
export const SESSION_STATES = ['waiting', 'queued', 'starting', 'generating'] as const satisfies readonly SessionStateKind[];

/** When to ask again for a place to watch. */
const RETRY_WHEN_WATCHED_MS = 5000;

const seconds = (timeMs: number): number => Math.round(timeMs / 1000);

export class Session {
	readonly id = newSessionId();
	readonly #parts: SessionParts;
	readonly #owner: Member;
	readonly #company: Company;
	readonly #maxMs: number;
	readonly #log: Log;
	/** Aborts everything that this session runs. */
	readonly #life = new AbortController();
	/** Runs while nobody has started. */
	readonly #startCountdown: Countdown;
	/** Runs while nobody watches. */
	readonly #idleCountdown: Countdown;
	/** Runs from the start on. */
	readonly #durationCountdown: Countdown;
	#state: SessionState = { kind: 'waiting' };
	#ending: Promise<void> | undefined;

	constructor(parts: SessionParts, owner: Member) {
		const { config, clock } = parts;
		this.#parts = parts;
		this.#owner = owner;
		this.#maxMs = Math.min(config.sessionMaxMs, owner.visitor.grant.maxSessionMs);
		this.#log = parts.log.child({ session: this.id });
		this.#company = new Company(clock, this.#life.signal);
		this.#take(owner, 'owner');
		this.#startCountdown = new Countdown(clock, {
			onElapsed: () => this.#fail(new TurbocastError('start_timeout', `No session was started within ${seconds(config.startTimeoutMs)} seconds; connect again when there is a prompt.`), 'idle'),
		});
		this.#idleCountdown = new Countdown(clock, {
			onWarning: (left) => this.warnOfEnd('idle', left),
			onElapsed: () => this.#fail(new TurbocastError('idle_timeout', `Nobody was watching for ${seconds(config.idleTimeoutMs)} seconds; connect again to go on.`), 'idle'),
		});
		this.#durationCountdown = new Countdown(clock, {
			onWarning: (left) => this.warnOfEnd('max_duration', left),
			onElapsed: () => this.#fail(new TurbocastError('max_duration', `The session reached its longest duration of ${seconds(this.#maxMs)} seconds; start another one.`), 'max_duration'),
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

	/** Tells everyone that the session will end, and when; `undefined` takes it back. */
	warnOfEnd(reason: ExpiringReason, secondsLeft: number | undefined): void {
		this.#send({ type: 'session.expiring', reason, seconds_left: secondsLeft ?? null });
	}

	get #run(): SessionRun | undefined {
		return this.#state.kind === 'waiting' || this.#state.kind === 'ended' ? undefined : this.#state.run;
	}

	/** Of the server key behind the connection that has the session. */
	get keyId(): string | undefined {
		return this.#owner.visitor.grant.keyId;
	}

	/** To everyone in the session. */
	#send(message: ServerMessage): void {
		if (this.#state.kind !== 'ended') {
			this.#company.send(message);
		}
	}

	#take(member: Member, role: MemberRole): Companion {
		member.host = {
			watchingChanged: () => {
				this.#watchingChanged();
				this.#company.announce();
			},
			keyframeNeeded: (viewer) => this.#run?.keyframes.request(viewer.codec),
		};
		return this.#company.add(member, role);
	}

	/** Sends `session.created`; until a start, the start timeout runs. */
	greet(): void {
		this.#parts.sessions.add(this);
		this.#owner.send(this.#createdMessage(this.id));
		this.#awaitStart();
	}

	/** Throws `capacity_exhausted` when nobody more may come to watch. */
	assertMayJoin(): void {
		const { config } = this.#parts;
		if (this.#company.guests >= config.maxViewers) {
			throw new TurbocastError('capacity_exhausted', `All ${config.maxViewers} places to watch this session are taken; try again in a moment.`, { retryAfterMs: RETRY_WHEN_WATCHED_MS });
		}
	}

	/** Somebody comes to watch, after `assertMayJoin`. */
	join(member: Member): void {
		const { clock } = this.#parts;
		const { mayControl, maxSessionMs } = member.visitor.grant;
		const { id, role } = this.#take(member, mayControl ? 'guest' : 'viewer');
		member.send(this.#createdMessage(undefined));
		member.send({ type: 'session.joined', session_id: this.id, member_id: id, role });
		if (this.#state.kind === 'generating') {
			member.send(this.#readyMessage(this.#state.run));
		}
		this.#watchingChanged();
		this.#company.announce();
		if (maxSessionMs < this.#maxMs) {
			clock.sleep(maxSessionMs, this.#life.signal).then(
				() => this.leave(member, 'max_duration', new TurbocastError('max_duration', `This client secret is for watching ${seconds(maxSessionMs)} seconds at most.`)),
				() => undefined,
			);
		}
	}

	/**
	 * A member goes: the one that has the session ends it, any other leaves the rest as they are. `error` is sent first when
	 * there is one, and names the close code. Idempotent.
	 */
	async leave(member: Member, reason: EndReason, error?: TurbocastError): Promise<void> {
		if (member === this.#owner) {
			return this.end(reason, error);
		}
		if (this.#company.of(member) === undefined) {
			return;
		}
		this.#company.remove(member);
		if (error !== undefined) {
			this.#parts.metrics.errors.add(1, { code: error.code });
			member.send(errorMessage(error));
		}
		member.send(this.#endedMessage(reason));
		member.peer.close(error?.entry.closeCode ?? 1000, reason);
		await member.video.close(`left the session: ${reason}`);
		this.#watchingChanged();
	}

	#createdMessage(resumeToken: string | undefined): ServerMessages['session.created'] {
		const { config, model } = this.#parts;
		return {
			type: 'session.created', session_id: this.id, protocol_version: PROTOCOL_VERSION, model,
			ice_servers: config.iceServers.map((server) => ({ ...server })),
			...(resumeToken === undefined ? {} : { resume_token: resumeToken }),
			limits: {
				max_message_bytes: MAX_MESSAGE_BYTES, max_prompt_length: MAX_PROMPT_LENGTH, max_prompts: MAX_PROMPTS, max_session_ms: this.#maxMs,
				idle_timeout_ms: config.idleTimeoutMs, start_timeout_ms: config.startTimeoutMs, resume_grace_ms: 0, max_lead_ms: config.maxLeadMs,
			},
		};
	}

	#endedMessage(reason: EndReason): ServerMessages['session.ended'] {
		const frames = this.#run?.frames ?? 0;
		return { type: 'session.ended', session_id: this.id, reason, generated_ms: (frames * 1000) / this.#parts.model.fps, frames };
	}

	#awaitStart(): void {
		this.#startCountdown.start(this.#parts.config.startTimeoutMs);
	}

	/** Does what the message of a member asks. Throws what the client is to be told; the session goes on. */
	async handle(message: ClientMessage, member: Member): Promise<void> {
		const companion = this.#company.of(member);
		if (companion === undefined) {
			return;
		}
		assertMay(message, companion, this.#company.drives(member));
		switch (message.type) {
			case 'session.start':
				return this.#start(message, member);
			case 'session.update':
			case 'input.action':
				return member.send(steer(message, member, this.#started(message), this.#parts));
			case 'session.stop':
				void this.leave(member, 'stopped');
				return;
			case 'webrtc.offer':
				return member.offer(message);
			case 'webrtc.candidate':
				return member.video.addCandidate(message.candidate);
			case 'session.pause':
			case 'session.resume':
			case 'session.reset':
			case 'session.fork':
				throw new TurbocastError('not_supported', `This server does not do ${message.type} yet.`);
			case 'session.share':
				return member.send(await this.#share(message));
			case 'control.request':
				return this.#company.request(companion, message.event_id);
			case 'control.release':
				return this.#company.release(companion, message.event_id);
			case 'control.grant':
				if (!this.#company.grant(companion, message.member_id, message.event_id)) {
					throw new TurbocastError('invalid_request', '`member_id` is nobody who may drive: a guest or the owner, as session.members names them.', { param: 'member_id' });
				}
				return;
			case 'ping':
				return member.send({ ...message, type: 'pong', server_ms: this.#parts.clock.nowMs() });
			default:
				return assertNever(message);
		}
	}

	/** A token with which others come to this session. */
	async #share({ event_id: eventId, role, expires_in_seconds: forSeconds }: ClientMessages['session.share']): Promise<ServerMessages['session.shared']> {
		const { value, expires_at: expiresAt } = await this.#parts.auth.share({ keyId: this.keyId, sessionId: this.id, seconds: forSeconds, mayControl: role === 'guest' });
		return { type: 'session.shared', ...(eventId === undefined ? {} : { event_id: eventId }), token: value, role, expires_at: expiresAt };
	}

	#started({ type }: ClientMessage): SessionRun {
		const run = this.#run;
		if (run === undefined) {
			throw new TurbocastError('invalid_state', `Send session.start before ${type}.`);
		}
		return run;
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
		const { metrics, sessions } = this.#parts;
		const ended = this.#endedMessage(reason);
		sessions.delete(this);
		if (error !== undefined) {
			this.#tell(error);
		}
		this.#send(ended);
		this.#state = { kind: 'ended', reason };
		run?.ticket.release();
		this.#life.abort(new TurbocastError('invalid_state', 'The session has ended.'));
		for (const countdown of [this.#startCountdown, this.#idleCountdown, this.#durationCountdown]) {
			countdown.stop();
		}
		this.#company.members.forEach(({ peer }) => peer.close(error?.entry.closeCode ?? 1000, reason));
		if (run !== undefined) {
			metrics.sessions.add(1, { reason });
			this.#log.info({ reason, frames: ended.frames, code: error?.code }, 'The session has ended.');
		}
		const closings = await Promise.allSettled([...this.#company.members.map(({ video }) => video.close(`session ended: ${reason}`)), run?.close()]);
		for (const closing of closings) {
			if (closing.status === 'rejected') {
				this.#log.error({ err: closing.reason as unknown }, 'A part of the session did not close.');
			}
		}
	}

	async #start(message: ClientMessages['session.start'], member: Member): Promise<void> {
		const { config, engine, clock, metrics } = this.#parts;
		if (this.#state.kind !== 'waiting') {
			throw new TurbocastError('invalid_state', 'This session is already started; change it with session.update, or open another connection.');
		}
		const receivedAtMs = clock.nowMs();
		const request = resolveStart(message, engine.model, config.defaultSteps, this.#parts.randomUint32);
		const run = this.#createRun(request, message, member);
		run.changes.add({ eventId: message.event_id, receivedAtMs, author: member }, {});
		if (run.ticket.isWaiting && !(await this.#waitInLine(run))) {
			return;
		}
		this.#state = { kind: 'starting', run };
		metrics.queueMs.observe(clock.nowMs() - receivedAtMs);
		run.changes.adjust({ steps: run.ticket.steps });
		engine.prepare(run.changes.inputs.prompt);
		const { viewer } = member.video;
		if (viewer !== undefined) {
			// Opened while the first chunk is being made; a failure is met again, and handled, at the first frame.
			run.encoders.for(viewer.codec).catch(() => undefined);
		}
		const { signal } = this.#life;
		try {
			const { seed, width, height } = request;
			const stream = await engine.openStream({ seed, width, height });
			if (signal.aborted) {
				return await stream.close();
			}
			this.#startCountdown.stop();
			this.#state = { kind: 'generating', run };
			member.send(acceptedMessage(message.event_id, run, request.inputs.prompt, this.#parts));
			this.#durationCountdown.start(this.#maxMs);
			this.#send(this.#readyMessage(run));
			this.#log.info({ prompt: request.inputs.prompt, seed, steps: run.changes.inputs.steps, width, height }, 'The session has started.');
			run.play(stream, signal);
			this.#watchingChanged();
		} catch (error) {
			if (!signal.aborted) {
				run.ticket.release();
				this.#idleCountdown.stop();
				this.#state = { kind: 'waiting' };
				this.#awaitStart();
				await run.close();
				throw error;
			}
		}
	}

	#createRun(request: ReturnType<typeof resolveStart>, message: ClientMessages['session.start'], { visitor }: Member): SessionRun {
		const { width, height, inputs } = request;
		const ticket = this.#parts.admission.enter({
			keyId: visitor.grant.keyId, address: visitor.address, width, height, steps: inputs.steps,
			allowFewerSteps: message.parameters?.allow_fewer_steps ?? false,
			onSteps: (steps) => this.#run?.changes.adjust({ steps }),
			onQueued: ({ position, queueSize, estimatedWaitMs }) =>
				this.#send({ type: 'session.queued', session_id: this.id, position, queue_size: queueSize, estimated_wait_ms: estimatedWaitMs }),
		});
		return new SessionRun({ ...this.#parts, log: this.#log }, request, ticket, {
			send: (sent) => this.#send(sent),
			sendOf: (author, sent) => this.#company.sendOf(author, sent),
			onLoss: (error) => this.#tell(error),
			onFailed: (error) => this.#fail(error, 'failed'),
			watching: () => this.#company.watching,
			isHeadless: () => this.#company.isHeadless,
		});
	}

	#readyMessage(run: SessionRun): ServerMessages['session.ready'] {
		const { engine, config } = this.#parts;
		const { inputs } = run.changes;
		const { seed, width, height } = run.request;
		return {
			type: 'session.ready', session_id: this.id, model: engine.model.name, seed, steps: inputs.steps, width, height,
			cold_start_ms: engine.state.kind === 'ready' ? engine.state.coldStartMs : 0,
			resumed: false, is_paused: false, prompts: [{ text: inputs.prompt, weight: 1 }], controls: inputs.controls,
			max_lead_ms: config.maxLeadMs, expires_in_ms: this.#durationCountdown.leftMs ?? this.#maxMs,
		};
	}

	/** False when the session ended in the line. Throws why there will be no place. */
	async #waitInLine(run: SessionRun): Promise<boolean> {
		const { signal } = this.#life;
		this.#state = { kind: 'queued', run };
		// Whoever waits for us is not late.
		this.#startCountdown.stop();
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

	/**
	 * A viewer came or went: without any, playout stops, generation stops at the lead, and the idle timeout runs. In a session
	 * that never had one (a client that only steers and listens) playout goes on unseen, so that its events come in time.
	 */
	#watchingChanged(): void {
		const run = this.#run;
		if (run === undefined || this.#state.kind === 'queued') {
			return;
		}
		const isWatched = this.#company.watching.length > 0;
		run.line.setWatched(isWatched || this.#company.isHeadless);
		if (isWatched) {
			this.#idleCountdown.stop();
		} else {
			this.#idleCountdown.start(this.#parts.config.idleTimeoutMs);
		}
	}

	#tell(error: TurbocastError): void {
		this.#parts.metrics.errors.add(1, { code: error.code });
		this.#send(errorMessage(error));
	}

	#fail(error: TurbocastError, reason: EndReason): void {
		if (error.code === 'internal') {
			this.#log.error({ err: error }, 'The session failed.');
		}
		void this.end(reason, error);
	}
}
