/** `turbocast verify`: does this build compute what the original implementations computed? */
import type { Config } from '../config.js';
import { TurbocastError } from '../protocol/errors.js';
import { verifyFolder } from '../verify/verify.js';
import type { Arguments, FlagTable } from './arguments.js';

export const VERIFY_FLAGS = {
	profile: { values: ['P'], says: 'any profile of engine.profile; default cpu-fp32' },
	threads: { values: ['N'], says: 'threads that compute; default 1' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

/** One JSON line for each case; exit status 1 when any misses. A relative error that is no number stands as null. */
export const verify = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [folder] = args.words;
	if (folder === undefined || args.words.length > 1) {
		throw new TurbocastError('invalid_option', 'Give one folder of golden tensors: turbocast verify DIR.');
	}
	// A check is of the exact arithmetic unless asked otherwise, whatever the service is configured to use.
	const profile = args.has('profile') && config.engine.profile !== 'auto' ? config.engine.profile : 'cpu-fp32';
	// On demand: the same command serves, and the process that serves must not load the tensor library.
	const { openBackend } = await import('../engine/open-device.js');
	const backend = openBackend(profile, config.engine.threads);
	const warn = (sentence: string): void => {
		process.stderr.write(`turbocast: ${sentence}\n`);
	};
	for await (const { case: name, kind, relativeError, pass } of verifyFolder(folder, profile, backend, warn)) {
		process.stdout.write(`${JSON.stringify({ case: name, kind, relative_error: relativeError, pass })}\n`);
		if (!pass) {
			process.exitCode = 1;
		}
		signal.throwIfAborted();
	}
};
