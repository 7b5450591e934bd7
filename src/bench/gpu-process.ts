/** Entry of a process that measures one part of `turbocast bench gpu` and reports; drivers and memory may end it, and nothing else with it. */
import { systemClock } from '../base/time.js';
import type { EngineProfile } from '../engine/protocol.js';
import { deviceOf } from '../engine/profile.js';
import { createOnnxRuntime } from '../engine/backends/onnxruntime.js';
import { openDevice } from '../engine/open-device.js';
import { TurbocastError } from '../protocol/errors.js';
import { type DeviceLimits, measureLimits } from './limits.js';
import { typesOf } from './stage-arithmetic.js';
import type { ChunkReport } from './chunk-report.js';
import { measureChunks, type OwnModelOptions, ownModelStages } from './own-model.js';
import type { SessionsReport } from './session-report.js';
import { measureSessions } from './sessions.js';
import { limitOf, measureStage, type Place, type Stage, type StageConditions, type StageReport } from './stage.js';
import { type KernelUse, partName, type WanStage } from './wan-stage-names.js';
import { planWanStage } from './wan-stages.js';

/** `kernels`: by our own; `isRecorded`: with forwards that are recorded once and replayed. */
export type Part =
	| { readonly kind: 'limits'; readonly kernels?: KernelUse | undefined }
	| { readonly kind: 'own stages' | 'own chunks' | 'own sessions'; readonly isRecorded?: boolean | undefined }
	| { readonly kind: 'wan'; readonly stage: WanStage; readonly kernels?: KernelUse | undefined; readonly isRecorded?: boolean | undefined };

/** Of the processor always, which encodes the texts; of the device where that is another. */
export type Limits = { readonly cpu: DeviceLimits; readonly device: DeviceLimits };

export type PartRequest = {
	readonly part: Part;
	readonly profile: EngineProfile;
	readonly threads: number;
	readonly folder: string;
	/** Of the stages with Wan's dimensions. */
	readonly size: { readonly width: number; readonly height: number };
	readonly budgetMs: number;
	readonly memoryBytes: number;
	/** Whether an engine uses our own kernels here, for parts that are measured as it does. */
	readonly usesKernels: boolean;
	/** Measured by the first part. */
	readonly limits?: Limits | undefined;
};

export type PartEvent =
	| { readonly type: 'limits'; readonly limits: Limits }
	| { readonly type: 'stage'; readonly stage: StageReport }
	| { readonly type: 'chunks'; readonly chunks: ChunkReport }
	| { readonly type: 'sessions'; readonly sessions: SessionsReport }
	| { readonly type: 'excluded'; readonly stage: string; readonly why: string }
	| { readonly type: 'done' };

const request = JSON.parse(process.argv[2] ?? '{}') as PartRequest;
process.on('disconnect', () => process.exit(0));
const send = (event: PartEvent): Promise<void> => new Promise((resolve) => {
	process.send?.(event, undefined, undefined, () => resolve());
});

const { part, threads, folder, size, budgetMs, memoryBytes, usesKernels, limits } = request;
const isOwn = part.kind === 'own stages' || part.kind === 'own chunks' || part.kind === 'own sessions';
const kernels = 'kernels' in part ? part.kernels : undefined;
const profile: EngineProfile = kernels === 'own kernels, 8 bits' ? 'cuda-int8' : request.profile;
const { nowMs } = systemClock;
const device = deviceOf(profile);
const host: Place = { kind: 'host', backend: createOnnxRuntime({ threads }) };
const known = (): Limits => {
	if (limits === undefined) {
		throw new TurbocastError('internal', 'The limits of the device were not measured.');
	}
	return limits;
};

const own: OwnModelOptions = { folder, profile, threads, kernels: usesKernels, recordsForwards: 'isRecorded' in part && part.isRecorded === true };

const run = async (place: Place): Promise<void> => {
	const conditions = (onHost: boolean): StageConditions => ({ limits: onHost ? known().cpu : known().device, device: onHost ? 'cpu' : device, budgetMs, nowMs });
	const measure = async (stage: Stage, onHost: boolean): Promise<void> =>
		send({ type: 'stage', stage: await measureStage(stage, onHost ? host : place, conditions(onHost)) });
	switch (part.kind) {
		case 'limits': {
			const ours = await measureLimits(place.backend, [...new Set([...typesOf(profile), ...typesOf(request.profile)])], nowMs);
			await send({ type: 'limits', limits: { device: ours, cpu: device === 'cpu' ? ours : await measureLimits(host.backend, ['float32'], nowMs) } });
			return;
		}
		case 'own stages': {
			const stages = await ownModelStages(own, place);
			try {
				for (const stage of stages.onHost) {
					await measure(stage, true);
				}
				for (const stage of stages.onDevice) {
					await measure(stage, false);
				}
			} finally {
				await stages.close();
			}
			return;
		}
		case 'own chunks':
			await send({ type: 'chunks', chunks: await measureChunks({ ...own, budgetMs, nowMs }) });
			return;
		case 'own sessions':
			await send({ type: 'sessions', sessions: await measureSessions({ ...own, clock: systemClock, budgetMs }) });
			return;
		case 'wan': {
			const plan = planWanStage(part.stage, {
				profile, size, memoryBytes, budgetMs, kernels: part.kernels, isRecorded: part.isRecorded,
				limitMs: (work, bytes, types, runsOnHost) => limitOf(work, bytes, types, conditions(runsOnHost).limits).limitMs,
			});
			if (plan.kind === 'excluded') {
				await send({ type: 'excluded', stage: partName(part), why: plan.why });
				return;
			}
			const { stage, remove } = plan.build();
			try {
				await measure(stage, plan.runsOnHost);
			} finally {
				remove();
			}
		}
	}
};

// WebGPU allows no second backend in a process, and chunks and sessions open their own.
const opensItself = part.kind === 'own chunks' || part.kind === 'own sessions';
const opened = device === 'cpu' || opensItself ? undefined : openDevice(profile, threads, isOwn ? usesKernels : kernels !== undefined);
try {
	await run(opened === undefined ? host : { kind: 'device', backend: opened });
} catch (error) {
	await send({ type: 'excluded', stage: partName(part), why: TurbocastError.from(error).message });
}
await send({ type: 'done' });
process.exit(0);
