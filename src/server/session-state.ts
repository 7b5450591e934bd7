/** What a session can be in, and as what it is counted. */
import type { EndReason } from '../protocol/messages.js';
import type { SessionRun } from './session-run.js';

export type SessionState =
	| { readonly kind: 'waiting' }
	/** In the line for a place; changes are taken already. */
	| { readonly kind: 'queued'; readonly run: SessionRun }
	/** The engine opens the stream. */
	| { readonly kind: 'starting'; readonly run: SessionRun }
	| { readonly kind: 'generating'; readonly run: SessionRun }
	| { readonly kind: 'ended'; readonly reason: EndReason };

/** `paused`: by whoever drives. `held`: for a connection that was lost, or for whoever begins a fork, whatever else it would be. */
export const SESSION_STATES = ['waiting', 'queued', 'starting', 'generating', 'paused', 'held'] as const;
/** Sessions that have ended are not counted any more. */
export type CountedState = (typeof SESSION_STATES)[number] | 'ended';

export const countedState = (state: SessionState, isDetached: boolean): CountedState => {
	if (state.kind === 'ended') {
		return 'ended';
	}
	if (isDetached) {
		return 'held';
	}
	return state.kind === 'generating' && state.run.line.isPaused ? 'paused' : state.kind;
};
