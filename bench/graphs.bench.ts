/** Milliseconds of each graph: npm run bench -- graphs [MODEL FOLDER]. Median / 95th percentile over runs with random inputs. */
import { fileURLToPath } from 'node:url';
import type { Feeds, Graph } from '../src/engine/backend.js';
import { createOnnxRuntime } from '../src/engine/backends/onnxruntime.js';
import { networkSizes } from '../src/engine/network-sizes.js';
import { denoiserArithmetic } from '../src/engine/profile.js';
import type { EngineProfile } from '../src/engine/protocol.js';
import { CPU_PROFILES } from '../src/engine/protocol.js';
import { ditGraph } from '../src/model/dit.js';
import { openModelFolder } from '../src/model/model-folder.js';
import { type OwnModelSpec, ownModel } from '../src/model/spec.js';
import { textEncoderGraph } from '../src/model/text-encoder.js';
import { textKeysGraph } from '../src/model/text-keys.js';
import { decoderGraph } from '../src/model/vae-decoder.js';
import { activationNames } from '../src/model/vae-decoder-int8.js';
import { Weights } from '../src/model/weights.js';
import { medianAndP95, printTable, printWhere } from './report.js';

const WARM_RUNS = 5;
const RUNS = 40;
/** For models without `int8_ranges`: the pictures would be wrong, the time is the same. */
const ANY_RANGE = 4;

const path = process.argv[2] ?? fileURLToPath(new URL('../../models/toybox', import.meta.url));
const folder = await openModelFolder(path);
const spec = ownModel(folder.spec);
const [text, dit, vae] = [new Weights(await folder.readWeights('text')), new Weights(await folder.readWeights('dit')), new Weights(await folder.readWeights('vae'))];
const sizes = networkSizes(spec, spec.width, spec.height);
const size = { height: sizes.latentHeight, width: sizes.latentWidth };
const pastTokens = (spec.stream.window_latents - spec.stream.latents_per_chunk) * sizes.tokensPerLatent;

const withRanges = (vaeSpec: OwnModelSpec['vae']): OwnModelSpec['vae'] =>
	Object.keys(vaeSpec.int8_ranges).length > 0 ? vaeSpec : { ...vaeSpec, int8_ranges: Object.fromEntries(activationNames(vaeSpec).map((name) => [name, ANY_RANGE])) };

const graphsOf = (profile: EngineProfile): Graph[] => {
	const isInt8 = profile !== 'cpu-fp32';
	return [
		textEncoderGraph(spec.text, text),
		textKeysGraph(spec.dit, dit),
		ditGraph(spec.dit, { weights: dit, mode: { kind: 'chunk' }, ...denoiserArithmetic(profile), frames: spec.stream.latents_per_chunk, ...size }),
		decoderGraph(withRanges(spec.vae), { weights: vae, arithmetic: isInt8 ? 'int8' : 'float32', ...size }),
	];
};

const randomFeeds = (graph: Graph): Feeds =>
	Object.fromEntries(graph.inputs.map(({ name, type, dims }) => {
		const known = dims.map((dimension) => (typeof dimension === 'number' ? dimension : pastTokens));
		const count = known.reduce((product, dimension) => product * dimension, 1);
		return [name, type === 'int64'
			? { type, dims: known, data: new BigInt64Array(count).fill(1n) }
			: { type: 'float32' as const, dims: known, data: Float32Array.from({ length: count }, () => (name === 'mask' ? 1 : Math.random())) }];
	}));

printWhere();
console.log(`${spec.name}, ${spec.width}x${spec.height}, past of ${pastTokens} tokens`);
const rows: string[][] = [];
for (const profile of CPU_PROFILES) {
	for (const threads of [1, 2]) {
		const backend = createOnnxRuntime({ threads });
		for (const graph of graphsOf(profile)) {
			const started = performance.now();
			const session = await backend.load(graph);
			const loadMs = performance.now() - started;
			const feeds = randomFeeds(graph);
			// A denoising step fetches the velocity alone; the clean pass everything.
			const variants: [string, string[] | undefined][] = graph.name === 'dit' ? [['dit step', ['velocity']], ['dit clean pass', undefined]] : [[graph.name, undefined]];
			for (const [name, fetch] of variants) {
				const times: number[] = [];
				for (let run = 0; run < WARM_RUNS + RUNS; run++) {
					const start = performance.now();
					await session.run(feeds, fetch);
					if (run >= WARM_RUNS) {
						times.push(performance.now() - start);
					}
				}
				rows.push([profile, String(threads), name, medianAndP95(times), Math.min(...times).toFixed(1), loadMs.toFixed(0)]);
			}
			await session.close();
		}
	}
}
printTable(['profile', 'threads', 'graph', 'ms median / p95', 'fastest', 'load ms'], rows);
