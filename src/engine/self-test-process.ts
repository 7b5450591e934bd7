/** Entry of the process that runs the self-test of one profile (device-choice.ts) and reports; it may die in doing so. */
import { systemClock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { runSelfTest, type SelfTestRequest } from './self-test.js';

const request = JSON.parse(process.argv[2] ?? '{}') as SelfTestRequest;
process.on('disconnect', () => process.exit(0));
const outcome = await runSelfTest(request, systemClock.nowMs).catch((error: unknown) => ({ message: TurbocastError.from(error).message }));
process.send?.(outcome, undefined, undefined, () => process.exit(0));
