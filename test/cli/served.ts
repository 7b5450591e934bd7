/** `turbocast serve` as people run it: a process of its own on a free port, with everything that it prints kept. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { REALTIME_PATH } from '../../src/protocol/limits.js';
import { repositoryRoot } from '../repository.js';

export type Served = AsyncDisposable & {
	readonly pid: number;
	readonly url: string;
	readonly socketUrl: string;
	/** All output so far, of both streams. */
	readonly output: () => string;
	/** Lines of the log so far. */
	readonly log: () => { readonly [field: string]: unknown }[];
	/** Resolves with the first line of the log, printed already or to come, that has this message. */
	readonly logged: (message: string) => Promise<{ readonly [field: string]: unknown }>;
	/** Resolves with the first match in what is printed to standard error, log or not. */
	readonly printed: (pattern: RegExp) => Promise<RegExpExecArray>;
	readonly kill: (signal: NodeJS.Signals) => void;
	/** The exit status, or the name of the signal that ended it. */
	readonly exited: Promise<number | string>;
};

/** Resolves when it is ready. `environment` sets configuration keys. */
export const serve = async (environment: { readonly [name: string]: string } = {}): Promise<Served> => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'serve', '--port', '0'], {
		stdio: ['ignore', 'pipe', 'pipe'], cwd: repositoryRoot, env: { ...process.env, ...environment },
	});
	let output = '';
	let errors = '';
	child.stdout.on('data', (data: Buffer) => (output += data.toString()));
	child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
	const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
	const log = (): { [field: string]: unknown }[] =>
		errors.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}')).map((line) => JSON.parse(line) as { [field: string]: unknown });
	const until = async <T>(stream: NodeJS.ReadableStream, look: () => T | undefined): Promise<T> => {
		for (;;) {
			const found = look();
			if (found !== undefined) {
				return found;
			}
			await Promise.race([once(stream, 'data'), exited.then((status) => {
				throw new Error(`The service ended with ${status}: ${output}${errors}`);
			})]);
		}
	};
	const url = await until(child.stdout, () => /ready\. Open (\S+) /u.exec(output)?.[1]);
	return {
		pid: child.pid ?? 0,
		url,
		socketUrl: `${url.replace('http', 'ws').replace(/\/$/u, '')}${REALTIME_PATH}`,
		output: () => output + errors,
		log,
		printed: (pattern) => until(child.stderr, () => pattern.exec(errors) ?? undefined),
		logged: (message) => until(child.stderr, () => log().find((line) => line['msg'] === message)),
		kill: (signal) => child.kill(signal),
		exited,
		[Symbol.asyncDispose]: async () => {
			child.kill('SIGKILL');
			await exited;
		},
	};
};
