/** The profile `cuda-int8`, whose graphs are made of the kernels of native/cuda, on the CPU provider with the emulation. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runSelfTest } from '../../src/engine/self-test.js';
import { ditGraph } from '../../src/model/dit.js';
import { repositoryRoot } from '../repository.js';
import { ODD_DIT, randomDit } from '../verify/random-golden.js';
import { missing } from './build-cuda.js';
import { buildKernels, verifiedWith } from './emulated-kernels.js';

const GOLDEN = join(repositoryRoot, 'test/fixtures/golden');

describe('cuda-int8, on the processor', { skip: missing('g++') }, () => {
	let built: Awaited<ReturnType<typeof buildKernels>>;

	before(async () => {
		built = await buildKernels();
	});
	after(() => built[Symbol.asyncDispose]());

	test('its self-test finds it right', async () => {
		const { relativeError: error } = await runSelfTest({ profile: 'cuda-int8', threads: 1, open: () => built.device, runs: 0 }, () => 0);
		assert.ok(error > 1e-3 && error < 2e-2, `${error}`);
	});

	test('a stream of the original implementation, every layer and attention over its window in 8 bits', async () => {
		const { verdicts, counts } = await verifiedWith(built.device, join(GOLDEN, 'wan-causal-window'), 'cuda-int8');
		// Two blocks of eight layers each.
		assert.deepEqual([counts['W8A8Linear'], counts['Int8Attention'], counts['NormModulate']], [2 * 8, 2, 4]);
		assert.ok(verdicts.length > 0 && verdicts.every(({ relativeError: error }) => error > 1e-4 && error < 2e-2), JSON.stringify(verdicts));
	});

	test('TurboDiffusion\'s denoiser, in 8 bits where no choice of blocks hangs on them', async () => {
		const { verdicts, counts } = await verifiedWith(built.device, join(GOLDEN, 'turbo-dit'), 'cuda-int8');
		// So few blocks that only the last of the network is, and not its queries and keys.
		assert.deepEqual([counts['W8A8Linear'], counts['SparseLinearAttention'], counts['NormModulate']], [6, 2, 4]);
		assert.ok(verdicts.length > 0 && verdicts.every(({ relativeError: error }) => error > 1e-4 && error < 2e-2), JSON.stringify(verdicts));
	});

	test('8-bit tiles without kernels, or of several streams in one forward, are model_invalid', () => {
		const { weights } = randomDit(ODD_DIT, false, 3);
		const options = { weights, linears: 'w8a8', frames: 2, height: 4, width: 4 } as const;
		assert.throws(() => ditGraph(ODD_DIT, { ...options, mode: { kind: 'chunk' } }), { code: 'model_invalid', message: /kernels of native\/cuda/u });
		assert.throws(() => ditGraph(ODD_DIT, { ...options, kernels: true, mode: { kind: 'chunk', streams: 2 } }), { code: 'model_invalid', message: /share the scale/u });
	});
});
