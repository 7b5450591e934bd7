/** The client SDK: what applications import. It runs in browsers as it is, without a bundler. */
export { connect, type ConnectOptions } from './client.js';
export type { TokenSource } from './control-socket.js';
export type { AppliedChange, Change, DisplayedChange } from './change.js';
export type { LiveSession, StartOptions } from './live-session.js';
export type { SessionEvent } from './session-event.js';
export { reconnectDelayMs } from './reconnect.js';
export type { SessionState } from './session-state.js';
export { ERRORS, TurbocastError, type ErrorCode } from '../src/protocol/errors.js';
export type { FrameMeta, ServerMessage, ServerMessages } from '../src/protocol/messages.js';
export type { ModelInfo } from './session-state.js';
