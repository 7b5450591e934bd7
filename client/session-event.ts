/** What `session.events()` yields: the server's messages, a record for each frame, and what happens in the browser. */
import type { FrameMeta, ServerMessage } from '../src/protocol/messages.js';
import type { SessionState } from './session-state.js';

export type FrameDisplayed = {
	readonly type: 'frame.displayed';
	/** 90 kHz; that of the `frame.meta` of the same frame. */
	readonly rtp_timestamp: number;
	/** `performance.now()` time at which the browser expects the frame on the screen. */
	readonly at_ms: number;
	/** Frames that the video element has been given so far. */
	readonly presented_frames: number;
};

export type SessionEvent = ServerMessage | FrameMeta | FrameDisplayed | { readonly type: 'state.changed'; readonly state: SessionState };
