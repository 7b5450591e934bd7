/** The stages of an own model, and a whole chunk as an engine makes it. */
import type { Backend, DeviceBackend } from '../engine/backend.js';
import { Generator } from '../engine/generator.js';
import { kvShapeOf, networkSizes } from '../engine/network-sizes.js';
import { loadNetworks, type Networks } from '../engine/networks.js';
import type { OpenDevice } from '../engine/open-device.js';
import { decoderArithmetic, denoiserArithmetic, deviceOf } from '../engine/profile.js';
import { PromptEncoder } from '../engine/prompt-encoder.js';
import type { EngineProfile } from '../engine/protocol.js';
import { mustRecord } from '../engine/recorded-forwards.js';
import { keysPlace } from '../engine/window-kv.js';
import { ditGraph } from '../model/dit.js';
import { openModelFolder } from '../model/model-folder.js';
import { framesPerChunk, ownModel } from '../model/spec.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { textKeysGraph } from '../model/text-keys.js';
import { decoderGraph } from '../model/vae-decoder.js';
import { Weights } from '../model/weights.js';
import { TurbocastError } from '../protocol/errors.js';
import { type ChunkReport, OWN_STAGES } from './chunk-report.js';
import { type Forwards, openForwards, RUNS_UNTIL_REPLAYED } from './forwards.js';
import { FLOAT32, matrixTypes } from './stage-arithmetic.js';
import type { Place, Stage } from './stage.js';
import { percentile } from './timing.js';
import { recordedName } from './wan-stage-names.js';

/** Words of the embedded model's world; of others they are as good as any. */
const [PROMPT, NEW_PROMPTS] = ['a red ball bounces on the beach', ['a cat jumps', 'a dog runs', 'a blue car drives', 'a bird flies', 'a ball rolls']];

export type OwnModelOptions = {
	/** Path of its folder. */
	readonly folder: string;
	readonly profile: EngineProfile;
	readonly threads: number;
	/** Whether our own kernels are used; default no. */
	readonly kernels?: boolean | undefined;
	/** Whether forwards are recorded and replayed; default no. */
	readonly recordsForwards?: boolean | undefined;
	/** For tests. */
	readonly openDevice?: OpenDevice | undefined;
};

const loadOwn = async ({ folder, ...options }: OwnModelOptions): Promise<Networks> => {
	const { spec } = await openModelFolder(folder, { verify: false });
	return loadNetworks({ ...options, folder, width: spec.width, height: spec.height });
};

/** The forwards of the networks that an engine would load, on a device that stays open when those are closed. */
const forwardsOn = async (device: DeviceBackend, options: OwnModelOptions): Promise<Pick<Forwards, 'step' | 'clean'> & { readonly close: () => Promise<void> }> => {
	const shared = { ...(options.recordsForwards === true ? mustRecord(device) : device), close: () => Promise.resolve() };
	const networks = await loadOwn({ ...options, openDevice: () => shared });
	try {
		const { spec, resident, tokensPerLatent, latentHeight, latentWidth } = networks;
		if (resident === undefined) {
			throw new TurbocastError('internal', `${options.profile} keeps nothing on a device.`);
		}
		const forwards = await openForwards(resident, {
			prompt: await networks.encodePrompt(PROMPT), chunkDims: [spec.dit.in_dim, spec.stream.latents_per_chunk, latentHeight, latentWidth],
			drawsNoise: spec.sampler === 'renoise', window: kvShapeOf(spec, tokensPerLatent),
		});
		return {
			...forwards,
			close: async () => {
				forwards.close();
				await networks.close();
			},
		};
	} catch (error) {
		await networks.close();
		throw error;
	}
};

/** Closed by whoever asked for them. */
export type OwnStages = { readonly onHost: readonly Stage[]; readonly onDevice: readonly Stage[]; readonly close: () => Promise<void> };

