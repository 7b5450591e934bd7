/** `turbocast bench gpu`: what is counted, what is left out and why, and the whole of it on the processor and on software Vulkan. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import type { GpuBenchReport } from '../../src/bench/gpu-bench.js';
import { limitOf, type StageReport } from '../../src/bench/stage.js';
import { FLOAT32, matrixTypes } from '../../src/bench/stage-arithmetic.js';
import { percentile, timeRuns } from '../../src/bench/timing.js';
import { clipSeconds, decodeFigures, kernelUses, liveFigures, partName } from '../../src/bench/wan-stage-names.js';
import { planWanStage, type WanConditions } from '../../src/bench/wan-stages.js';
import { checkReport } from './report-check.js';
import { writeRandomModel } from '../model/random-model.js';
import { repositoryRoot } from '../repository.js';

const turbocast = (args: readonly string[], environment: { readonly [name: string]: string } = {}): Promise<{ status: number; stdout: string; stderr: string }> => new Promise((resolve) => {
	execFile(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), ...args], { maxBuffer: 16 * 1024 * 1024, env: { ...process.env, ...environment } }, (error, stdout, stderr) =>
		resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr }));
});

test('the limit of a stage is the slower of its products at their rates and its bytes at the copy rate', () => {
	const limits = { copyBytesPerSecond: 1e9, flopsPerSecond: { float32: 2 ** 30, int8: 2 ** 32 } };
	const work = { flops: { linear: 2 ** 23, attention: 2 ** 20, convolution: 0 } };
	assert.deepEqual(limitOf(work, 1e6, { ...FLOAT32, linear: 'int8' }, limits), { limitMs: 1000 * 3 / 1024, bound: 'matrix rate' });
	assert.deepEqual(limitOf(work, 1e6, FLOAT32, limits), { limitMs: 1000 * 9 / 1024, bound: 'matrix rate' });
	assert.deepEqual(limitOf(work, 2e7, FLOAT32, limits), { limitMs: 20, bound: 'copy bandwidth' });
	assert.ok(Number.isNaN(limitOf(work, 1, { ...FLOAT32, linear: 'float16' }, limits).limitMs), 'a rate that was not measured is no number, not zero');
});

test('runs are timed until the budget is used up; a first run that uses it up stands for all', async () => {
	let now = 0;
	const run = (ms: number) => () => {
		now += ms;
		return Promise.resolve();
	};
	assert.deepEqual(await timeRuns(run(10), 35, () => now), { firstMs: 10, medianMs: 10, p95Ms: 10, fastestMs: 10, runs: 3 });
	assert.deepEqual(await timeRuns(run(50), 35, () => now), { firstMs: 50, medianMs: 50, p95Ms: 50, fastestMs: 50, runs: 0 });
	assert.equal((await timeRuns(run(0.001), 1e9, () => now)).runs, 40);
	assert.equal(percentile([3, 1, 2], 0.5), 2);
	assert.ok(Number.isNaN(percentile([], 0.5)));
});

const PLENTY: WanConditions = { profile: 'webgpu-fp32', size: { width: 832, height: 480 }, memoryBytes: 1e15, budgetMs: 1e12, limitMs: (_work, bytes) => bytes / 1e6 };

test('a stage with Wan\'s dimensions is cut to the blocks that fit, and left out with the figures when none does; nothing is written for it', () => {
	const planned = (changes: Partial<WanConditions>) => planWanStage('causal step', { ...PLENTY, ...changes });
	const little = planned({ memoryBytes: 1e9 });
	assert.ok(little.kind === 'excluded');
	// The scores of 4680 queries and 23400 keys of twelve heads: 5.3 GB, three of them at a time.
	assert.match(little.why, /one block of it needs about 1[67]\.\d GB of memory, and 1\.0 GB may be used/u);
	const short = planned({ budgetMs: 1, limitMs: () => 1000 });
	assert.ok(short.kind === 'excluded');
	assert.match(short.why, /one block of it may take 4\.0 s, 4 times what it must at the rates of this device, and --budget is 0\.0010 s/u);
	assert.equal(planned({}).kind, 'planned');
	assert.equal(planWanStage('taehv decode, a latent', PLENTY).kind, 'planned');
	const fused = planWanStage('causal step', { ...PLENTY, profile: 'cuda-fp16', memoryBytes: 4e9 });
	assert.equal(fused.kind, 'planned', 'fused attention keeps no scores');
});

test('denoisers that our kernels have a part in are measured once more with them, in 16 and in 8 bits; cuda-int8 has nothing else', () => {
	assert.deepEqual(kernelUses('clip step, sparse', 'cuda-fp16', true), [undefined, 'own kernels', 'own kernels, 8 bits']);
	assert.deepEqual(kernelUses('clip step, sparse', 'cuda-fp16', false), [undefined]);
	assert.deepEqual(kernelUses('clip step, dense', 'cuda-fp16', true), [undefined]);
	assert.deepEqual(kernelUses('clip step, dense', 'cuda-int8', true), ['own kernels, 8 bits']);
	assert.deepEqual(kernelUses('taehv decode, a latent', 'cuda-int8', true), [undefined]);
	const plan = planWanStage('clip step, sparse', { ...PLENTY, size: { width: 128, height: 64 }, profile: 'cuda-int8', kernels: 'own kernels, 8 bits' });
	assert.deepEqual([plan.kind, plan.kind === 'planned' && plan.blocks], ['planned', 30]);
	assert.deepEqual(matrixTypes('cuda-int8', 'float16'), { linear: 'int8', attention: 'float16', convolution: 'float16' });
});

test('what a clip of 81 frames takes is four steps of all blocks of its network', () => {
	const stage = (name: string, medianMs: number, estimatedMs?: number) =>
		({ stage: name, medianMs, ...(estimatedMs === undefined ? {} : { blocks: { measured: 3, of: 30, estimatedMs } }) }) as unknown as StageReport;
	assert.deepEqual(clipSeconds([stage('causal step', 1), stage('clip step, dense', 100, 1000), stage('clip step, sparse, own kernels, 8 bits', 200)]),
		[{ stage: 'clip step, dense', seconds: 4 }, { stage: 'clip step, sparse, own kernels, 8 bits', seconds: 0.8 }]);
});

test('what a live stream takes is four steps, a clean pass and three latents through TAEHV, in each way that the steps were measured; a second of video is four latents', () => {
	const stage = (name: string, medianMs: number, estimatedMs?: number) =>
		({ stage: name, medianMs, ...(estimatedMs === undefined ? {} : { blocks: { measured: 3, of: 30, estimatedMs } }) }) as unknown as StageReport;
	const reports = [
		stage('causal step', 10, 100), stage('causal step, recorded', 50), stage('causal step, own kernels', 60), stage('causal clean pass', 110), stage('causal clean pass, recorded', 40),
		stage('taehv decode, a latent', 10), stage('wan vae decode, a latent', 80),
	];
	assert.deepEqual(liveFigures(reports), [
		{ stage: 'causal step', chunkMs: 540, framesPerSecond: 12_000 / 540, firstFramesMs: 410 },
		{ stage: 'causal step, recorded', chunkMs: 270, framesPerSecond: 12_000 / 270, firstFramesMs: 210 },
		// A clean pass is the same forward.
		{ stage: 'causal step, own kernels', chunkMs: 330, framesPerSecond: 12_000 / 330, firstFramesMs: 250 },
	]);
	assert.deepEqual(liveFigures(reports.filter(({ stage: name }) => !name.startsWith('taehv'))), []);
	assert.deepEqual(decodeFigures(reports), [{ stage: 'taehv decode, a latent', msPerSecond: 40 }, { stage: 'wan vae decode, a latent', msPerSecond: 320 }]);
	assert.equal(partName({ kind: 'wan', stage: 'causal step', kernels: 'own kernels', isRecorded: true }), 'causal step, own kernels, recorded');
	assert.equal(partName({ kind: 'own chunks', isRecorded: true }), 'own chunks, recorded');
});

test('as many blocks are planned as there is room and time for', () => {
	const blocks = (changes: Partial<WanConditions>): number => {
		const plan = planWanStage('causal step', { ...PLENTY, size: { width: 64, height: 64 }, ...changes });
		return plan.kind === 'planned' ? plan.blocks : 0;
	};
	assert.equal(blocks({}), 30);
	// A block has 46.5 million weights of four bytes, three times while they are loaded.
	const each = 3 * 4 * 46.5e6;
	const some = blocks({ memoryBytes: 10 * each });
	assert.ok(some >= 8 && some <= 10, `${some}`);
	assert.equal(blocks({ memoryBytes: 20 * each }) - some, 10);
	// By the linear layers of 48 tokens: a block has 41.7 million weights for them (those of the text's keys are elsewhere), a millisecond each 1e9 operations, four times that in patience.
	const slow = (work: { readonly flops: { readonly linear: number } }): number => work.flops.linear / 1e9;
	const few = blocks({ limitMs: slow, budgetMs: 4 * 10 * 48 * 2 * 41.7e6 / 1e9 });
	assert.ok(few >= 8 && few <= 10, `${few}`);
});

test('the weights of a stage are files while they are used, and gone when it is removed', () => {
	const plan = planWanStage('taehv decode, a latent', { ...PLENTY, size: { width: 32, height: 32 } });
	assert.ok(plan.kind === 'planned');
	const { stage, remove } = plan.build();
	const paths = stage.graph.external.flatMap((entry) => ('path' in entry ? [entry.path] : []));
	assert.ok(paths.length > 0 && paths.every((path) => existsSync(path)));
	remove();
	assert.ok(paths.every((path) => !existsSync(path)));
});

test('on the processor: every stage of a model, chunks, and Wan\'s stages or why not', async () => {
	await using model = await writeRandomModel();
	const { status, stdout, stderr } = await turbocast(['bench', 'gpu', '--profile', 'cpu-fp32', '--size', '32x32', '--budget', '0.5', '--model', basename(model.path)], { TURBOCAST_ENGINE__MODELS_DIR: dirname(model.path) });
	assert.equal(status, 0, stderr);
	const lines = stdout.trimEnd().split('\n');
	const report = JSON.parse(lines.at(-1) ?? '') as GpuBenchReport & { readonly turbocast: string };
	checkReport(report);
	assert.deepEqual(report.own.map(({ stage, device }) => `${device} ${stage}`), ['cpu text encode', 'cpu keys and values of the text', 'cpu denoising step', 'cpu clean pass', 'cpu decode, a latent']);
	assert.equal(report.profile, 'cpu-fp32');
	assert.match(report.card.name, /\d x \S/u);
	// Left out only for want of time on a machine that is busy with other things.
	const [chunks] = report.chunks;
	assert.ok(chunks === undefined ? report.excluded.some(({ stage }) => stage === 'own chunks') : chunks.framesPerSecond > 0 && !chunks.isRecorded);
	assert.ok(report.sessions.length > 0 || report.excluded.some(({ stage }) => stage === 'own sessions'));
	// What the processor does not do has a row that says so.
	for (const stage of ['denoising step', 'clean pass', 'own chunks', 'own sessions', 'causal step', 'causal clean pass']) {
		const why = report.excluded.find((row) => row.stage === `${stage}, recorded`)?.why;
		assert.ok(why === 'cpu-fp32 does not run on CUDA' || (stage.startsWith('own') && why?.startsWith('by its stages') === true), `${stage}: ${why}`);
	}
	const told = [...report.wan.map(({ stage }) => stage), ...report.excluded.map(({ stage }) => stage)];
	for (const stage of ['causal step', 'causal clean pass', 'clip step, dense', 'clip step, sparse', 'taehv decode, a latent', 'wan vae decode, a latent', 'umt5-xxl encode']) {
		assert.ok(told.includes(stage), `${stage} is neither measured nor left out`);
	}
	assert.ok(report.excluded.every(({ stage, why }) => stdout.includes(`left out: ${stage}: ${why}`)));
	assert.ok(lines.some((line) => line.startsWith('| denoising step')), stdout);
	assert.match(lines[0] ?? '', /profile cpu-fp32, 1 thread of the processor/u);
});

const MISTAKES: readonly (readonly [readonly string[], RegExp])[] = [
	[[], /Use `turbocast bench gpu/u],
	[['cpu'], /Use `turbocast bench gpu/u],
	[['gpu', '--size', '100x64'], /multiples of 16/u],
	[['gpu', '--size', '4096x4096'], /at most 2048/u],
	[['gpu', '--budget', '0'], /--budget must be a number from 0\.1 to 3600/u],
	[['gpu', '--device', 'tpu'], /--device must be one of/u],
];

test('what cannot be meant is invalid_option', async () => {
	for (const [args, message] of MISTAKES) {
		const { status, stderr } = await turbocast(['bench', ...args]);
		assert.equal(status, 2, stderr);
		assert.match(stderr, message);
		assert.match(stderr, /\[invalid_option\]/u);
	}
});
