/** What ends a session by itself. */
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import type { EndReason, ExpiringReason } from '../protocol/messages.js';
import { Countdown } from './countdown.js';
import type { ServerConfig } from './server-config.js';

export type SessionCountdowns = {
	/** Runs while nobody has started. */
	readonly start: Countdown;
	/** Runs while nobody watches. */
	readonly idle: Countdown;
	/** Runs from the start on. */
	readonly duration: Countdown;
	/** Runs while there is no connection that has the session. */
	readonly grace: Countdown;
};

export type CountdownListener = {
	/** `undefined` takes the warning back. */
	readonly onWarning: (reason: ExpiringReason, secondsLeft: number | undefined) => void;
	readonly onFailed: (error: TurbocastError, reason: EndReason) => void;
	readonly onGraceOver: () => void;
};

const seconds = (timeMs: number): number => Math.round(timeMs / 1000);

export const createCountdowns = (
	{ config, clock, maxMs }: { readonly config: ServerConfig; readonly clock: Clock; readonly maxMs: number }, { onWarning, onFailed, onGraceOver }: CountdownListener,
): SessionCountdowns => ({
	start: new Countdown(clock, {
		onElapsed: () => onFailed(new TurbocastError('start_timeout', `No session was started within ${seconds(config.startTimeoutMs)} seconds; connect again when there is a prompt.`), 'idle'),
	}),
	idle: new Countdown(clock, {
		onWarning: (left) => onWarning('idle', left),
		onElapsed: () => onFailed(new TurbocastError('idle_timeout', `Nobody was watching for ${seconds(config.idleTimeoutMs)} seconds; connect again to go on.`), 'idle'),
	}),
	duration: new Countdown(clock, {
		onWarning: (left) => onWarning('max_duration', left),
		onElapsed: () => onFailed(new TurbocastError('max_duration', `The session reached its longest duration of ${seconds(maxMs)} seconds; start another one.`), 'max_duration'),
	}),
	grace: new Countdown(clock, { onElapsed: onGraceOver }),
});