/** Those that are recorded where `recordsForwards` says so, and then no others. Throws what opening the folder throws. */
export const ownModelStages = async (options: OwnModelOptions, place: Place): Promise<OwnStages> => {
	const { profile, recordsForwards = false } = options;
	const folder = await openModelFolder(options.folder);
	const spec = ownModel(folder.spec);
	const [text, dit, vae] = [new Weights(await folder.readWeights('text')), new Weights(await folder.readWeights('dit')), new Weights(await folder.readWeights('vae'))];
	const { latentHeight: height, latentWidth: width, tokensPerLatent } = networkSizes(spec, spec.width, spec.height);
	const { latents_per_chunk: frames, window_latents: window } = spec.stream;
	const isOnCpu = deviceOf(profile) === 'cpu';
	const hasRanges = Object.keys(spec.vae.int8_ranges).length > 0;
	const arithmetic = decoderArithmetic(profile, hasRanges);
	const keys = keysPlace(place.kind === 'device' ? place.backend : undefined);
	const backend: Pick<Backend, 'hasKernels'> = place.backend;
	const denoiser = ditGraph(spec.dit, { weights: dit, mode: { kind: 'chunk', keys }, ...denoiserArithmetic(profile, backend), frames, height, width });
	const common = { symbols: { past: (window - frames) * tokensPerLatent, window }, types: matrixTypes(profile, arithmetic) };
	/** Of steps and clean passes, one after the other over the same window. */
	let loading: ReturnType<typeof forwardsOn> | undefined;
	const close = async (): Promise<void> => {
		// One that could not be loaded has nothing to close, and was told where it was asked for.
		await loading?.then((forwards) => forwards.close(), () => undefined);
		loading = undefined;
	};
	const forward = (name: string, use: 'step' | 'clean'): Stage => ({
		name: recordsForwards ? recordedName(name) : name, graph: denoiser, host: ['velocity'], wantsAll: use === 'clean' || keys === 'in place', ...common,
		onDevice: async (device) => {
			loading ??= forwardsOn(device, options);
			return { run: (await loading)[use], close: () => Promise.resolve() };
		},
		...(recordsForwards ? { warmRuns: RUNS_UNTIL_REPLAYED } : {}),
	});
	const forwards = [forward(OWN_STAGES.step, 'step'), forward(OWN_STAGES.clean, 'clean')];
	return recordsForwards ? { onHost: [], onDevice: forwards, close } : {
		close,
		onHost: [
			{ name: 'text encode', graph: textEncoderGraph(spec.text, text), host: ['context'], wantsAll: true, types: FLOAT32 },
			{ name: 'keys and values of the text', graph: textKeysGraph(spec.dit, dit), host: [], wantsAll: true, types: FLOAT32 },
		],
		onDevice: [
			...forwards,
			{
				name: OWN_STAGES.decode, graph: decoderGraph(spec.vae, { weights: vae, arithmetic, height, width, ...(isOnCpu ? { output: 'i420' } : { output: 'i420 words', checksLatent: true }) }),
				host: isOnCpu ? ['frames'] : ['frames', 'magnitude'], wantsAll: true, ...common,
			},
		],
	};
};

const MAX_CHUNKS = 40;

/** Chunks of one stream, prompts new in turn, until the budget is used up. */
export const measureChunks = async (options: OwnModelOptions & { readonly budgetMs: number; readonly nowMs: () => number }): Promise<ChunkReport> => {
	const { budgetMs, nowMs, recordsForwards = false, ...own } = options;
	const networks = await loadOwn({ ...own, recordsForwards });
	const { spec } = networks;
	const generator = new Generator(networks, new PromptEncoder(networks), nowMs, { seed: 1, firstChunkIndex: 0 });
	try {
		const steps = spec.default_steps;
		const never = new AbortController().signal;
		const chunk = async (prompt: string): Promise<{ readonly allMs: number; readonly firstMs: number }> => {
			const startMs = nowMs();
			let firstMs = Number.NaN;
			await generator.generateChunk({ prompt, steps, controls: {} }, (first) => {
				if (first === 0) {
					firstMs = nowMs() - startMs;
				}
			}, never, false);
			return { allMs: nowMs() - startMs, firstMs };
		};
		const filling = Math.ceil(spec.stream.window_latents / spec.stream.latents_per_chunk);
		for (let warm = filling + (recordsForwards ? Math.ceil(RUNS_UNTIL_REPLAYED / (steps + 1)) : 0); warm > 0; warm--) {
			await chunk(PROMPT);
		}
		const [known, fresh]: [number[], number[]] = [[], []];
		const endMs = nowMs() + budgetMs;
		do {
			known.push((await chunk(PROMPT)).allMs);
			const next = `${NEW_PROMPTS[fresh.length % NEW_PROMPTS.length] ?? PROMPT}${' on the beach'.repeat(1 + Math.floor(fresh.length / NEW_PROMPTS.length))}`;
			fresh.push((await chunk(next)).firstMs);
		} while (known.length < MAX_CHUNKS && nowMs() < endMs);
		const frames = framesPerChunk(spec);
		const median = percentile(known, 0.5);
		return {
			model: spec.name, width: spec.width, height: spec.height, steps, framesPerChunk: frames, chunks: known.length + fresh.length, isRecorded: recordsForwards,
			chunkMs: { median, p95: percentile(known, 0.95) }, framesPerSecond: 1000 * frames / median,
			promptToFirstFrameMs: { median: percentile(fresh, 0.5), p95: percentile(fresh, 0.95) },
		};
	} finally {
		generator.close();
		await networks.close();
	}
};
