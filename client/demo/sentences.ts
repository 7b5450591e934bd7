/** What the page says, in whole sentences: pure functions of what is known. */
import type { ServerMessages, SessionState, TurbocastError } from '../index.js';

const waitOf = (ms: number): string => {
	const seconds = Math.max(1, Math.round(ms / 1000));
	return seconds < 90 ? `${seconds} ${seconds === 1 ? 'second' : 'seconds'}` : `${Math.round(seconds / 60)} minutes`;
};

/** What is happening, for the status line. `isWanted`: Start was pressed and Stop was not. */
export const statusOf = (state: SessionState, isWanted: boolean): string => {
	switch (state.kind) {
		case 'connecting': return 'Connecting …';
		case 'ready': return isWanted ? 'Waiting to start …' : 'Ready. Type a prompt and press Start.';
		case 'queued': return `Waiting for a place: ${state.position === 1 ? 'you are next' : `number ${state.position} in line`}, about ${waitOf(state.estimatedWaitMs)}. The prompt can still be edited.`;
		case 'starting': return 'Painting the first frames …';
		case 'generating': return 'Generating. Edit the prompt any time.';
		case 'restarting': return 'Restarting the engine; the video goes on by itself …';
		case 'paused': return 'Paused.';
		case 'reconnecting': return state.attempt === 0 ? 'The connection was lost; picking it up again …' : 'Still no connection; trying again …';
		case 'ended': return 'Stopped.';
		case 'failed': return state.error.message;
	}
};

/** Beside it, for the eye only: changes several times a second. */
export const progressOf = (state: SessionState): string =>
	state.kind === 'generating' && state.chunkIndex >= 0 ? `chunk ${state.chunkIndex + 1}` : '';

/** Empty when every word is known. */
export const unknownWordsNote = (words: readonly string[]): string => {
	const quoted = [...new Set(words)].slice(0, 5).map((word) => `“${word}”`);
	if (quoted.length === 0) {
		return '';
	}
	const list = quoted.length === 1 ? `the word ${quoted.join('')}` : `the words ${quoted.slice(0, -1).join(', ')} and ${quoted.at(-1) ?? ''}`;
	return `I don't know ${list}. The rest of the prompt is used.`;
};

/** What went wrong, and when the page tries again by itself: in place of the advice to do so, which follows the semicolon. */
export const retryNote = (error: TurbocastError, delayMs: number): string => {
	const seconds = Math.max(1, Math.round(delayMs / 1000));
	const [what = error.message] = error.message.replace(/[.]$/u, '').split(';', 1);
	return `${what}. Trying again in ${seconds === 1 ? 'a second' : `${seconds} seconds`}.`;
};

const REASONS: { readonly [reason in ServerMessages['session.expiring']['reason']]: string } = {
	max_duration: 'its time is over', idle: 'nobody is watching', draining: 'the server is shutting down',
};

/** Empty when the warning was taken back. */
export const expiringNote = (reason: ServerMessages['session.expiring']['reason'], secondsLeft: number | null): string =>
	secondsLeft === null ? '' : `This session ends in ${waitOf(secondsLeft * 1000)}: ${REASONS[reason]}.`;

/** Empty unless the picture runs slower than it should. `canBeFaster`: fewer steps are there to be chosen. */
export const paceNote = ({ reason, fps }: Pick<ServerMessages['pacing.updated'], 'reason' | 'fps'>, modelFps: number, canBeFaster: boolean): string =>
	reason === 'recovered' || fps >= 0.97 * modelFps ? '' : `Generation falls behind: the picture runs at ${Math.round(fps)} of ${modelFps} frames a second.${canBeFaster ? ' Fewer steps are faster.' : ''}`;
