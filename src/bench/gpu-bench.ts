/** `turbocast bench gpu`: part by part, each in a process of its own, so that one that a driver or the memory ends costs one line of the table. */
import { fork } from 'node:child_process';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { deviceOf, type ProfileDevice } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import { TurbocastError } from '../protocol/errors.js';
import { type Card, cardOf } from './card.js';
import type { Limits, Part, PartEvent, PartRequest } from './gpu-process.js';
import { type ChunkReport, chunkEstimateMs, OWN_STAGES } from './chunk-report.js';
import { openModelFolder } from '../model/model-folder.js';
import type { SessionsReport } from './session-report.js';
import type { StageReport } from './stage.js';
import { clipSeconds, decodeFigures, isRecordedStage, kernelUses, liveFigures, type LiveReport, partName, recordedName, WAN_STAGES } from './wan-stage-names.js';

export type GpuBenchOptions = {
	readonly profile: EngineProfile;
	readonly threads: number;
	/** Of an own model. */
	readonly folder: string;
	/** Of the stages with Wan's dimensions, pixels. */
	readonly size: { readonly width: number; readonly height: number };
	/** What a stage may take: runs are repeated for as long, and one that would take longer is left out. */
	readonly budgetMs: number;
	readonly withWan: boolean;
	/** Whether an engine uses our own kernels here: then stages of the own model are measured with them, and Wan's that they have a part in once more; default no. */
	readonly kernels?: boolean | undefined;
	/** Why forwards cannot be recorded and replayed; left out where they can, and then they are measured in that way once more. */
	readonly whyNotRecorded?: string | undefined;
	readonly signal: AbortSignal;
	/** Told of each part as it begins. */
	readonly onPart?: (name: string) => void;
};

export type GpuBenchReport = {
	readonly device: ProfileDevice;
	readonly card: Card;
	readonly profile: EngineProfile;
	readonly threads: number;
	readonly budgetMs: number;
	/** Processes that wanted the processor before, on average of a minute: rates and times are worth less with any. */
	readonly loadBefore: number;
	readonly wanSize: { readonly width: number; readonly height: number };
	/** Undefined when they could not be measured; then nothing else was. */
	readonly limits?: Limits | undefined;
	readonly own: readonly StageReport[];
	/** As they are, and recorded. */
	readonly chunks: readonly ChunkReport[];
	readonly sessions: readonly SessionsReport[];
	/** Whether our own kernels were used where an engine uses them. */
	readonly kernels: boolean;
	readonly wan: readonly StageReport[];
	/** What the denoiser takes for a clip of 81 frames in four steps, of its stages that were measured. */
	readonly clips: readonly { readonly stage: string; readonly seconds: number }[];
	/** What a causal stream takes, by its stages. */
	readonly live: readonly LiveReport[];
	readonly decoding: readonly { readonly stage: string; readonly msPerSecond: number }[];
	readonly excluded: readonly { readonly stage: string; readonly why: string }[];
};

const ENTRY = fileURLToPath(new URL('./gpu-process.js', import.meta.url));

/** Of what is free: the rest of the machine lives on. */
const MEMORY_SHARE = 0.5;
/** Building, writing and loading random weights and compiling shaders, besides the runs. */
const PART_OVERHEAD_MS = 600_000;

