/** What `session.events()` yields: the server's messages, a record for each frame, and what happens on this side. */
import type { FrameMeta, ServerMessage } from '../src/protocol/messages.js';
import type { ClockOffset } from './clock-sync.js';
import type { SessionState } from './session-state.js';
import type { FrameTimeline } from './timeline.js';
import type { TransportState } from './video-transport.js';

export type FrameDisplayed = {
	readonly type: 'frame.displayed';
	/** 90 kHz; that of the `frame.meta` of the same frame. */
	readonly rtp_timestamp: number;
	/** `performance.now()` time at which the browser expects the frame on the screen, or at which it was handed to the application in Node. */
	readonly at_ms: number;
	/** Frames shown so far. */
	readonly presented_frames: number;
	/** Its record; `undefined` when that was lost or is late. */
	readonly meta: FrameMeta | undefined;
	/** From the engine to the screen; `undefined` without a record, or until the clocks are compared. */
	readonly timeline: FrameTimeline | undefined;
};

export type SessionEvent =
	| ServerMessage
	| FrameMeta
	| FrameDisplayed
	| { readonly type: 'state.changed'; readonly state: SessionState }
	/** The picture comes another way. */
	| ({ readonly type: 'transport.changed' } & TransportState)
	/** The clocks of both sides were compared again. */
	| { readonly type: 'clock.synced'; readonly offset: ClockOffset };
