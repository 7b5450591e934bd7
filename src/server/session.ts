/**
 * One session, from `session.created` to `session.ended`: who is in it, and what state it is in. It outlives the connection that has it for a while.
 * `session-desk.ts` does what messages ask, `session-run.ts` holds the line of a started session, `member.ts` a connection, `steering.ts` the changes, `countdown.ts` what ends by itself.
 */
import type { Log } from '../base/log.js';
import type { Recording } from '../media/recording.js';
import { TurbocastError } from '../protocol/errors.js';
import type { MemberRole } from '../protocol/limits.js';
import { errorMessage, type ClientMessage, type ClientMessages, type EndReason, type ExpiringReason, type ServerMessage, type ServerMessages } from '../protocol/messages.js';
import { Company, type Companion } from './company.js';
import { DEFAULT_FORK_WAIT_MS, ForkShelf } from './fork-shelf.js';
import { Member } from './member.js';
import { newResumeToken, newSessionId } from './session-id.js';
import { doAsAsked } from './session-desk.js';
import { createCountdowns, type SessionCountdowns } from './session-countdowns.js';
import { createdMessage, endedMessage, forkedMessage, readyMessage } from './session-messages.js';
import type { SessionParts, Visitor } from './session-parts.js';
import { SessionRun, type Continuation } from './session-run.js';
import { countedState, type CountedState, type SessionState } from './session-state.js';
import { promptsOf, resolveStart, type StartRequest } from './start-request.js';
import { acceptedMessage } from './steering.js';

/** When to ask again for a place to watch. */
const RETRY_WHEN_WATCHED_MS = 5000;

/** Share of its grace for which a session that is held keeps its place when somebody else waits for one. */
const WANTED_GRACE_SHARE = 1 / 3;

const seconds = (timeMs: number): number => Math.round(timeMs / 1000);

export class Session {
	readonly id = newSessionId();
	/** Whoever knows it goes on with this session. */
	readonly resumeToken = newResumeToken();
	/** Who began it: a connection that comes back has the same rights. */
	readonly visitor: Visitor;
	readonly #parts: SessionParts;
	/** Where it begins when it is a fork. */
	readonly #continuation: Continuation | undefined;
	/** `undefined` while it waits for a connection to come back, or to begin. */
	#owner: Member | undefined;
	#wasResumed = false;
	readonly #forks = new ForkShelf();
	readonly #company: Company;
	readonly #maxMs: number;
	readonly #log: Log;
	/** Aborts everything that this session runs. */
	readonly #life = new AbortController();
	readonly #countdowns: SessionCountdowns;
	#state: SessionState = { kind: 'waiting' };
	#ending: Promise<void> | undefined;

