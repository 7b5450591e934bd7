/** Runs scripts/build-cuda.mjs for the tests. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { repositoryRoot } from '../repository.js';

/** Ends with the program; throws what it printed unless it succeeds. */
export const run = async (command: string, args: readonly string[]): Promise<string> => {
	const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
	const printed: Buffer[] = [];
	child.stdout.on('data', (data: Buffer) => printed.push(data));
	child.stderr.on('data', (data: Buffer) => printed.push(data));
	const code = await new Promise<number | null>((resolve, reject) => {
		child.on('error', reject);
		child.on('close', resolve);
	});
	const text = Buffer.concat(printed).toString('utf8');
	if (code !== 0) {
		throw new Error(`${command} ${args.join(' ')} ended with ${code}:\n${text}`);
	}
	return text;
};

export const build = (args: readonly string[]): Promise<string> => run(process.execPath, [join(repositoryRoot, 'scripts/build-cuda.mjs'), ...args]);

/** Why there can be no build with this compiler; `false` where there can. */
export const missing = (compiler: 'nvcc' | 'g++'): string | false => {
	const places = compiler === 'nvcc' ? [join(process.env['CUDA_HOME'] ?? '/usr/local/cuda', 'bin')] : (process.env['PATH'] ?? '').split(delimiter);
	return places.some((folder) => existsSync(join(folder, compiler))) ? false : `there is no ${compiler} on this machine`;
};

export const temporaryFolder = async (): Promise<AsyncDisposable & { readonly path: string }> => {
	const path = await mkdtemp(join(tmpdir(), 'turbocast-cuda-'));
	return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
};
