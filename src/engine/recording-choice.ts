/** Whether forwards of streams are recorded and replayed (recorded-forwards.ts): where that is asked for, and a self-test in a process of its own finds the same numbers. */
import { TurbocastError } from '../protocol/errors.js';
import { SELF_TEST_TIMEOUT_MS } from './device-choice.js';
import { deviceOf } from './profile.js';
import type { CardProfile, EngineProfile, UseMode } from './protocol.js';
import type { RecordingTest } from './recording-test.js';
import { runInSelfTestProcess } from './self-test-child.js';

export type RecordingChoice = { readonly areUsed: boolean; /** One sentence for the log. */ readonly why: string };

/** Never rejects: whatever goes wrong is `why`. */
const testRecordings = (profile: CardProfile, threads: number, kernels: boolean): Promise<RecordingTest | { readonly why: string }> =>
	runInSelfTestProcess<RecordingTest>({ profile, threads, kernels, of: 'recordings' }, SELF_TEST_TIMEOUT_MS);

export type RecordingRequest = {
	/** `engine.cuda_graphs`. */
	readonly mode: UseMode;
	/** What was chosen, and whether with our kernels. */
	readonly profile: EngineProfile;
	readonly kernels: boolean;
	readonly threads: number;
	/** Clips have no window, and are not recorded. */
	readonly isStream: boolean;
	/** For tests. */
	readonly test?: typeof testRecordings;
};

/** What came of the self-test: `wrong` with the figure, `unavailable` with why nothing could be recorded, as half a sentence. */
export type RecordingTrial = { readonly kind: 'equal' } & Pick<RecordingTest, 'directMs' | 'recordedMs'> | { readonly kind: 'wrong' | 'unavailable'; readonly why: string };

/** Whether forwards of a profile can be recorded and replayed with the same numbers. Nothing is started for one that does not run on CUDA. Never rejects. */
export const tryRecordings = async ({ profile, kernels, threads, test = testRecordings }: Omit<RecordingRequest, 'mode' | 'isStream'>): Promise<RecordingTrial> => {
	if (deviceOf(profile) !== 'cuda') {
		return { kind: 'unavailable', why: `${profile} does not run on CUDA` };
	}
	const outcome = await test(profile as CardProfile, threads, kernels);
	if ('why' in outcome) {
		return { kind: 'unavailable', why: outcome.why };
	}
	const { relativeError, directMs, recordedMs } = outcome;
	return relativeError === 0
		? { kind: 'equal', directMs, recordedMs }
		: { kind: 'wrong', why: `replayed recordings differ from the runs that were recorded (relative error ${relativeError.toExponential(1)}, and nothing but equal is right)` };
};

/**
 * `undefined` where there is nothing to choose. `auto` takes recordings that are right and faster. Throws `invalid_config` where they are asked for and nothing could be recorded,
 * `device_wrong` with the figure where they are and differ, `device_unavailable` where they cannot be made.
 */
export const chooseRecordings = async ({ mode, isStream, ...request }: RecordingRequest): Promise<RecordingChoice | undefined> => {
	if (mode === 'off') {
		return undefined;
	}
	if (deviceOf(request.profile) !== 'cuda' || !isStream) {
		if (mode === 'on') {
			throw new TurbocastError('invalid_config', `engine.cuda_graphs is on, but ${isStream ? `${request.profile} does not run on CUDA` : 'the model makes clips, which are not recorded'}. Set it to auto or off.`);
		}
		return undefined;
	}
	const trial = await tryRecordings(request);
	if (trial.kind !== 'equal') {
		if (mode === 'on') {
			throw new TurbocastError(trial.kind === 'wrong' ? 'device_wrong' : 'device_unavailable', `engine.cuda_graphs is on, but they cannot be used: ${trial.why}. Set it to auto or off, or see docs/gpu.md.`);
		}
		return { areUsed: false, why: trial.why };
	}
	const { directMs, recordedMs } = trial;
	const times = `${recordedMs.toFixed(2)} ms a forward against ${directMs.toFixed(2)} ms without`;
	return mode === 'auto' && recordedMs >= directMs ? { areUsed: false, why: `they are not faster: ${times}` } : { areUsed: true, why: `they are equal to the runs without: ${times}` };
};
