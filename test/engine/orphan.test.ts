/** Processes of ours whose parent is gone before they have loaded end by themselves. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from '../repository.js';

for (const [name, args] of [['engine/engine-process', [JSON.stringify({ modelFolder: join(repositoryRoot, 'models', 'toybox'), profile: 'cpu-int8', threads: 1 })]], ['media/encoder-process', []]] as const) {
	test(`${name} ends when it finds nobody`, async () => {
		const child = fork(join(repositoryRoot, 'dist', 'src', `${name}.js`), args, { stdio: 'ignore' });
		child.disconnect();
		const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(60_000) }).finally(() => child.kill('SIGKILL')) as [number | null];
		assert.equal(code, 0);
	});
}
