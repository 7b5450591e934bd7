/** What a session sees of a viewer's connection, whatever carries it. */
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import type { FrameMeta } from '../protocol/messages.js';

export type IceCandidate = {
	readonly candidate: string;
	readonly sdp_mid?: string | null;
	readonly sdp_mline_index?: number | null;
	readonly username_fragment?: string | null;
};

export type ViewerState =
	| { readonly kind: 'connecting' }
	| { readonly kind: 'connected' }
	/** Lost for now; may come back by itself. */
	| { readonly kind: 'disconnected' }
	| { readonly kind: 'closed'; readonly reason: string };

export type Viewer = {
	readonly id: string;
	/** Negotiated; fixed for the life of the viewer. */
	readonly codec: VideoCodec;
	readonly state: ViewerState;
	readonly onState: (listener: (state: ViewerState) => void) => () => void;
	/** The viewer needs a key frame (picture loss, or it has just connected). At most one call a frame interval. */
	readonly onKeyframeNeeded: (listener: () => void) => () => void;
	/** What the way to it carries of video, bits a second; `undefined`: no limit is known. Changes all the time. */
	readonly bandwidthBps: number | undefined;
	/** How long what was sent already will still take to arrive, beyond what the way takes anyhow; 0 when nothing waits or it is not known. */
	readonly backlogMs: number;
	/**
	 * Sends one access unit. `'dropped'` when not connected or too far
	 * behind; after a drop everything is dropped until a key frame, so that no broken picture is shown.
	 */
	readonly send: (chunk: EncodedChunk) => 'sent' | 'dropped';
	/** Sends a record on the telemetry channel when it is open. */
	readonly sendMeta: (meta: FrameMeta) => void;
	/** Whether the offer is another one of the peer connection that is up, so that it is for `restart` and not for a viewer of its own. */
	readonly continues: (offerSdp: string) => boolean;
	/**
	 * Answers such an offer: an ICE restart (RFC 8445 section 2.4), which finds a new way for what was negotiated before.
	 * Throws `invalid_sdp` or `invalid_state`, and the viewer stays as it was.
	 */
	readonly restart: (offerSdp: string) => Promise<string>;
	/** A trickled candidate of the peer; `null` ends them. */
	readonly addCandidate: (candidate: IceCandidate | null) => Promise<void>;
	/** Idempotent. */
	readonly close: (reason: string) => Promise<void>;
};

/** As `RTCIceServer` (https://www.w3.org/TR/webrtc/#rtciceserver-dictionary). */
export type IceServerAddress = { readonly urls: string | readonly string[]; readonly username?: string | undefined; readonly credential?: string | undefined };

/** An ICE restart that this side has begun. */
export type RestartOffer = {
	/** Credentials and all candidates of the new ICE session (RFC 8840 section 9). */
	readonly fragment: string;
	/** Takes those of the peer and looks for a way: the viewer is `connected` or `closed` then. Throws `invalid_sdp`. */
	readonly answered: (fragment: string) => Promise<void>;
};

/** A viewer that was offered the video by this side, which therefore restarts ICE. It is `disconnected` as soon as nothing comes from its peer any more. */
export type OfferedViewer = Viewer & {
	/**
	 * Begins an ICE restart, with other STUN and TURN servers beside those of the configuration. The way of before is gone then, and a restart that nobody
	 * answers ends the viewer. Throws `invalid_state` when it is closed.
	 */
	readonly renew: (iceServers: readonly IceServerAddress[]) => Promise<RestartOffer>;
};

/** An offer of this side: whoever answers it gets the video. */
export type OutgoingOffer = {
	/** With all candidates of this side. */
	readonly offerSdp: string;
	/** Throws `invalid_sdp` for an answer that does not take the video; the offer can then only be closed. */
	readonly answered: (answerSdp: string) => Promise<OfferedViewer>;
	/** Gives up an offer that was not answered. Idempotent; leaves the viewer of one that was. */
	readonly close: () => Promise<void>;
};

export type ViewerOffer = { readonly viewer: Viewer; readonly answerSdp: string };

/** Viewers, those of them whose way is known to carry less than the most, and the packets of all there ever were: sent for the first time, sent again, and reported lost by their receivers. */
export type TransportCounts = { readonly connected: number; readonly limited: number; readonly sent: number; readonly resent: number; readonly lost: number };

/** Makes viewers out of offers, those of others and its own. One for the whole server; the viewers it made end with it. */
export type Transport = {
	/** Answers an offer with all candidates of this side. Throws `invalid_sdp` when the offer cannot be answered. */
	readonly accept: (offerSdp: string) => Promise<ViewerOffer>;
	/** Offers the video; `iceServers` are tried beside those of the configuration. Throws `transport_failed` when no addresses could be gathered. */
	readonly offer: (iceServers: readonly IceServerAddress[]) => Promise<OutgoingOffer>;
	readonly counts: () => TransportCounts;
	/** Closes every viewer that is left; idempotent. */
	readonly close: () => Promise<void>;
};
