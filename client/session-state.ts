/** The life of a session as an application sees it. */
import type { TurbocastError } from '../src/protocol/errors.js';
import type { EndReason, ServerMessages } from '../src/protocol/messages.js';

export type ModelInfo = ServerMessages['session.created']['model'];
/** What runs, from `session.ready`: the seed in use, the prompts by their weights, the size and what is left of the time. */
export type RunInfo = ServerMessages['session.ready'];

export type SessionState =
	/** Control socket and video connection are being set up. */
	| { readonly kind: 'connecting' }
	/** A prompt may be sent, and its picture will come at once. */
	| { readonly kind: 'ready'; readonly model: ModelInfo }
	/** A prompt was sent, and waits for a place; `position` 1 is next. */
	| { readonly kind: 'queued'; readonly position: number; readonly queueSize: number; readonly estimatedWaitMs: number }
	/** A prompt was sent. */
	| { readonly kind: 'starting' }
	/** Video comes; `chunkIndex` is the last chunk that is complete, -1 before the first. */
	| { readonly kind: 'generating'; readonly chunkIndex: number }
	/** The picture stands still until `play()`. */
	| { readonly kind: 'paused'; readonly chunkIndex: number }
	/** The engine was lost and is being restarted; the video goes on by itself. */
	| { readonly kind: 'restarting'; readonly message: string }
	/** The connection was lost. After `delayMs` it is tried again, and the session goes on where it was. */
	| { readonly kind: 'reconnecting'; readonly attempt: number; readonly delayMs: number; readonly error: TurbocastError }
	/** Ended as somebody wished: the application, or the server by its rules. */
	| { readonly kind: 'ended'; readonly reason: EndReason }
	/** Ended by an error; `error.entry.retryable` says whether to connect again. */
	| { readonly kind: 'failed'; readonly error: TurbocastError };

export const isOver = (state: SessionState): boolean => state.kind === 'ended' || state.kind === 'failed';

/** The last chunk that is known to be complete, -1 before the first. */
export const chunkIndexOf = (state: SessionState): number => ('chunkIndex' in state ? state.chunkIndex : -1);
