/** Runs scripts/build-cuda.mjs for the tests. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
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

const SOURCES = join(repositoryRoot, 'native/cuda');

/** A folder with the emulation's library and check program, built once for the sources as they are: it takes a while on a busy machine, and several test files want it. */
export const emulatedBuild = async (): Promise<string> => {
	const hash = createHash('sha256').update(process.env['CXX'] ?? '');
	const names = (await readdir(SOURCES, { withFileTypes: true })).filter((entry) => entry.isFile()).map(({ name }) => join(SOURCES, name)).sort();
	for (const path of [...names, join(repositoryRoot, 'scripts/build-cuda.mjs')]) {
		hash.update(path).update(await readFile(path));
	}
	const finished = join(SOURCES, 'build', `emulated-${hash.digest('hex').slice(0, 16)}`);
	if (existsSync(finished)) {
		return finished;
	}
	await mkdir(join(SOURCES, 'build'), { recursive: true });
	const building = await mkdtemp(`${finished}-`);
	try {
		await build(['--emulated', '--out', building]);
		await rename(building, finished);
	} catch (error) {
		await rm(building, { recursive: true, force: true });
		// Another process may have been first.
		if (!existsSync(finished)) {
			throw error;
		}
	}
	return finished;
};
