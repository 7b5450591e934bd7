/** Tries an encoder in a process of its own: a driver may crash or hang whoever asks it. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { EncoderImplementation } from './encoders/frame-encoder.js';
import type { PictureSize, TryOut } from './encoders/try-out.js';

export type EncoderReport =
	| { readonly implementation: EncoderImplementation; readonly kind: 'works' } & TryOut
	| { readonly implementation: EncoderImplementation; readonly kind: 'refused'; readonly why: string };

/** Loading the libraries from a cold disk on a busy machine takes seconds; a driver that takes longer hangs. */
export const SELF_TEST_TIMEOUT_MS = 15_000;

export type SelfTestRequest = { readonly implementation: EncoderImplementation; readonly ffmpegPath: string; readonly size: PictureSize; readonly timeoutMs?: number };

/** Never rejects, and takes `timeoutMs` at most. */
export const testEncoder = ({ implementation, ffmpegPath, size, timeoutMs = SELF_TEST_TIMEOUT_MS }: SelfTestRequest): Promise<EncoderReport> => new Promise((resolve) => {
	const child = fork(fileURLToPath(new URL('./encoder-self-test-process.js', import.meta.url)), [implementation, ffmpegPath, String(size.width), String(size.height)], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
	const settle = (report: EncoderReport): void => {
		clearTimeout(timer);
		child.kill('SIGKILL');
		resolve(report);
	};
	const refuse = (why: string): void => settle({ implementation, kind: 'refused', why });
	const timer = setTimeout(() => refuse(`its self-test took longer than ${timeoutMs / 1000} seconds`), timeoutMs);
	child.on('message', (message) => {
		// Our own process of the same release speaks here.
		const outcome = message as TryOut | { readonly why: string };
		if ('why' in outcome) {
			refuse(outcome.why);
		} else {
			settle({ implementation, kind: 'works', ...outcome });
		}
	});
	child.on('error', (error) => refuse(error.message));
	child.on('exit', (code, signal) => refuse(`its self-test ended with ${signal ?? `code ${code ?? 'unknown'}`}`));
});
