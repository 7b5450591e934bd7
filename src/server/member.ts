/** One connection in a session: the way to its client, what it may do, and its video. */
import { TurbocastError } from '../protocol/errors.js';
import { errorMessage, type ClientMessages, type ServerMessage, type ServerMessages } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import { RateLimit } from './rate-limit.js';
import type { SessionParts, SessionPeer, Visitor } from './session-parts.js';
import { SocketSlot } from './socket-slot.js';
import { ViewerSlot, type ViewerSlotEvents } from './viewer-slot.js';

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
	/** Instead of `video`, or beside it while the one goes over to the other. */
	readonly socketVideo: SocketSlot;
	/** Changed when the member goes over to another session, its video with it. */
	host: MemberHost = NOWHERE;
	readonly #parts: Pick<SessionParts, 'clock'>;
	readonly #offers: RateLimit;

	constructor(parts: Pick<SessionParts, 'transport' | 'clock' | 'config'>, peer: SessionPeer, visitor: Visitor) {
		this.peer = peer;
		this.visitor = visitor;
		this.#parts = parts;
		this.#offers = new RateLimit(parts.config.offersPerMinute ?? DEFAULT_OFFERS_PER_MINUTE, 60_000, parts.clock.nowMs());
		const events: ViewerSlotEvents = {
			onWatching: (viewer) => {
				this.host.watchingChanged();
				if (viewer !== undefined) {
					// Whoever comes late, or back, has nothing to build the next frame upon.
					this.host.keyframeNeeded(viewer);
				}
			},
			onKeyframeNeeded: (viewer) => this.host.keyframeNeeded(viewer),
		};
		this.video = new ViewerSlot(parts.transport, events);
		this.socketVideo = new SocketSlot(peer.video, parts.clock, events);
	}

	/** All that frames go to. */
	get watching(): Viewer[] {
		return [this.video.watching, this.socketVideo.watching].flatMap((viewer) => viewer ?? []);
	}

	/** Whether it has asked for the video yet. */
	get wasOffered(): boolean {
		return this.video.wasOffered || this.socketVideo.wasOpened;
	}

	/** Idempotent. */
	async closeVideo(reason: string): Promise<void> {
		await Promise.all([this.video.close(reason), this.socketVideo.close(reason)]);
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
		void this.closeVideo('another connection went on');
	}

	/** Answers an offer. Throws `rate_limited`, `invalid_sdp` or `invalid_state`. */
	async offer(message: ClientMessages['webrtc.offer']): Promise<void> {
		this.#countOffer();
		const accepting = this.video.accept(message.sdp);
		// The first offer ends a headless playout: from now on the frames wait for the viewer.
		this.host.watchingChanged();
		const sdp = await accepting.catch((error: unknown) => {
			this.host.watchingChanged();
			throw error;
		});
		this.send({ type: 'webrtc.answer', ...(message.event_id === undefined ? {} : { event_id: message.event_id }), sdp });
	}

	/** Throws `rate_limited`. */
	openSocketVideo({ event_id: eventId, codecs }: ClientMessages['video.open']): void {
		this.#countOffer();
		const codec = this.socketVideo.open(codecs);
		this.send({ type: 'video.opened', ...(eventId === undefined ? {} : { event_id: eventId }), codec });
	}

	#countOffer(): void {
		const retryAfterMs = this.#offers.take(this.#parts.clock.nowMs());
		if (retryAfterMs > 0) {
			throw new TurbocastError('rate_limited', 'Too many offers; one connection needs only a few.', { retryAfterMs });
		}
	}
}
