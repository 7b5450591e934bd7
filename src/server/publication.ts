/**
 * One publication: a member of a session that nobody reads the messages of, whose video goes to a WHIP endpoint. When the way is lost ICE is restarted, and where
 * that comes to nothing the video is offered anew.
 */
import { randomBytes } from 'node:crypto';
import type { VideoCodec } from '../base/frame.js';
import { TurbocastError } from '../protocol/errors.js';
import type { PublicationState } from '../protocol/publications.js';
import type { OfferedViewer, ViewerState } from '../transport/transport.js';
import { Member } from './member.js';
import type { IceServer } from './server-config.js';
import type { SessionParts, Visitor } from './session-parts.js';
import type { Session } from './session.js';
import type { WhipEndpoint } from './whip-endpoint.js';

/** Twice as long after each failure, half of it by chance, so that all who were lost with a server do not come back at once. */
const DEFAULT_FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
/** In a row; some four minutes. */
const MOST_FAILURES = 12;
/** Of one connection, whose sockets the library keeps; then another is made. */
const MOST_RESTARTS = 8;
/** While the endpoint cannot be reached, the way of before may yet come back. */
const REACH_AGAIN_MS = 1000;
/** The endpoint's own `DELETE`: a server that shuts down does not wait longer. */
const REMOVE_TIMEOUT_MS = 3000;

export type PublicationParts = Pick<SessionParts, 'transport' | 'clock' | 'config' | 'metrics' | 'log' | 'randomUint32'>;

export class Publication {
	readonly id = `pub_${randomBytes(12).toString('hex')}`;
	readonly session: Session;
	readonly endpoint: WhipEndpoint;
	readonly #parts: PublicationParts;
	readonly #member: Member;
	readonly #life = new AbortController();
	readonly #onEnded: () => void;
	#state: PublicationState = 'connecting';
	#resource: URL | undefined;
	#removing: Promise<void> | undefined;
	#iceServers: readonly IceServer[] = [];
	#failures = 0;
	#connections = 0;
	#restarts = 0;
	#error: TurbocastError | undefined;
	#closing: Promise<void> | undefined;

