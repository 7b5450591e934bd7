/** The toolkit's compiler takes every kernel, for the oldest cards and for the H100. What a card computes is for `native/cuda/build/check all` on one. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from '../repository.js';
import { build, missing, temporaryFolder } from './build-cuda.js';

test('nvcc compiles every kernel for sm_80 and sm_90, without a warning', { skip: missing('nvcc') }, async () => {
	await using folder = await temporaryFolder();
	await build(['--compile-only', '--out', folder.path]);
	const kernels = readdirSync(join(repositoryRoot, 'native/cuda')).filter((name) => name.endsWith('.cu') && name !== 'check.cu');
	assert.ok(kernels.length >= 4);
	assert.deepEqual(readdirSync(folder.path).filter((name) => name.includes('.cu')).sort(), kernels.map((name) => `${name}.o`).sort());
});
