/** The stages of networks with Wan 2.1's dimensions and random weights, cut to as many blocks as memory and patience allow. */
import { joinedDecoder } from '../engine/joined-decoder.js';
import { denoiserArithmetic, deviceOf } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import { type ScratchFile, openScratchFile } from '../engine/scratch-file.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../model/checkpoint/network-tensors.js';
import { ditTensors } from '../model/dit-tensors.js';
import { type DitGraphOptions, type DitMode, ditGraph } from '../model/dit.js';
import { addWork, type GraphWork, graphWork, largestBytes, leastBytes, scaleWork, type Symbols } from '../model/graph-work.js';
import type { Graph } from '../model/graph.js';
import { headerOnlyWeights } from '../model/header-only-weights.js';
import { CLIP_LATENTS, TURBO_ATTENTION } from '../model/recipes.js';
import type { ImportedVaeSpec } from '../model/spec.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { taehv, UMT5_XXL, WAN_1_3B, WAN_STRIDE, wanVae } from '../model/wan-dimensions.js';
import { Weights } from '../model/weights.js';
import { RUNS_UNTIL_REPLAYED } from './forwards.js';
import { FLOAT32, matrixTypes } from './stage-arithmetic.js';
import { writeRandomWeights } from './random-weights.js';
import type { Stage } from './stage.js';
import { wanForwards } from './wan-forwards.js';
import { CAUSAL, type KernelUse, partName, PAST_LATENTS, type WanStage } from './wan-stage-names.js';

/** Of Wan's VAE, and of TAEHV, which takes its place. */
const WAN_LATENTS = { latent_channels: WAN_1_3B.out_dim, spatial_stride: WAN_STRIDE, frames_per_latent: 4 } as const;

/** Rows that are looked up are few; the table would be 2 GB. */
const BENCH_VOCABULARY = 1024;

type Plan = {
	readonly shapesOf: (blocks: number) => Shapes;
	/** `counts`: only to be counted, for which no weight need be made 8-bit. */
	readonly graphOf: (blocks: number, weights: Weights, use: 'runs' | 'counts') => Graph;
	/** Of the network; 1 where it is not made of equal blocks. */
	readonly blocks: number;
	readonly symbols: Symbols;
	readonly host: readonly string[];
	readonly wantsAll: boolean;
	readonly types: Stage['types'];
	readonly runsOnHost: boolean;
	/** Of denoisers: how their graph is run on a device. */
	readonly onDevice?: ((graph: Graph, blocks: number) => Stage['onDevice']) | undefined;
};

/** Of a clip sparse attention is float32 in every profile, and dense attention 8-bit in one. */
const clipTypes = (profile: EngineProfile, mode: DitMode, kernels: boolean): Stage['types'] => {
	const types = matrixTypes(profile, 'float32');
	if (mode.kind === 'chunk') {
		return types;
	}
	return { ...types, attention: mode.sparse !== undefined ? (kernels ? 'float16' : 'float32') : denoiserArithmetic(profile).attention === 'int8' ? 'int8' : types.attention };
};

