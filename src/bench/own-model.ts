/** The stages of an own model, and a whole chunk as an engine makes it. */
import type { Backend } from '../engine/backend.js';
import { Generator } from '../engine/generator.js';
import { networkSizes } from '../engine/network-sizes.js';
import { loadNetworks } from '../engine/networks.js';
import { decoderArithmetic, denoiserArithmetic, deviceOf } from '../engine/profile.js';
import { PromptEncoder } from '../engine/prompt-encoder.js';
import type { EngineProfile } from '../engine/protocol.js';
import { ditGraph } from '../model/dit.js';
import { openModelFolder } from '../model/model-folder.js';
import { framesPerChunk, ownModel } from '../model/spec.js';
import { textEncoderGraph } from '../model/text-encoder.js';
import { textKeysGraph } from '../model/text-keys.js';
import { decoderGraph } from '../model/vae-decoder.js';
import { Weights } from '../model/weights.js';
import { type ChunkReport, OWN_STAGES } from './chunk-report.js';
import { FLOAT32, matrixTypes } from './stage-arithmetic.js';
import type { Stage } from './stage.js';
import { percentile } from './timing.js';

/** Stages by where they run: texts are encoded on the processor whatever computes the rest. Throws what opening the folder throws. */
export const ownModelStages = async (path: string, profile: EngineProfile, backend: Pick<Backend, 'hasKernels'>): Promise<{ readonly onHost: readonly Stage[]; readonly onDevice: readonly Stage[] }> => {
	const folder = await openModelFolder(path);
	const spec = ownModel(folder.spec);
	const [text, dit, vae] = [new Weights(await folder.readWeights('text')), new Weights(await folder.readWeights('dit')), new Weights(await folder.readWeights('vae'))];
	const { latentHeight: height, latentWidth: width, tokensPerLatent } = networkSizes(spec, spec.width, spec.height);
	const { latents_per_chunk: frames, window_latents: window } = spec.stream;
	const isOnCpu = deviceOf(profile) === 'cpu';
	const hasRanges = Object.keys(spec.vae.int8_ranges).length > 0;
	const arithmetic = decoderArithmetic(profile, hasRanges);
	const denoiser = ditGraph(spec.dit, { weights: dit, mode: { kind: 'chunk' }, ...denoiserArithmetic(profile, backend), frames, height, width });
	const common = { symbols: { past: (window - frames) * tokensPerLatent }, types: matrixTypes(profile, arithmetic) };
	return {
		onHost: [
			{ name: 'text encode', graph: textEncoderGraph(spec.text, text), host: ['context'], wantsAll: true, types: FLOAT32 },
			{ name: 'keys and values of the text', graph: textKeysGraph(spec.dit, dit), host: [], wantsAll: true, types: FLOAT32 },
		],
		onDevice: [
			{ name: OWN_STAGES.step, graph: denoiser, host: ['velocity'], wantsAll: false, ...common },
			{ name: OWN_STAGES.clean, graph: denoiser, host: ['velocity'], wantsAll: true, ...common },
			{ name: OWN_STAGES.decode, graph: decoderGraph(spec.vae, { weights: vae, arithmetic, height, width, output: isOnCpu ? 'i420' : 'i420 words' }), host: ['frames'], wantsAll: true, ...common },
		],
	};
};

const MAX_CHUNKS = 40;
/** Words of the embedded model's world; of others they are as good as any. */
const [PROMPT, NEW_PROMPTS] = ['a red ball bounces on the beach', ['a cat jumps', 'a dog runs', 'a blue car drives', 'a bird flies', 'a ball rolls']];

/** Chunks of one stream, prompts new in turn, until the budget is used up. */
export const measureChunks = async (options: { readonly folder: string; readonly profile: EngineProfile; readonly threads: number; readonly budgetMs: number; readonly nowMs: () => number }): Promise<ChunkReport> => {
	const { folder: path, profile, threads, budgetMs, nowMs } = options;
	const { spec } = await openModelFolder(path);
	const networks = await loadNetworks({ folder: path, profile, threads, width: spec.width, height: spec.height });
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
		for (let filled = 0; filled < spec.stream.window_latents; filled += spec.stream.latents_per_chunk) {
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
			model: spec.name, width: spec.width, height: spec.height, steps, framesPerChunk: frames, chunks: known.length + fresh.length,
			chunkMs: { median, p95: percentile(known, 0.95) }, framesPerSecond: 1000 * frames / median,
			promptToFirstFrameMs: { median: percentile(fresh, 0.5), p95: percentile(fresh, 0.95) },
		};
	} finally {
		generator.close();
		await networks.close();
	}
};
