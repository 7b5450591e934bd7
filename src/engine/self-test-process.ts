/** Entry of the process that runs one self-test (self-test-child.ts) and reports; it may die in doing so. */
import { systemClock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { runRecordingTest } from './recording-test.js';
import { runSelfTest, type SelfTestRequest } from './self-test.js';

/** As JSON, the only argument of the process. */
export type SelfTestQuestion = Pick<SelfTestRequest, 'profile' | 'threads' | 'kernels'> & {
	/** What is tested: the numbers of the profile, or whether replayed recordings have the same. Default `numbers`. */
	readonly of?: 'numbers' | 'recordings' | undefined;
};

const { of, ...request } = JSON.parse(process.argv[2] ?? '{}') as SelfTestQuestion;
process.on('disconnect', () => process.exit(0));
const outcome = await (of === 'recordings' ? runRecordingTest : runSelfTest)(request, systemClock.nowMs).catch((error: unknown) => ({ message: TurbocastError.from(error).message }));
process.send?.(outcome, undefined, undefined, () => process.exit(0));
