/** The process of a self-test (self-test-process.ts) seen from its parent: what came of it, also when it died of it. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { SelfTestQuestion } from './self-test-process.js';

const ENTRY = fileURLToPath(new URL('./self-test-process.js', import.meta.url));

/** Never rejects: whatever goes wrong there is `why`, a half sentence. */
export const runInSelfTestProcess = <Outcome extends object>(question: SelfTestQuestion, timeoutMs: number): Promise<Outcome | { readonly why: string }> => new Promise((resolve) => {
	// The library and drivers write to standard error what the report says.
	const child = fork(ENTRY, [JSON.stringify(question)], { serialization: 'advanced', execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
	const timer = setTimeout(() => {
		child.kill('SIGKILL');
		resolve({ why: `its self-test took longer than ${timeoutMs / 1000} seconds` });
	}, timeoutMs);
	const settle = (outcome: Outcome | { readonly why: string }): void => {
		clearTimeout(timer);
		resolve(outcome);
	};
	child.on('message', (message) => {
		// Our own process of the same release speaks here.
		const outcome = message as Outcome | { readonly message: string };
		settle('message' in outcome ? { why: outcome.message } : outcome);
	});
	child.on('error', (error) => settle({ why: error.message }));
	child.on('exit', (code, signal) => settle({ why: `its self-test ended with ${signal ?? `code ${code ?? 'unknown'}`}` }));
});