const runPart = (request: PartRequest, signal: AbortSignal, onEvent: (event: PartEvent) => void): Promise<void> => new Promise((resolve, reject) => {
	const { part } = request;
	// What the library writes there is said by the report.
	const child = fork(ENTRY, [JSON.stringify(request)], { serialization: 'advanced', execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
	let isDone = false;
	let why: string | undefined;
	const exclude = (sentence: string): void => onEvent({ type: 'excluded', stage: partName(part), why: sentence });
	const timer = setTimeout(() => {
		why = `it did not finish within ${Math.round((PART_OVERHEAD_MS + 4 * request.budgetMs) / 1000)} seconds`;
		child.kill('SIGKILL');
	}, PART_OVERHEAD_MS + 4 * request.budgetMs);
	const onAbort = (): void => void child.kill('SIGKILL');
	signal.addEventListener('abort', onAbort, { once: true });
	child.on('message', (message) => {
		// Our own process of the same release speaks here.
		const event = message as PartEvent;
		if (event.type === 'done') {
			isDone = true;
		} else {
			onEvent(event);
		}
	});
	child.on('error', (error) => exclude(error.message));
	child.on('exit', (code, killedBy) => {
		clearTimeout(timer);
		signal.removeEventListener('abort', onAbort);
		if (signal.aborted) {
			reject(signal.reason as Error);
			return;
		}
		if (!isDone) {
			exclude(why ?? `its process ended with ${killedBy ?? `code ${code ?? 'unknown'}`}`);
		}
		resolve();
	});
});

/** Throws the reason of `signal`, and `device_unavailable` when not even the limits of the device can be measured. */
export const benchGpu = async ({ profile, threads, folder, size, budgetMs, withWan, kernels = false, whyNotRecorded, signal, onPart = () => undefined }: GpuBenchOptions): Promise<GpuBenchReport> => {
	const device = deviceOf(profile);
	const card = cardOf(device);
	const [loadBefore = 0] = loadavg();
	const memoryBytes = Math.min(MEMORY_SHARE * process.availableMemory(), card.memoryBytes ?? Number.POSITIVE_INFINITY);
	const own: StageReport[] = [];
	const wan: StageReport[] = [];
	const excluded: { stage: string; why: string }[] = [];
	const [chunks, sessions]: [ChunkReport[], SessionsReport[]] = [[], []];
	const measured: { limits?: Limits } = {};
	const run = (part: Part, stages: StageReport[]): Promise<void> => {
		onPart(partName(part));
		return runPart({ part, profile, threads, folder, size, budgetMs, memoryBytes, usesKernels: kernels, limits: measured.limits }, signal, (event) => {
			switch (event.type) {
				case 'limits':
					measured.limits = event.limits;
					break;
				case 'stage':
					stages.push(event.stage);
					break;
				case 'chunks':
					chunks.push(event.chunks);
					break;
				case 'sessions':
					sessions.push(event.sessions);
					break;
				case 'excluded':
					excluded.push({ stage: event.stage, why: event.why });
					break;
				case 'done':
					break;
			}
		});
	};
	await run({ kind: 'limits', ...(kernels ? { kernels: 'own kernels, 8 bits' } : {}) }, []);
	if (measured.limits === undefined) {
		throw new TurbocastError('device_unavailable', `The rates of this device could not be measured: ${excluded[0]?.why ?? 'nothing was said'}.`);
	}
	/** A part as it is, and once more with its forwards recorded, or why not. `names`: of the rows that are missing then. */
	const runBoth = async (part: Exclude<Part, { kind: 'limits' }>, stages: StageReport[], names: readonly string[] = [partName(part)]): Promise<void> => {
		await run(part, stages);
		if (whyNotRecorded === undefined) {
			await run({ ...part, isRecorded: true }, stages);
		} else {
			excluded.push(...names.map((name) => ({ stage: recordedName(name), why: whyNotRecorded })));
		}
	};
	await runBoth({ kind: 'own stages' }, own, [OWN_STAGES.step, OWN_STAGES.clean]);
	const { spec } = await openModelFolder(folder, { verify: false });
	const chunkMs = chunkEstimateMs(spec, own);
	for (const kind of ['own chunks', 'own sessions'] as const) {
		if (chunkMs > budgetMs) {
			const why = `by its stages a chunk takes ${(chunkMs / 1000).toPrecision(2)} s, and --budget is ${(budgetMs / 1000).toPrecision(2)} s`;
			excluded.push(...[kind, recordedName(kind)].map((stage) => ({ stage, why })));
		} else {
			await runBoth({ kind }, []);
		}
	}
	for (const stage of withWan ? WAN_STAGES : []) {
		for (const use of kernelUses(stage, profile, kernels)) {
			const part = { kind: 'wan', stage, kernels: use } as const;
			await (isRecordedStage(stage) ? runBoth(part, wan) : run(part, wan));
		}
	}
	return {
		device, card, profile, threads, budgetMs, loadBefore, kernels, wanSize: size, ...measured, own, chunks, sessions, wan, clips: clipSeconds(wan), live: liveFigures(wan), decoding: decodeFigures(wan), excluded,
	};
};