	/** `onEnded`: called once. */
	constructor(parts: PublicationParts, session: Session, endpoint: WhipEndpoint, visitor: Visitor, onEnded: () => void) {
		this.#parts = { ...parts, log: parts.log.child({ publication: this.id, session: session.id }) };
		this.session = session;
		this.endpoint = endpoint;
		this.#onEnded = onEnded;
		this.#member = new Member(parts, {
			send: () => undefined,
			close: () => void this.close(),
			video: { sendBytes: () => undefined, sendMeta: () => undefined, unsentBytes: () => 0 },
		}, { ...visitor, grant: { ...visitor.grant, mayControl: false, maxSessionMs: Number.POSITIVE_INFINITY } });
	}

	get state(): PublicationState {
		return this.#state;
	}

	/** Of the last failure, until it is live again. */
	get error(): TurbocastError | undefined {
		return this.#error;
	}

	/** Times that it has been live. */
	get connections(): number {
		return this.#connections;
	}

	/** ICE restarts after which the video went on. */
	get restarts(): number {
		return this.#restarts;
	}

	/** Of its present connection. */
	get video(): { readonly codec: VideoCodec; readonly bandwidthBps: number | undefined } | undefined {
		return this.#member.video.viewer;
	}

	/** Resolves when the endpoint has answered; from then on it is kept up. Throws `publish_refused`, `publish_failed` or `capacity_exhausted`, and is over. */
	async open(): Promise<void> {
		try {
			this.session.assertMayJoin();
			this.session.join(this.#member);
			const viewer = await this.#connect();
			void this.#keepUp(viewer);
		} catch (error) {
			this.#error = TurbocastError.from(error, 'publish_failed');
			await this.close();
			throw this.#error;
		}
	}

	/** Ends it: out of the session, and the endpoint is told. Idempotent. */
	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	/** The last one is kept. */
	#become(state: PublicationState): void {
		this.#state = this.#state === 'ended' ? 'ended' : state;
	}

	async #close(): Promise<void> {
		this.#become('ended');
		this.#life.abort(new TurbocastError('invalid_state', 'The publication has ended.'));
		this.#parts.log.info({ code: this.#error?.code, connections: this.#connections }, 'publication ended');
		// Later: whoever closes may be in the middle of ending the session.
		await Promise.resolve();
		await this.session.leave(this.#member, 'stopped');
		await this.#member.closeVideo('the publication has ended');
		await this.#remove();
		this.#onEnded();
	}

	async #connect(): Promise<OfferedViewer> {
		const { transport, metrics, log } = this.#parts;
		const { signal } = this.#life;
		this.#become('connecting');
		let outcome: 'answered' | 'refused' | 'failed' = 'failed';
		try {
			// An endpoint that cannot be asked that may take the offer nevertheless.
			const named = await this.endpoint.iceServers(signal).catch(() => []);
			const offer = await transport.offer(named.length > 0 ? named : this.#iceServers);
			try {
				const { answerSdp, resource, iceServers } = await this.endpoint.publish(offer.offerSdp, signal);
				this.#resource = resource;
				this.#iceServers = iceServers;
				const viewer = await offer.answered(answerSdp).catch((error: unknown) => {
					throw new TurbocastError('publish_refused', `${this.endpoint.url.origin} gave an answer that cannot be used. ${TurbocastError.from(error).message}`, { cause: error });
				});
				await this.#member.video.replace(viewer);
				outcome = 'answered';
				log.info({ to: this.endpoint.url.origin, codec: viewer.codec }, 'publication answered');
				return viewer;
			} finally {
				await offer.close();
			}
		} catch (error) {
			outcome = error instanceof TurbocastError && error.code === 'publish_refused' ? 'refused' : 'failed';
			await this.#remove();
			throw error;
		} finally {
			metrics.publishAttempts.add(1, { outcome });
		}
	}

	/** Until it is closed, or the endpoint will have no more of it. */
	async #keepUp(first: OfferedViewer): Promise<void> {
		const { clock, log } = this.#parts;
		const { signal } = this.#life;
		let viewer: OfferedViewer | undefined = first;
		while (!signal.aborted) {
			try {
				viewer ??= await this.#connect();
				const reason = await this.#hold(viewer);
				this.#error = signal.aborted ? this.#error : new TurbocastError('publish_failed', `The connection to ${this.endpoint.url.origin} ended: ${reason}.`);
				await this.#remove();
			} catch (error) {
				this.#error = signal.aborted ? this.#error : TurbocastError.from(error, 'publish_failed');
			}
			viewer = undefined;
			if (signal.aborted) {
				return;
			}
			this.#failures += 1;
			if (this.#error?.code === 'publish_refused' || this.#failures > MOST_FAILURES) {
				return this.close();
			}
			this.#become('waiting');
			const waitMs = Math.max(this.#error?.retryAfterMs ?? 0, this.#waitMs());
			log.info({ code: this.#error?.code, reason: this.#error?.message, waitMs: Math.round(waitMs) }, 'publication lost; it is tried again');
			await clock.sleep(waitMs, signal).catch(() => undefined);
		}
	}

	#waitMs(): number {
		const firstMs = this.#parts.config.publish?.firstWaitMs ?? DEFAULT_FIRST_WAIT_MS;
		const mostMs = Math.min(LONGEST_WAIT_MS, firstMs * 2 ** (this.#failures - 1));
		return mostMs * (0.5 + this.#parts.randomUint32() / 2 ** 33);
	}

	/** Resolves with the reason when the connection is over, and ICE restarts did not help. */
	async #hold(viewer: OfferedViewer): Promise<string> {
		const restartsBefore = this.#restarts;
		for (let isNew = true; ; isNew = false) {
			const state = await this.#settled(viewer, ['connected', 'closed']);
			if (state.kind === 'closed') {
				return state.reason;
			}
			this.#connections += isNew ? 1 : 0;
			this.#become('live');
			this.#failures = 0;
			this.#error = undefined;
			await this.#settled(viewer, ['disconnected', 'closed']);
			this.#become('connecting');
			if (this.#restarts - restartsBefore >= MOST_RESTARTS || !(await this.#restart(viewer))) {
				await viewer.close('the way to the endpoint was lost');
			}
		}
	}

	/** The next state of one of these kinds, which may be the present one. */
	#settled(viewer: OfferedViewer, kinds: readonly ViewerState['kind'][]): Promise<ViewerState> {
		return new Promise((resolve) => {
			const look = (): void => {
				if (kinds.includes(viewer.state.kind)) {
					stop();
					resolve(viewer.state);
				}
			};
			const stop = viewer.onState(look);
			look();
		});
	}

	/** Whether the connection goes on: over a way that the endpoint answered for, or over that of before, which came back by itself. */
	async #restart(viewer: OfferedViewer): Promise<boolean> {
		const { log } = this.#parts;
		const { signal } = this.#life;
		const resource = this.#resource;
		try {
			const iceServers = resource === undefined ? undefined : await this.#reachable(viewer);
			if (resource === undefined || iceServers === undefined) {
				return viewer.state.kind === 'connected';
			}
			const { fragment, answered } = await viewer.renew(iceServers);
			await answered(await this.endpoint.restart(resource, fragment, signal));
			const isUp = viewer.state.kind === 'connected';
			this.#restarts += isUp ? 1 : 0;
			log.info({ to: this.endpoint.url.origin, isUp }, 'publication restarted ICE');
			return isUp;
		} catch (error) {
			log.info({ to: this.endpoint.url.origin, reason: TurbocastError.from(error).message }, 'publication cannot restart ICE; it is offered anew');
			return false;
		}
	}

	/**
	 * Waits for the endpoint before the way of before is given up: where all of the network stood still it comes back by itself, and then there is nothing to do.
	 * Gives the STUN and TURN servers of now, since credentials expire; `undefined` when the connection is up again, or over.
	 */
	async #reachable(viewer: OfferedViewer): Promise<readonly IceServer[] | undefined> {
		const { signal } = this.#life;
		while (viewer.state.kind === 'disconnected') {
			try {
				const iceServers = await this.endpoint.iceServers(signal);
				return viewer.state.kind === 'disconnected' ? iceServers : undefined;
			} catch {
				await this.#parts.clock.sleep(REACH_AGAIN_MS, signal);
			}
		}
		return undefined;
	}

	/** Whoever asks for it waits for it, though somebody else may have begun. */
	async #remove(): Promise<void> {
		const resource = this.#resource;
		this.#resource = undefined;
		if (resource !== undefined) {
			this.#removing = this.endpoint.remove(resource, AbortSignal.timeout(REMOVE_TIMEOUT_MS)).catch((error: unknown) => this.#parts.log.debug({ err: error }, 'An endpoint was not told of the end.'));
		}
		await this.#removing;
	}
}
