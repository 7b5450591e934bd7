/** The client SDK: what applications import. It runs in browsers as it is, without a bundler. */
export { connect, type ConnectionOptions, type ConnectOptions } from './client.js';
export type { BrowserSession } from './browser-session.js';
export type { AppliedChange, Change, DisplayedChange } from './change.js';
export type { ClockOffset } from './clock-sync.js';
export type { TokenSource } from './control-socket.js';
export type { LiveSession } from './live-session.js';
export { defaultReconnect, reconnectDelayMs, type LostConnection, type ReconnectPolicy } from './reconnect.js';
export type { RecordingSpan } from './recording.js';
export type { ResumeStorage } from './resume-store.js';
export type { FrameDisplayed, SessionEvent } from './session-event.js';
export type { At, ForkOptions, Prompt, PromptOptions, RequestOptions, ShareOptions, StartOptions, UpdateOptions } from './session-request.js';
export type { ModelInfo, RunInfo, SessionState } from './session-state.js';
export { CHANGE_STAGES, FRAME_STAGES, type ChangeStage, type ChangeTimeline, type FrameStage, type FrameTimeline, type Timeline } from './timeline.js';
export { TRANSPORTS, type TransportChoice, type TransportState, type VideoTransport } from './video-transport.js';
export { ERRORS, TurbocastError, type ErrorCode } from '../src/protocol/errors.js';
export { STEP_COUNTS, TRANSITION_MODES, type StepCount, type TransitionMode } from '../src/protocol/limits.js';
export type { FrameMeta, ServerMessage, ServerMessages } from '../src/protocol/messages.js';