	/** Of a connection; or of none yet, as the continuation of another session. */
	constructor(parts: SessionParts, from: Member | { readonly visitor: Visitor; readonly continuation: Continuation }) {
		const { config, clock } = parts;
		this.#parts = parts;
		this.visitor = from.visitor;
		this.#maxMs = Math.min(config.sessionMaxMs, from.visitor.grant.maxSessionMs);
		this.#log = parts.log.child({ session: this.id });
		this.#company = new Company(clock, this.#life.signal);
		this.#countdowns = createCountdowns({ config, clock, maxMs: this.#maxMs }, {
			onWarning: (reason, left) => this.warnOfEnd(reason, left),
			onFailed: (error, reason) => this.#fail(error, reason),
			onGraceOver: () => void this.end('disconnected'),
		});
		if (from instanceof Member) {
			this.#continuation = undefined;
			this.#owner = from;
			this.#take(from, 'owner');
		} else {
			this.#continuation = from.continuation;
			parts.sessions.add(this);
			this.#countdowns.grace.start(config.resumeGraceMs > 0 ? config.resumeGraceMs : DEFAULT_FORK_WAIT_MS);
		}
	}

	/** It runs, or waits to be begun, without a connection that has it. */
	get isDetached(): boolean {
		return this.#owner === undefined && this.#state.kind !== 'ended';
	}

	get hasEnded(): boolean {
		return this.#state.kind === 'ended';
	}

	get countedState(): CountedState {
		return countedState(this.#state, this.isDetached);
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

	/** What was sent of late. Throws `not_supported`, or `invalid_state` before the start. */
	recording(): Recording {
		if (this.#run === undefined) {
			throw new TurbocastError('invalid_state', 'Nothing is recorded before the session is started.');
		}
		return this.#run.recording;
	}

	/** Of the server key behind the connection that has the session. */
	get keyId(): string | undefined {
		return this.visitor.grant.keyId;
	}

	/** To everyone in the session. */
	#send(message: ServerMessage): void {
		if (this.#state.kind !== 'ended') {
			this.#company.send(message);
		}
	}

	#host(member: Member): void {
		member.host = {
			watchingChanged: () => {
				this.#watchingChanged();
				this.#company.announce();
			},
			keyframeNeeded: (viewer) => this.#run?.requestKeyframe(viewer),
		};
	}

	#take(member: Member, role: MemberRole): Companion {
		this.#host(member);
		return this.#company.add(member, role);
	}

	/** Sends `session.created`; until a start, the start timeout runs. */
	greet(): void {
		this.#parts.sessions.add(this);
		this.#send(createdMessage(this.#parts, { id: this.id, maxMs: this.#maxMs, resumeToken: this.resumeToken }));
		this.#countdowns.start.start(this.#parts.config.startTimeoutMs);
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
		member.send(createdMessage(this.#parts, { id: this.id, maxMs: this.#maxMs, resumeToken: undefined }));
		member.send({ type: 'session.joined', session_id: this.id, member_id: id, role });
		if (this.#state.kind === 'generating') {
			member.send(this.#readyMessage(this.#state.run, undefined));
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
	 * A member goes: the one that has the session ends it, unless its connection was lost and it can be held for a while; any other
	 * leaves the rest as they are. `error` is sent first when there is one, and names the close code. Idempotent.
	 */
	async leave(member: Member, reason: EndReason, error?: TurbocastError): Promise<void> {
		if (member === this.#owner) {
			const { resumeGraceMs } = this.#parts.config;
			return reason === 'disconnected' && this.#run !== undefined && resumeGraceMs > 0 ? this.#hold(member, resumeGraceMs) : this.end(reason, error);
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
		await member.closeVideo(`left the session: ${reason}`);
		this.#watchingChanged();
	}

	/** Without the connection that had it: the viewer is closed, generation stops at the lead, the place is kept. */
	async #hold(owner: Member, forMs: number): Promise<void> {
		this.#log.info({ forMs }, 'The connection was lost; the session is held.');
		this.#owner = undefined;
		this.#company.remove(owner);
		this.#countdowns.grace.start(forMs);
		if (this.#parts.admission.waiting > 0) {
			this.#hurry();
		}
		await owner.closeVideo('the connection was lost');
		this.#watchingChanged();
	}

	/** Somebody waits for a place: if this session has one and is only held, it is given back sooner. */
	#hurry(): void {
		const { grace } = this.#countdowns;
		const shortMs = this.#parts.config.resumeGraceMs * WANTED_GRACE_SHARE;
		if (this.isDetached && this.#run?.ticket.isWaiting === false && (grace.leftMs ?? 0) > shortMs) {
			this.#log.info({ forMs: shortMs }, 'Others wait; the session is held for less time.');
			grace.start(shortMs);
		}
	}

	/** A connection goes on with this session, by its token; one that had it until now is told so and closed. Answered like a start. */
	async takeOver(member: Member, message: ClientMessages['session.start']): Promise<void> {
		const before = this.#owner;
		this.#countdowns.grace.stop();
		this.#owner = member;
		if (before === undefined) {
			this.#take(member, 'owner');
		} else {
			this.#host(member);
			this.#company.replace(before, member);
			before.turnOut(this.#endedMessage('taken_over'));
		}
		const run = this.#run;
		if (run === undefined) {
			return this.#start(message, member);
		}
		this.#wasResumed = true;
		if (this.#state.kind === 'queued') {
			return run.ticket.tellPlace();
		}
		if (this.#state.kind === 'generating') {
			const chunkIndex = run.changes.add({ eventId: message.event_id, receivedAtMs: this.#parts.clock.nowMs(), author: member }, {});
			member.send(acceptedMessage(message.event_id, chunkIndex, undefined, run, this.#parts));
			member.send(this.#readyMessage(run, this.resumeToken));
		}
		this.#watchingChanged();
		this.#company.announce();
		member.watching.forEach((viewer) => run.requestKeyframe(viewer));
	}

	/** Its connection goes on with another session: this one, which was never started, is over without a word. */
	abandon(): void {
		this.#parts.sessions.delete(this);
		this.#state = { kind: 'ended', reason: 'stopped' };
		this.#ending = Promise.resolve();
		this.#owner = undefined;
		this.#countdowns.start.stop();
		this.#life.abort(new TurbocastError('invalid_state', 'The session was left for another.'));
	}

	#endedMessage(reason: EndReason): ServerMessages['session.ended'] {
		return endedMessage(this.id, reason, this.#run?.frames ?? 0, this.#parts.model.fps);
	}

	/** Does what the message of a member asks. Throws what the client is to be told; the session goes on. */
	async handle(message: ClientMessage, member: Member): Promise<void> {
		const companion = this.#company.of(member);
		if (companion !== undefined) {
			await doAsAsked(message, companion, {
				id: this.id, keyId: this.keyId, parts: this.#parts, company: this.#company, run: this.#run,
				start: (start, by) => this.#start(start, by),
				stop: (by) => void this.leave(by, 'stopped'),
				fork: (fork, run) => this.#fork(fork, run),
			});
		}
	}

	/** The other session exists from now on, and waits for whoever begins it with its token. */
	#fork(message: ClientMessages['session.fork'], run: SessionRun): ServerMessages['session.forked'] {
		this.#forks.assertRoom();
		const continuation = run.fork({ prompts: promptsOf(message), seed: message.seed });
		const fork = new Session(this.#parts, { visitor: this.visitor, continuation });
		this.#forks.add(fork);
		return forkedMessage(message.event_id, continuation, this.#parts.engine.model.fps, { id: fork.id, resumeToken: fork.resumeToken, expiresInMs: fork.#countdowns.grace.leftMs ?? 0 });
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
		Object.values(this.#countdowns).forEach((countdown) => countdown.stop());
		this.#company.members.forEach(({ peer }) => peer.close(error?.entry.closeCode ?? 1000, reason));
		if (run !== undefined) {
			metrics.sessions.add(1, { reason });
			this.#log.info({ reason, frames: ended.frames, code: error?.code }, 'The session has ended.');
		}
		const closings = await Promise.allSettled([...this.#company.members.map((each) => each.closeVideo(`session ended: ${reason}`)), run?.close()]);
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
		const request = this.#continuation?.request ?? resolveStart(message, engine.model, { steps: config.defaultSteps, maxLeadMs: config.maxLeadMs, randomSeed: this.#parts.randomUint32 });
		const run = this.#createRun(request, message, member);
		const chunkIndex = run.changes.add({ eventId: message.event_id, receivedAtMs, author: member }, this.#continuation?.change ?? {});
		if (run.ticket.isWaiting && !(await this.#waitInLine(run))) {
			return;
		}
		this.#state = { kind: 'starting', run };
		metrics.queueMs.observe(clock.nowMs() - receivedAtMs);
		const { signal } = this.#life;
		try {
			const stream = await run.open(member.video.viewer ?? member.socketVideo.watching);
			if (signal.aborted) {
				return await stream.close();
			}
			this.#countdowns.start.stop();
			this.#state = { kind: 'generating', run };
			const { prompts, seed, steps } = run.changes.state;
			// To whoever has it by now.
			this.#owner?.send(acceptedMessage(message.event_id, chunkIndex, prompts, run, this.#parts));
			this.#countdowns.duration.start(this.#maxMs);
			for (const each of this.#company.members) {
				each.send(this.#readyMessage(run, each === this.#owner ? this.resumeToken : undefined));
			}
			const { width, height } = request;
			this.#log.info({ prompt: prompts.map(({ text }) => text).join(' + '), seed, steps, width, height }, 'The session has started.');
			run.play(this.id, stream, signal);
			this.#watchingChanged();
		} catch (error) {
			if (!signal.aborted) {
				run.ticket.release();
				this.#countdowns.idle.stop();
				this.#state = { kind: 'waiting' };
				this.#countdowns.start.start(this.#parts.config.startTimeoutMs);
				await run.close();
				throw error;
			}
		}
	}

	#createRun(request: StartRequest, message: ClientMessages['session.start'], { visitor }: Member): SessionRun {
		const { width, height, state } = request;
		const ticket = this.#parts.admission.enter({
			keyId: visitor.grant.keyId, address: visitor.address, width, height, steps: state.steps,
			allowFewerSteps: message.parameters?.allow_fewer_steps ?? false,
			onSteps: (steps) => this.#run?.changes.adjust({ steps }),
			onWanted: () => this.#hurry(),
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
		}, this.#continuation);
	}

	#readyMessage(run: SessionRun, resumeToken: string | undefined): ServerMessages['session.ready'] {
		return readyMessage(this.#parts, run, {
			id: this.id, resumed: this.#wasResumed && resumeToken !== undefined, resumeToken, expiresInMs: this.#countdowns.duration.leftMs ?? this.#maxMs,
		});
	}

	/** False when the session ended in the line. Throws why there will be no place. */
	async #waitInLine(run: SessionRun): Promise<boolean> {
		const { signal } = this.#life;
		this.#state = { kind: 'queued', run };
		// Whoever waits for us is not late.
		this.#countdowns.start.stop();
		try {
			await run.ticket.waitForPlace(signal);
		} catch (error) {
			if (!signal.aborted) {
				this.#state = { kind: 'waiting' };
				this.#countdowns.start.start(this.#parts.config.startTimeoutMs);
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
			this.#countdowns.idle.stop();
		} else {
			this.#countdowns.idle.start(this.#parts.config.idleTimeoutMs);
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
