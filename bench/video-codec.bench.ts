/**
 * Seconds a latent of the full-size Wan VAE and TAEHV, random weights: npm run bench -- video-codec [SIZE] [LATENTS] [THREADS]. SIZE is the
 * side of the picture in pixels. Work grows with the area, so that a small picture tells of a large one.
 */
import { createOnnxRuntime } from '../src/engine/backends/onnxruntime.js';
import { createTaehvDecoder, createWanDecoder, type VideoDecoder } from '../src/engine/video-codec.js';
import { type Shapes, taehvTensors, wanVaeTensors } from '../src/model/checkpoint/network-tensors.js';
import { encodeSafetensors, parseSafetensors } from '../src/model/safetensors.js';
import { parseTaehvSpec } from '../src/model/taehv.js';
import { parseWanVaeSpec } from '../src/model/wan-vae-spec.js';
import { Weights } from '../src/model/weights.js';
import { printTable, printWhere } from './report.js';

const [size = 64, latents = 3, threads = 1] = process.argv.slice(2).map(Number);
const STRIDE = 8;

/** Uniform numbers small enough that nothing overflows; what they are does not matter to the time. */
const randomWeights = (shapes: Shapes): Weights => {
	let state = 1;
	const tensors = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => {
		const data = new Float32Array(shape.reduce((product, side) => product * side, 1));
		const scale = 1 / Math.sqrt(data.length / (shape[0] ?? 1));
		for (let index = 0; index < data.length; index++) {
			state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
			data[index] = (state / 2 ** 31) * scale;
		}
		return [name, { dtype: 'F32' as const, shape, data }];
	}));
	return new Weights(parseSafetensors('random.safetensors', encodeSafetensors(tensors)));
};

const measure = async (name: string, decoder: VideoDecoder, channels: number): Promise<string[]> => {
	const side = size / STRIDE;
	const seconds: number[] = [];
	let frames = 0;
	for (let index = 0; index < latents; index++) {
		const latent = Float32Array.from({ length: channels * side * side }, () => Math.random() - 0.5);
		const started = performance.now();
		frames += (await decoder.decode(latent)).count;
		seconds.push((performance.now() - started) / 1000);
	}
	await decoder.close();
	const [first = 0, ...later] = seconds;
	const mean = later.reduce((sum, value) => sum + value, 0) / later.length;
	return [name, `${size}x${size}`, String(frames), first.toFixed(2), mean.toFixed(2), (process.memoryUsage().rss / 1e6).toFixed(0)];
};

const backend = createOnnxRuntime({ threads });
const at = { height: size / STRIDE, width: size / STRIDE, backend };
printWhere();
const rows: string[][] = [];
const tiny = parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 });
rows.push(await measure('TAEHV', await createTaehvDecoder({ ...at, spec: tiny, weights: randomWeights(taehvTensors(tiny)) }), tiny.latent_channels));
const wan = parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });
rows.push(await measure('Wan VAE', await createWanDecoder({ ...at, spec: wan, weights: randomWeights(wanVaeTensors(wan)) }), wan.z_dim));
printTable(['decoder', 'size', 'frames', 'first latent, s', 'later latents, s', 'RSS after, MB'], rows);
