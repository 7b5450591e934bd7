/** `turbocast bench gpu`: how fast each stage is on this machine, and how far from what the device can do. */
import { WORK_KINDS } from '../model/graph-work.js';
import { benchGpu, type GpuBenchReport } from '../bench/gpu-bench.js';
import { MATRIX_TYPES } from '../bench/matrix-type.js';
import type { StageReport } from '../bench/stage.js';
import type { SessionsReport, SessionsTry } from '../bench/session-report.js';
import { CAUSAL, CLIP_STEPS } from '../bench/wan-stage-names.js';
import type { Config } from '../config.js';
import { chooseDevice } from '../engine/device-choice.js';
import { tryRecordings } from '../engine/recording-choice.js';
import { TurbocastError } from '../protocol/errors.js';
import { TURBOCAST_VERSION } from '../version.js';
import { type Arguments, type FlagTable, parseNumber, parseSize } from './arguments.js';
import { modelPath } from './models-folder.js';

const DEFAULT_BUDGET_SECONDS = 20;
const DEFAULT_SIZE = { width: 832, height: 480 };

export const BENCH_FLAGS = {
	device: { values: ['D'], says: 'auto, cpu, webgpu or cuda; see docs/gpu.md' },
	profile: { values: ['P'], says: 'one of the profiles of that device' },
	model: { values: ['NAME'], says: 'the model of our own kind that is measured; default toybox' },
	size: { values: ['WxH'], says: `pixels of the stages with Wan's dimensions; default ${DEFAULT_SIZE.width}x${DEFAULT_SIZE.height}` },
	budget: { values: ['SECONDS'], says: `seconds that a stage may take; default ${DEFAULT_BUDGET_SECONDS}` },
	'no-wan': { values: [], says: "leave out the stages with Wan's dimensions" },
	threads: { values: ['N'], says: 'threads of the processor; default 1' },
	json: { values: [], says: 'print the JSON alone' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

/** The largest that is asked for anywhere; patches and the VAE want multiples of 16. */
const MAX_SIDE = 2048;
const [MIN_BUDGET_SECONDS, MAX_BUDGET_SECONDS] = [0.1, 3600];

const tera = (perSecond: number): string => (perSecond / 1e12).toPrecision(3);
const giga = (number: number): string => (number / 1e9).toPrecision(3);
const ms = (value: number): string => (value < 10 ? value.toFixed(2) : value.toFixed(1));

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string => {
	const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
	const line = (cells: readonly string[]): string => `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
	return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
};

const HEAD = ['stage', 'on', 'ms median / p95', 'runs', 'first ms', 'GFLOP', 'MB at least', 'TFLOP/s', 'GB/s', 'limit ms', 'narrowed by', 'of the limit', 'whole network'];

const row = ({ stage, device, medianMs, p95Ms, runs, firstMs, flops, leastBytes, limitMs, bound, shareOfLimit, blocks }: StageReport): string[] => {
	const total = WORK_KINDS.reduce((sum, kind) => sum + flops[kind], 0);
	return [
		stage, device, `${ms(medianMs)} / ${ms(p95Ms)}`, String(runs), ms(firstMs), giga(total), (leastBytes / 1e6).toPrecision(3), tera(total / (medianMs / 1000)), giga(leastBytes / (medianMs / 1000)),
		ms(limitMs), bound, `${(100 * shareOfLimit).toFixed(0)} %`, blocks === undefined || blocks.measured === blocks.of ? '' : `${blocks.measured} of ${blocks.of} blocks; all about ${ms(blocks.estimatedMs)} ms`,
	];
};

const limitLine = (what: string, { copyBytesPerSecond, flopsPerSecond }: NonNullable<GpuBenchReport['limits']>['cpu']): string =>
	`${what}: copies ${giga(copyBytesPerSecond)} GB/s; multiplies ${MATRIX_TYPES.flatMap((type) => (flopsPerSecond[type] === undefined ? [] : [`${tera(flopsPerSecond[type])} TFLOP/s in ${type}`])).join(', ')}`;

const tables = (report: GpuBenchReport, withWan: boolean): string => {
	const { card, profile, threads, limits, own, chunks, sessions, wan, clips, live, decoding, excluded, wanSize } = report;
	const ofRecordings = ({ isRecorded }: { readonly isRecorded: boolean }): string => (isRecorded ? ', recorded' : '');
	const measured = wan.length === 0 ? 'nothing of it could be measured here' : table(HEAD, wan.map(row));
	return [
		`${card.name}, driver ${card.driver}; profile ${profile}${report.kernels ? ' with our own kernels' : ''}, ${threads} thread${threads === 1 ? '' : 's'} of the processor; turbocast ${TURBOCAST_VERSION}, Node ${process.versions.node}, load before: ${report.loadBefore.toFixed(2)}`,
		...(limits === undefined ? [] : [limitLine('device', limits.device), ...(report.device === 'cpu' ? [] : [limitLine('processor', limits.cpu)])]),
		'', ...(own.length === 0 ? [] : [table(HEAD, own.map(row)), '']),
		...chunks.flatMap((chunk) => [
			`${chunk.model}${ofRecordings(chunk)}, ${chunk.width}x${chunk.height}, ${chunk.steps} steps: a chunk of ${chunk.framesPerChunk} frames takes ${ms(chunk.chunkMs.median)} ms (p95 ${ms(chunk.chunkMs.p95)}), ${chunk.framesPerSecond.toFixed(1)} frames a second; `
			+ `a new prompt shows after ${ms(chunk.promptToFirstFrameMs.median)} ms (p95 ${ms(chunk.promptToFirstFrameMs.p95)})`, '',
		]),
		...sessions.flatMap((found) => [`sessions${ofRecordings(found)} at ${found.fps} frames a second, ${found.steps} steps, in one engine: ${sessionsSentence(found)}`, '']),
		...(withWan ? [`With the dimensions of Wan 2.1 1.3B and random weights, ${wanSize.width}x${wanSize.height}:`, measured, ''] : []),
		...(clips.length === 0 ? [] : [`the denoiser's part of a clip of 81 frames in ${CLIP_STEPS} steps: ${clips.map(({ stage, seconds }) => `${stage} ${seconds.toPrecision(3)} s`).join('; ')}`, '']),
		...live.map(({ stage, chunkMs, framesPerSecond, firstFramesMs }) =>
			`live, by '${stage}' and TAEHV: a chunk of ${CAUSAL.steps} steps takes ${ms(chunkMs)} ms, ${framesPerSecond.toFixed(1)} frames a second; the first chunk shows after ${ms(firstFramesMs)} ms at most`),
		...(decoding.length === 0 ? [] : [`a second of video: ${decoding.map(({ stage, msPerSecond }) => `${stage.replace(', a latent', '')} ${ms(msPerSecond)} ms`).join('; ')}`]),
		...(live.length + decoding.length === 0 ? [] : ['']),
		...excluded.map(({ stage, why }) => `left out: ${stage}: ${why}`),
	].join('\n');
};

const sessionsSentence = ({ kept, missed, periodMs }: SessionsReport): string => {
	const told = ({ sessions, lateShare, p95Ms }: SessionsTry): string => `${sessions} (${(100 * lateShare).toFixed(1)} % of the chunks late${Number.isNaN(p95Ms) ? '' : `; p95 ${ms(p95Ms)} ms of ${ms(periodMs)}`})`;
	return `${kept === undefined ? 'not one is' : `${told(kept)} are`} kept in time${missed === undefined ? ', and more were not tried' : `, ${told(missed)} not`}`;
};

/** A table and, as the last line, the same as JSON. Numbers that are none stand as null there. */
export const bench = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [what, ...rest] = args.words;
	if (what !== 'gpu' || rest.length > 0) {
		throw new TurbocastError('invalid_option', 'Use `turbocast bench gpu [--device D]`.');
	}
	const size = args.has('size') ? parseSize('size', args.one('size') ?? '') : DEFAULT_SIZE;
	if ([size.width, size.height].some((side) => side % 16 !== 0 || side < 16 || side > MAX_SIDE)) {
		throw new TurbocastError('invalid_option', `--size must be multiples of 16 of at most ${MAX_SIDE}, not ${size.width}x${size.height}.`);
	}
	const budgetMs = 1000 * (args.has('budget') ? parseNumber('budget', args.one('budget') ?? '', { min: MIN_BUDGET_SECONDS, max: MAX_BUDGET_SECONDS }) : DEFAULT_BUDGET_SECONDS);
	const { model, models_dir, device, profile: asked, threads, kernels: mode } = config.engine;
	const say = (line: string): void => void process.stderr.write(`${line}\n`);
	const { profile, why, kernels } = await chooseDevice({ device, profile: asked, threads, isOwnModel: true, kernels: mode });
	say(`${profile}: ${why}`);
	if (kernels !== undefined) {
		say(`own kernels: ${kernels.why}`);
	}
	const recordings = await tryRecordings({ profile, kernels: kernels?.areUsed ?? false, threads });
	say(`recordings: ${recordings.kind === 'equal' ? 'equal to the runs without' : recordings.why}`);
	const report = await benchGpu({
		profile, threads, folder: modelPath(models_dir, model), size, budgetMs, withWan: !args.has('no-wan'), kernels: kernels?.areUsed, whyNotRecorded: recordings.kind === 'equal' ? undefined : recordings.why, signal, onPart: (name) => say(`measuring: ${name}`),
	});
	if (!args.has('json')) {
		process.stdout.write(`${tables(report, !args.has('no-wan'))}\n\n`);
	}
	process.stdout.write(`${JSON.stringify({ turbocast: TURBOCAST_VERSION, ...report })}\n`);
};
