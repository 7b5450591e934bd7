/** Runs the cases against a server, one after the other. Nothing is known of it but its address and docs/protocol.md. */
import { Refused } from './connection.js';
import { OPENING_CASES } from './opening-cases.js';
import { PLAYER_CASES } from './player-cases.js';
import { RESUME_CASES } from './resume-cases.js';
import { SERVICE_CASES } from './service-cases.js';
import { SESSION_CASES } from './session-cases.js';
import { SHARING_CASES } from './sharing-cases.js';
import { SOCKET_VIDEO_CASES } from './socket-video-cases.js';
import { Subject, type ServerCase } from './server-case.js';
import { TELEMETRY_CASES } from './telemetry-cases.js';
import { Inapplicable, type Result } from './verdict.js';

export const SERVER_CASES: readonly ServerCase[] = [...OPENING_CASES, ...SESSION_CASES, ...RESUME_CASES, ...SHARING_CASES, ...SERVICE_CASES, ...SOCKET_VIDEO_CASES, ...TELEMETRY_CASES, ...PLAYER_CASES];

export type ServerSuiteOptions = {
	/** Of the control socket. */
	readonly url: string;
	readonly token: string | undefined;
	/** For how long an answer is waited for. */
	readonly patienceMs: number;
	/** Cases whose name or section has this text; all when left out. */
	readonly only?: string | undefined;
	readonly signal: AbortSignal;
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const runCase = async (subject: Subject, { name, section, run }: ServerCase): Promise<Result> => {
	const startedAtMs = performance.now();
	const result = (verdict: Result['verdict'], reason?: string): Result => ({ name, section, verdict, reason, tookMs: Math.round(performance.now() - startedAtMs) });
	let failure: unknown;
	try {
		await run(subject);
	} catch (error) {
		failure = error;
	}
	try {
		await subject.clear();
	} catch (error) {
		// A rule that was broken is the reason of what did not come then.
		failure = error;
	}
	if (failure instanceof Inapplicable) {
		return result('skipped', failure.message);
	}
	return failure === undefined ? result('pass') : result('fail', failure instanceof Refused ? `${failure.message}, where it should be accepted` : messageOf(failure));
};

/** Results as they come. Throws the reason of the signal. */
export const runServerSuite = async function* ({ url, token, patienceMs, only = '', signal }: ServerSuiteOptions): AsyncGenerator<Result, void> {
	const subject = new Subject({ url, token, patienceMs });
	for (const each of SERVER_CASES.filter(({ name, section }) => `${section} ${name}`.includes(only))) {
		signal.throwIfAborted();
		yield await runCase(subject, each);
	}
};