const planOf = (stage: WanStage, { profile, size, kernels: use, isRecorded = false }: Pick<WanConditions, 'profile' | 'size' | 'kernels' | 'isRecorded'>): Plan => {
	const hasKernels = use !== undefined;
	const latent = { height: size.height / WAN_STRIDE, width: size.width / WAN_STRIDE };
	const denoiser = (options: Pick<DitGraphOptions, 'mode' | 'frames'>, run: 'step' | 'clean'): Pick<Plan, 'shapesOf' | 'graphOf' | 'blocks' | 'types' | 'runsOnHost' | 'host' | 'wantsAll' | 'onDevice'> => {
		const isSparse = options.mode.kind === 'clip' && options.mode.sparse !== undefined;
		const spec = (blocks: number) => ({ ...WAN_1_3B, num_layers: blocks });
		return {
			shapesOf: (blocks) => ditTensors(spec(blocks), isSparse), blocks: WAN_1_3B.num_layers, types: clipTypes(profile, options.mode, hasKernels), runsOnHost: false, host: ['velocity'], wantsAll: run === 'clean' || isInPlace,
			onDevice: (graph, blocks) => (device) => wanForwards(device, { graph, spec: spec(blocks), profile, isRecorded, run, isClip: options.mode.kind === 'clip', frames: options.frames, ...latent }),
			graphOf: (blocks, weights, use) => {
				const { linears, attention, kernels } = denoiserArithmetic(profile, { hasKernels });
				return ditGraph(spec(blocks), { weights, attention, kernels, linears: use === 'runs' ? linears : linears === 'int8' ? 'float32' : linears === 'w8a8' ? 'float16' : linears, ...options, ...latent });
			},
		};
	};
	const isOnCpu = deviceOf(profile) === 'cpu';
	const decoder = (tensors: Shapes, vae: ImportedVaeSpec): Plan => ({
		shapesOf: () => tensors, graphOf: (_, weights) => joinedDecoder(vae, latent.height, latent.width).graph(weights, 'next', isOnCpu ? 'bytes' : 'words'), blocks: 1, symbols: {},
		host: isOnCpu ? ['frames'] : ['frames', 'magnitude'], wantsAll: true, types: FLOAT32, runsOnHost: false,
	});
	const isInPlace = deviceOf(profile) === 'cuda';
	const causal = { mode: { kind: 'chunk', keys: isInPlace ? 'in place' : 'handed over' }, frames: CAUSAL.chunkLatents } as const;
	const symbols = { past: PAST_LATENTS * (latent.height / 2) * (latent.width / 2), window: PAST_LATENTS + CAUSAL.chunkLatents };
	switch (stage) {
		case 'causal step':
			return { ...denoiser(causal, 'step'), symbols };
		case 'causal clean pass':
			return { ...denoiser(causal, 'clean'), symbols };
		case 'clip step, dense':
			return { ...denoiser({ mode: { kind: 'clip' }, frames: CLIP_LATENTS }, 'step'), symbols: {} };
		case 'clip step, sparse':
			return { ...denoiser({ mode: { kind: 'clip', sparse: TURBO_ATTENTION }, frames: CLIP_LATENTS }, 'step'), symbols: {} };
		case 'taehv decode, a latent':
			return decoder(taehvTensors(taehv()), { kind: 'taehv', network: taehv(), ...WAN_LATENTS });
		case 'wan vae decode, a latent':
			return decoder(Object.fromEntries(Object.entries(wanVaeTensors(wanVae())).filter(([name]) => /^(?:decoder|conv2)\./u.test(name))), { kind: 'wan-vae', network: wanVae(), ...WAN_LATENTS });
		case 'umt5-xxl encode': {
			const spec = (blocks: number) => ({ ...UMT5_XXL, vocab_size: BENCH_VOCABULARY, num_layers: blocks });
			return {
				shapesOf: (blocks) => textTensors(spec(blocks)), graphOf: (blocks, weights) => textEncoderGraph(spec(blocks), weights), blocks: UMT5_XXL.num_layers,
				symbols: {}, host: [], wantsAll: true, types: FLOAT32, runsOnHost: true,
			};
		}
	}
};

export type WanConditions = {
	readonly profile: EngineProfile;
	/** How our own kernels are called; default not at all. */
	readonly kernels?: KernelUse | undefined;
	/** Whether forwards of streams are recorded and replayed; default no. */
	readonly isRecorded?: boolean | undefined;
	/** Of the picture; multiples of 16. */
	readonly size: { readonly width: number; readonly height: number };
	/** What weights and activations may take. */
	readonly memoryBytes: number;
	/** Longest run that is waited for, at the rates that the device has. */
	readonly budgetMs: number;
	/** What the work takes at least. */
	readonly limitMs: (work: GraphWork, bytes: number, types: Stage['types'], runsOnHost: boolean) => number;
};

