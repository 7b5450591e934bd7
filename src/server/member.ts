/** One connection in a session: the way to its client, what it may do, and its video. */
import { TurbocastError } from '../protocol/errors.js';
import { errorMessage, type ClientMessages, type ServerMessage, type ServerMessages } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import { RateLimit } from './rate-limit.js';
import type { SessionParts, SessionPeer, Visitor } from './session-parts.js';
import { ViewerSlot } from './viewer-slot.js';

/** The session that a member belongs to at present. */
export type MemberHost = {
	/** Its viewer came, went, or was asked for. */
	readonly watchingChanged: () => void;
	readonly keyframeNeeded: (viewer: Viewer) => void;
};

const DEFAULT_OFFERS_PER_MINUTE = 30;
const NOWHERE: MemberHost = { watchingChanged: () => undefined, keyframeNeeded: () => undefined };

export class Member {
	readonly peer: SessionPeer;
	readonly visitor: Visitor;
	readonly video: ViewerSlot;
	/** Changed when the member goes over to another session, its video with it. */
	host: MemberHost = NOWHERE;
	readonly #parts: Pick<SessionParts, 'clock'>;
	readonly #offers: RateLimit;

	constructor(parts: Pick<SessionParts, 'transport' | 'clock' | 'config'>, peer: SessionPeer, visitor: Visitor) {
		this.peer = peer;
		this.visitor = visitor;
		this.#parts = parts;
		this.#offers = new RateLimit(parts.config.offersPerMinute ?? DEFAULT_OFFERS_PER_MINUTE, 60_000, parts.clock.nowMs());
		this.video = new ViewerSlot(parts.transport, {
			onWatching: (viewer) => {
				this.host.watchingChanged();
				if (viewer !== undefined) {
					// Whoever comes late, or back, has nothing to build the next frame upon.
					this.host.keyframeNeeded(viewer);
				}
			},
			onKeyframeNeeded: (viewer) => this.host.keyframeNeeded(viewer),
		});
	}

	send(message: ServerMessage): void {
		this.peer.send(message);
	}

	/** Another connection goes on with its session. */
	turnOut(ended: ServerMessages['session.ended']): void {
		const error = new TurbocastError('session_taken_over', 'Another connection went on with this session.');
		this.host = NOWHERE;
		this.send(errorMessage(error));
		this.send(ended);
		this.peer.close(error.entry.closeCode, 'taken_over');
		void this.video.close('another connection went on');
	}

	/** Answers an offer. Throws `rate_limited`, `invalid_sdp` or `invalid_state`. */
	async offer(message: ClientMessages['webrtc.offer']): Promise<void> {
		const retryAfterMs = this.#offers.take(this.#parts.clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', 'Too many offers; one connection needs only a few.', { retryAfterMs });
		}
		const accepting = this.video.accept(message.sdp);
		// The first offer ends a headless playout: from now on the frames wait for the viewer.
		this.host.watchingChanged();
		const sdp = await accepting.catch((error: unknown) => {
			this.host.watchingChanged();
			throw error;
		});
		this.send({ type: 'webrtc.answer', ...(message.event_id === undefined ? {} : { event_id: message.event_id }), sdp });
	}
}
