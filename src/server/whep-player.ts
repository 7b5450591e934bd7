/** One player that came by WHEP: a member of a session, whose messages nobody reads, and the ICE session that its requests are about. */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ServerMessage, ServerMessages } from '../protocol/messages.js';
import { MOST_PATCHES_PER_MINUTE } from '../protocol/whep.js';
import { readOffer } from '../transport/offer.js';
import { fragmentOf, offerAgain, type SdpFragment } from '../transport/sdp-fragment.js';
import { Member } from './member.js';
import { RateLimit } from './rate-limit.js';
import type { SessionParts, Visitor } from './session-parts.js';
import type { Session } from './session.js';

const newEntityTag = (): string => `"${randomBytes(12).toString('base64url')}"`;

/** `If-Match: *` is for any ICE session (RFC 9110 section 13.1.1); the draft writes it in quotes. */
const matches = (condition: string, entityTag: string): boolean =>
	condition.split(',').map((tag) => tag.trim()).some((tag) => tag === '*' || tag === '"*"' || tag === entityTag);

export type WhepPlayerEvents = {
	/** It waits for a place. */
	readonly onQueued: (message: ServerMessages['session.queued']) => void;
	/** It has left its session, or its session has ended. Called once. */
	readonly onGone: (why: TurbocastError | undefined) => void;
};

export class WhepPlayer {
	/** In its address: whoever knows it may end it, where there are no keys. */
	readonly id = randomBytes(24).toString('base64url');
	readonly member: Member;
	readonly #clock: Clock;
	readonly #patches: RateLimit;
	#session: Session | undefined;
	#offerSdp = '';
	#usernameFragment = '';
	#entityTag = newEntityTag();
	#lastError: TurbocastError | undefined;

	constructor(parts: SessionParts, visitor: Visitor, events: WhepPlayerEvents) {
		this.#clock = parts.clock;
		this.#patches = new RateLimit(MOST_PATCHES_PER_MINUTE, 60_000, parts.clock.nowMs());
		this.member = new Member(parts, {
			send: (message) => this.#receive(message, events),
			close: () => events.onGone(this.#lastError),
			// Players have no socket of ours.
			video: { sendBytes: () => undefined, sendMeta: () => undefined, unsentBytes: () => 0 },
		}, visitor);
	}

	/** Strong, and another one after every restart of ICE. */
	get entityTag(): string {
		return this.#entityTag;
	}

	/** Answers the offer. From then on the player leaves its session when its connection ends. Throws what the offer lacks. */
	async connect(offerSdp: string): Promise<string> {
		this.#offerSdp = offerSdp;
		this.#usernameFragment = readOffer(offerSdp).usernameFragment;
		const answerSdp = await this.member.video.accept(offerSdp);
		const { viewer } = this.member.video;
		viewer?.onState(({ kind }) => {
			if (kind === 'closed') {
				// Later: the viewer that says so is in the middle of closing.
				void Promise.resolve().then(() => this.#session?.leave(this.member, 'stopped'));
			}
		});
		return answerSdp;
	}

	/** In this session from now on. */
	enter(session: Session): void {
		this.#session = session;
	}

	get session(): Session | undefined {
		return this.#session;
	}

	/** Idempotent. */
	async leave(): Promise<void> {
		await this.#session?.leave(this.member, 'stopped');
		await this.member.video.close('the player left');
	}

	/**
	 * More candidates, or, with other credentials than before, an ICE restart, which is answered with those of this side. `undefined`: nothing to
	 * answer. Throws `precondition_required`, `precondition_failed`, `rate_limited`, `invalid_sdp` or `invalid_state`.
	 */
	async patch(fragment: SdpFragment, ifMatch: string | undefined): Promise<string | undefined> {
		const retryAfterMs = this.#patches.take(this.#clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', `At most ${MOST_PATCHES_PER_MINUTE} requests a minute of one player; send candidates together.`, { retryAfterMs });
		}
		// Candidates that name the present ICE session themselves cannot be of another: clients that send no If-Match with them (whip-whep 1.2.0) lose nothing.
		if (ifMatch === undefined && fragment.usernameFragment !== this.#usernameFragment) {
			throw new TurbocastError('precondition_required', 'The request needs If-Match with the ETag of the answer, or "*" to restart ICE.');
		}
		if (ifMatch !== undefined && !matches(ifMatch, this.#entityTag)) {
			throw new TurbocastError('precondition_failed', 'ICE was restarted after the answer that If-Match names; send what belongs to the present ICE session.');
		}
		return fragment.usernameFragment === undefined || fragment.usernameFragment === this.#usernameFragment ? this.#trickle(fragment) : this.#restart(fragment);
	}

	async #trickle({ candidates, mid, isEnd }: SdpFragment): Promise<undefined> {
		for (const candidate of candidates) {
			await this.member.video.addCandidate({ candidate, ...(mid === undefined ? { sdp_mline_index: 0 } : { sdp_mid: mid }) });
		}
		if (isEnd) {
			await this.member.video.addCandidate(null);
		}
	}

	async #restart(fragment: SdpFragment): Promise<string> {
		const offerSdp = offerAgain(this.#offerSdp, fragment);
		const { video } = this.member;
		if (video.viewer?.continues(offerSdp) !== true) {
			throw new TurbocastError('invalid_state', 'The connection is not up, so that there is nothing to restart; send another offer with POST.');
		}
		const answerSdp = await video.accept(offerSdp);
		this.#offerSdp = offerSdp;
		this.#usernameFragment = fragment.usernameFragment ?? '';
		this.#entityTag = newEntityTag();
		return fragmentOf(answerSdp);
	}

	#receive(message: ServerMessage, { onQueued }: WhepPlayerEvents): void {
		if (message.type === 'session.queued') {
			onQueued(message);
		} else if (message.type === 'error') {
			this.#lastError = new TurbocastError(message.code, message.message, { param: message.param, retryAfterMs: message.retry_after_ms });
		}
	}
}