export type WanStagePlan =
	| { readonly kind: 'excluded'; readonly why: string }
	| { readonly kind: 'planned'; readonly runsOnHost: boolean; /** That fit. */ readonly blocks: number; /** Writes the weights, and calls for `remove` once. */ readonly build: () => { readonly stage: Stage; readonly remove: () => void } };

/** How much slower than its limit a stage may be before it is not worth waiting for. */
const PATIENCE = 4;
/** While a graph is loaded its weights are there as they are stored, as the library wants them, and as the device has them. */
const COPIES_OF_WEIGHTS = 3;
/** Results of operators that live at the same time, when none are fused. */
const LIVE_RESULTS = 3;

const seconds = (ms: number): string => `${(ms / 1000).toPrecision(2)} s`;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** As many blocks as fit, or why not even one does. Nothing is run and no weight is made. */
export const planWanStage = (name: WanStage, conditions: WanConditions): WanStagePlan => {
	const { memoryBytes, budgetMs, limitMs } = conditions;
	const { shapesOf, graphOf, blocks, symbols, host, wantsAll, types, runsOnHost, onDevice } = planOf(name, conditions);
	const counted = (count: number) => {
		const graph = graphOf(count, headerOnlyWeights(shapesOf(count)), 'counts');
		const least = leastBytes(graph, symbols, wantsAll ? undefined : host);
		return { work: graphWork(graph, symbols), least, need: COPIES_OF_WEIGHTS * least + LIVE_RESULTS * largestBytes(graph, symbols) };
	};
	const one = counted(1);
	const two = blocks === 1 ? one : counted(2);
	const eachNeed = two.need - one.need;
	const eachMs = limitMs(two.work, two.least, types, runsOnHost) - limitMs(one.work, one.least, types, runsOnHost);
	const oneMs = limitMs(one.work, one.least, types, runsOnHost);
	if (one.need > memoryBytes) {
		return { kind: 'excluded', why: `${blocks === 1 ? 'it' : 'one block of it'} needs about ${gigabytes(one.need)} of memory, and ${gigabytes(memoryBytes)} may be used` };
	}
	if (PATIENCE * oneMs > budgetMs) {
		return { kind: 'excluded', why: `${blocks === 1 ? 'it' : 'one block of it'} may take ${seconds(PATIENCE * oneMs)}, ${PATIENCE} times what it must at the rates of this device, and --budget is ${seconds(budgetMs)}` };
	}
	const fitting = (left: number, each: number): number => (each <= 0 ? blocks : 1 + Math.floor(left / each));
	const count = Math.min(blocks, fitting(memoryBytes - one.need, eachNeed), fitting(budgetMs - PATIENCE * oneMs, PATIENCE * eachMs));
	const whole = addWork(one.work, scaleWork(addWork(two.work, scaleWork(one.work, -1)), blocks - 1));
	return {
		kind: 'planned', runsOnHost, blocks: count,
		build: () => {
			const weights = writeRandomWeights(shapesOf(count));
			let scratch: ScratchFile | undefined;
			const remove = (): void => {
				scratch?.remove();
				weights.remove();
			};
			try {
				scratch = openScratchFile();
				const graph = graphOf(count, new Weights(weights.file, scratch), 'runs');
				return {
					remove,
					stage: {
						name: partName({ kind: 'wan', stage: name, ...conditions }), graph, symbols, host, wantsAll, types, onDevice: onDevice?.(graph, count),
						...(conditions.isRecorded === true ? { warmRuns: RUNS_UNTIL_REPLAYED } : {}), ...(blocks === 1 ? {} : { part: { blocks: count, of: blocks, work: whole } }),
					},
				};
			} catch (error) {
				remove();
				throw error;
			}
		},
	};
};
