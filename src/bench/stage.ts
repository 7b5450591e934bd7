/** One stage of making a picture: its graph, timed where it runs, beside what the device could do at most. */
import { type Backend, closeState, type DeviceBackend, type Feeds, isResident, type Tensor } from '../engine/backend.js';
import { toFloat16 } from '../model/float16.js';
import { type GraphWork, graphWork, leastBytes, type Symbols, WORK_KINDS, type WorkKind } from '../model/graph-work.js';
import type { Graph, GraphValue } from '../model/graph.js';
import type { DeviceLimits } from './limits.js';
import type { MatrixType } from './matrix-type.js';
import { repeatedNoise } from './random-weights.js';
import { type Times, timeRuns } from './timing.js';

export type Place = { readonly kind: 'host'; readonly backend: Backend } | { readonly kind: 'device'; readonly backend: DeviceBackend };

/** A stage that can be run again and again. */
export type Running = { readonly run: () => Promise<unknown>; readonly close: () => Promise<void> };

export type Stage = {
	readonly name: string;
	/** What is counted, and run by itself where `onDevice` says nothing else. */
	readonly graph: Graph;
	/** As an engine has it run on a device, where that is more than feeding the graph: by the networks that it is part of. */
	readonly onDevice?: ((device: DeviceBackend) => Promise<Running>) | undefined;
	/** Runs before those that are timed, the first among them; default 1. */
	readonly warmRuns?: number | undefined;
	/** Sizes of symbolic dimensions. */
	readonly symbols?: Symbols;
	/** Outputs that come to the host; the others are left out, or stay on the device where all are computed. */
	readonly host: readonly string[];
	/** Whether the others are computed. */
	readonly wantsAll: boolean;
	/** In which numbers each kind of work is done. */
	readonly types: { readonly [K in WorkKind]: MatrixType };
	/** Of a network of many equal blocks: how many of them the graph has, how many the network, and the work of the whole. */
	readonly part?: { readonly blocks: number; readonly of: number; readonly work: GraphWork } | undefined;
};

export type StageReport = Times & {
	readonly stage: string;
	readonly device: 'cpu' | 'webgpu' | 'cuda';
	/** Until it could be run. */
	readonly loadMs: number;
	readonly flops: GraphWork['flops'];
	/** What must be read and written however the work is done: weights, inputs and outputs, each once. */
	readonly leastBytes: number;
	/** What all operators read and write when none are fused, in float32. */
	readonly unfusedBytes: number;
	/** What the work would take at the device's own rates, and which of them is the narrower. */
	readonly limitMs: number;
	readonly bound: 'matrix rate' | 'copy bandwidth';
	/** limitMs / medianMs: 1 is all that the device can do. */
	readonly shareOfLimit: number;
	readonly blocks?: { readonly measured: number; readonly of: number; /** The median, scaled by the work of all of them. */ readonly estimatedMs: number } | undefined;
};

const totalFlops = ({ flops }: Pick<GraphWork, 'flops'>): number => WORK_KINDS.reduce((sum, kind) => sum + flops[kind], 0);

export const limitOf = ({ flops }: Pick<GraphWork, 'flops'>, bytes: number, types: Stage['types'], limits: DeviceLimits): Pick<StageReport, 'limitMs' | 'bound'> => {
	const computeMs = 1000 * WORK_KINDS.reduce((sum, kind) => sum + (flops[kind] === 0 ? 0 : flops[kind] / (limits.flopsPerSecond[types[kind]] ?? Number.NaN)), 0);
	const copyMs = 1000 * bytes / limits.copyBytesPerSecond;
	return copyMs > computeMs ? { limitMs: copyMs, bound: 'copy bandwidth' } : { limitMs: computeMs, bound: 'matrix rate' };
};

/** What lies on the device between runs: latents, and state of streams. */
const STAYS = /^(?:latent|memory)/u;

const randomTensor = ({ name, type, dims }: GraphValue, symbols: Symbols, seed: number): Tensor => {
	const known = dims.map((dimension) => (typeof dimension === 'number' ? dimension : symbols[dimension] ?? 0));
	const count = known.reduce((product, size) => product * size, 1);
	if (type === 'int64') {
		return { type, dims: known, data: new BigInt64Array(count).fill(1n) };
	}
	const numbers = name === 'mask' ? new Float32Array(count).fill(1) : repeatedNoise(count, 1, seed);
	return type === 'float16' ? { type, dims: known, data: toFloat16(numbers) } : { type: 'float32', dims: known, data: numbers };
};

/** Everything a stage is fed, what stays on a device uploaded to it. */
const makeFeeds = async ({ graph, symbols = {} }: Stage, place: Place): Promise<Feeds> => {
	const feeds: Record<string, Feeds[string]> = {};
	for (const [index, input] of graph.inputs.entries()) {
		const tensor = randomTensor(input, symbols, index + 1);
		const isFloat = input.type === 'float32' || input.type === 'float16';
		feeds[input.name] = place.kind === 'device' && isFloat && STAYS.test(input.name)
			? await place.backend.upload(repeatedNoise(tensor.data.length, 1, index + 1), tensor.dims, input.type) : tensor;
	}
	return feeds;
};

const loaded = async ({ graph, host, wantsAll }: Stage, { kind, backend }: Place): Promise<{ readonly run: (feeds: Feeds) => Promise<unknown>; readonly close: () => Promise<void> }> => {
	if (kind === 'device' && wantsAll) {
		const session = await backend.loadResident(graph, host);
		return { close: session.close, run: async (feeds) => closeState(Object.values((await session.run(feeds)).resident)) };
	}
	const session = await backend.load(graph);
	return { close: session.close, run: (feeds) => session.run(feeds, wantsAll ? undefined : host) };
};

/** The graph alone, fed with random numbers. */
const byItself = async (stage: Stage, place: Place): Promise<Running> => {
	const session = await loaded(stage, place);
	try {
		const feeds = await makeFeeds(stage, place);
		return {
			run: () => session.run(feeds),
			close: async () => {
				closeState(Object.values(feeds).filter(isResident));
				await session.close();
			},
		};
	} catch (error) {
		await session.close();
		throw error;
	}
};

export type StageConditions = { readonly limits: DeviceLimits; readonly device: StageReport['device']; readonly budgetMs: number; readonly nowMs: () => number };

/** Loads, runs and gives back. Throws what the backend throws. */
export const measureStage = async (stage: Stage, place: Place, { limits, device, budgetMs, nowMs }: StageConditions): Promise<StageReport> => {
	const { name, graph, symbols = {}, types, part } = stage;
	const work = graphWork(graph, symbols);
	const bytes = leastBytes(graph, symbols, stage.wantsAll ? undefined : stage.host);
	const startMs = nowMs();
	const running = await (place.kind === 'device' && stage.onDevice !== undefined ? stage.onDevice(place.backend) : byItself(stage, place));
	try {
		const loadMs = nowMs() - startMs;
		const times = await timeRuns(running.run, budgetMs, nowMs, stage.warmRuns);
		const limit = limitOf(work, bytes, types, limits);
		return {
			stage: name, device, loadMs, ...times, flops: work.flops, leastBytes: bytes, unfusedBytes: work.trafficBytes, ...limit, shareOfLimit: limit.limitMs / times.medianMs,
			...(part === undefined ? {} : { blocks: { measured: part.blocks, of: part.of, estimatedMs: times.medianMs * totalFlops(part.work) / totalFlops(work) } }),
		};
	} finally {
		await running.close();
	}
};
