/** The video of one connection: answers offers, takes candidates, and tells when it is watched. */
import { TurbocastError } from '../protocol/errors.js';
import type { IceCandidate, Transport, Viewer, ViewerOffer } from '../transport/transport.js';

export type ViewerSlotEvents = {
	/** Called with the viewer when it can be sent to, and with `undefined` when nobody can. */
	readonly onWatching: (viewer: Viewer | undefined) => void;
	readonly onKeyframeNeeded: (viewer: Viewer) => void;
};

/** Candidates that may come before the offer is answered: more than any browser gathers. */
const MAX_EARLY_CANDIDATES = 64;

type Negotiation = { readonly viewer: Promise<Viewer>; waitingCandidates: number };

export class ViewerSlot {
	readonly #transport: Transport;
	readonly #events: ViewerSlotEvents;
	/** Where candidates go: the newest offer that was not refused. */
	#negotiation: Negotiation | undefined;
	#isNegotiating = false;
	#viewer: Viewer | undefined;
	#isClosed = false;

	constructor(transport: Transport, events: ViewerSlotEvents) {
		this.#transport = transport;
		this.#events = events;
	}

	/** Whether anybody has asked for the video yet, with an offer that was not refused. */
	get wasOffered(): boolean {
		return this.#negotiation !== undefined;
	}

	/** The viewer that was negotiated last, connected or not. */
	get viewer(): Viewer | undefined {
		return this.#viewer;
	}

	get watching(): Viewer | undefined {
		return this.#viewer?.state.kind === 'connected' ? this.#viewer : undefined;
	}

	/**
	 * Answers an offer; only then the viewer of an earlier one is closed, so that a bad offer costs nothing. Another offer of the same
	 * peer connection is an ICE restart of the viewer that is there. Throws `invalid_sdp`, `unsupported_media`, or `invalid_state` while another is being answered.
	 */
	async accept(offerSdp: string): Promise<string> {
		if (this.#isNegotiating) {
			throw new TurbocastError('invalid_state', 'Another offer is still being answered; wait for its webrtc.answer.');
		}
		this.#isNegotiating = true;
		const before = { viewer: this.#viewer, negotiation: this.#negotiation };
		const accepting = this.#answer(offerSdp);
		const negotiation: Negotiation = { viewer: accepting.then((offer) => offer.viewer), waitingCandidates: 0 };
		negotiation.viewer.catch(() => undefined);
		this.#negotiation = negotiation;
		try {
			const { viewer, answerSdp } = await accepting;
			if (this.#isClosed) {
				await viewer.close('the session has ended');
				throw new TurbocastError('invalid_state', 'The session has ended.');
			}
			if (viewer !== before.viewer) {
				this.#adopt(viewer);
				await before.viewer?.close('replaced by a new offer');
			}
			return answerSdp;
		} catch (error) {
			this.#negotiation = before.negotiation;
			throw error;
		} finally {
			this.#isNegotiating = false;
		}
	}

	/** From now on this one, which was offered from here; the one before is closed. Throws `invalid_state` when there will be no more. */
	async replace(viewer: Viewer): Promise<void> {
		if (this.#isClosed) {
			await viewer.close('the session has ended');
			throw new TurbocastError('invalid_state', 'The session has ended.');
		}
		const before = this.#viewer;
		this.#negotiation = { viewer: Promise.resolve(viewer), waitingCandidates: 0 };
		this.#adopt(viewer);
		await before?.close('replaced by another connection');
	}

	async #answer(offerSdp: string): Promise<ViewerOffer> {
		const viewer = this.#viewer;
		return viewer?.continues(offerSdp) === true ? { viewer, answerSdp: await viewer.restart(offerSdp) } : this.#transport.accept(offerSdp);
	}

	async addCandidate(candidate: IceCandidate | null): Promise<void> {
		const negotiation = this.#negotiation;
		if (negotiation === undefined) {
			throw new TurbocastError('invalid_state', 'Send webrtc.offer before webrtc.candidate.');
		}
		if (negotiation.waitingCandidates >= MAX_EARLY_CANDIDATES) {
			throw new TurbocastError('rate_limited', `${MAX_EARLY_CANDIDATES} candidates already wait for the answer; send no more before it.`);
		}
		negotiation.waitingCandidates += 1;
		try {
			const viewer = await negotiation.viewer.catch(() => undefined);
			await viewer?.addCandidate(candidate);
		} finally {
			negotiation.waitingCandidates -= 1;
		}
	}

	/** Idempotent. */
	async close(reason: string): Promise<void> {
		this.#isClosed = true;
		await this.#viewer?.close(reason);
	}

	#adopt(viewer: Viewer): void {
		this.#viewer = viewer;
		viewer.onKeyframeNeeded(() => this.#events.onKeyframeNeeded(viewer));
		viewer.onState(() => {
			if (this.#viewer === viewer) {
				this.#events.onWatching(this.watching);
			}
		});
		this.#events.onWatching(this.watching);
	}
}
