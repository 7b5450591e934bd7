/**
 * A joined model of the true dimensions of Wan 2.1 1.3B with random weights: one forward of the denoiser, the decoders latent by latent, loading
 * and peak memory, each variant in a process of its own: npm run bench -- real-model [SIZE] [FRAMES] [THREADS]. Weights are written to the
 * folder for temporary files (3.2 GB) and removed. Text of the true width comes from a text encoder of one thin layer.
 */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadNetworks } from '../src/engine/networks.js';
import { gaussianNoise } from '../src/engine/noise.js';
import { type EngineProfile, RESIDENCIES, type Residency } from '../src/engine/protocol.js';
import { latentFrame } from '../src/engine/sampler.js';
import { type Shapes, taehvTensors, textTensors, wanVaeTensors } from '../src/model/checkpoint/network-tensors.js';
import { ditTensors } from '../src/model/dit-tensors.js';
import { openModelFolder } from '../src/model/model-folder.js';
import { TURBO_ATTENTION } from '../src/model/recipes.js';
import { encodeHeader, tensorBytes } from '../src/model/safetensors.js';
import type { DitDimensions } from '../src/model/spec.js';
import { parseTaehvSpec } from '../src/model/taehv.js';
import { parseWanVaeSpec, WAN_LATENT_MEAN, WAN_LATENT_STD } from '../src/model/wan-vae-spec.js';
import { randomNormals } from '../test/model/random-model.js';
import { printTable, printWhere } from './report.js';

const DIT: DitDimensions = {
	dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const TEXT = { vocab_size: 8, dim: 4096, dim_attn: 64, dim_ffn: 64, num_heads: 1, num_layers: 1, num_buckets: 32 };
const VAE = parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true], latent_mean: WAN_LATENT_MEAN, latent_std: WAN_LATENT_STD });
const TAEHV = parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 });
/** Forwards that are measured, after one that is not. */
const RUNS = 2;

type Variant = { readonly name: string; readonly model: string; readonly profile: EngineProfile; readonly part: 'denoiser' | 'decoder' };
type Result = { readonly loadSeconds: number; readonly laterSeconds: number; readonly cpuSeconds: number; readonly residentMb: number; readonly peakMb: number };

const VARIANTS: readonly Variant[] = [
	{ name: 'denoiser, fp32, dense', model: 'dense', profile: 'cpu-fp32', part: 'denoiser' },
	{ name: 'denoiser, int8, dense', model: 'dense', profile: 'cpu-int8', part: 'denoiser' },
	{ name: 'denoiser, int8, sparse-linear', model: 'sparse', profile: 'cpu-int8', part: 'denoiser' },
	{ name: 'Wan VAE, a latent', model: 'dense', profile: 'cpu-fp32', part: 'decoder' },
	{ name: 'TAEHV, a latent', model: 'tiny', profile: 'cpu-fp32', part: 'decoder' },
];

/** Bytes; even, as the numbers are of two. */
const TENSOR_STRIDE = 2 * 99_991;
const normals = randomNormals(2 ** 18, 1);
/** Numbers of a size in bfloat16, by that size; they repeat after a quarter of a million. */
const blocks = new Map<string, Uint8Array>();
const blockOf = (scale: number, offset: number): Uint8Array => {
	const key = `${scale} ${offset}`;
	const known = blocks.get(key) ?? new Uint8Array(Uint16Array.from(new Uint32Array(normals.map((value) => offset + scale * value).buffer), (bits) => bits >>> 16).buffer);
	blocks.set(key, known);
	return known;
};

/** A .safetensors file in bfloat16. A start does not look at its hash. */
const writeWeights = (path: string, shapes: Shapes): { bytes: number; sha256: string } => {
	const file = openSync(path, 'w');
	let bytes = 0;
	const write = (piece: Uint8Array): void => {
		bytes += writeSync(file, piece);
	};
	write(encodeHeader(Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'BF16' as const, shape }]))));
	for (const [index, [name, shape]] of Object.entries(shapes).entries()) {
		const scale = shape.length === 1 ? 0.1 : 1 / Math.sqrt(shape.slice(1).reduce((product, size) => product * size, 1));
		const block = blockOf(scale, /gamma$|norm.*weight$/u.test(name) ? 1 : 0);
		// Each tensor begins elsewhere in the block: the tensor library keeps one of two that are alike, and would seem to need little memory.
		let at = (index * TENSOR_STRIDE) % block.length;
		for (let left = tensorBytes({ dtype: 'BF16', shape }); left > 0;) {
			const piece = block.subarray(at, at + left);
			write(piece);
			left -= piece.length;
			at = 0;
		}
	}
	closeSync(file);
	return { bytes, sha256: '0'.repeat(64) };
};

const writeModels = (root: string): void => {
	const folder = (name: string, networks: readonly { component: string; kind: string; dimensions: object; shapes: Shapes }[], tokenizer?: object): void => {
		mkdirSync(join(root, name));
		const components = networks.map(({ component, kind, dimensions, shapes }) => ({
			component, kind, title: kind, source: ['random'], dimensions, file: `${component}.safetensors`, ...writeWeights(join(root, name, `${component}.safetensors`), shapes),
		}));
		writeFileSync(join(root, name, 'component.json'), JSON.stringify({ format: 1, name, license: 'none', components, ...(tokenizer === undefined ? {} : { tokenizer }) }));
	};
	folder('dit', [{ component: 'dit', kind: 'wan-dit', dimensions: { ...DIT, attention: 'dense' }, shapes: ditTensors(DIT, false) }]);
	folder('sla', [{ component: 'dit', kind: 'turbo-dit', dimensions: { ...DIT, attention: 'sla' }, shapes: ditTensors(DIT, true) }]);
	const words = Buffer.from(JSON.stringify({ kind: 'words', pad: 0, end: 1, unknown: 2, words: ['<pad>', '</s>', '<unk>', 'cat'] }));
	folder('parts', [
		{ component: 'text', kind: 'umt5', dimensions: TEXT, shapes: textTensors(TEXT) },
		{ component: 'vae', kind: 'wan-vae', dimensions: VAE, shapes: wanVaeTensors(VAE) },
		{ component: 'taehv', kind: 'taehv', dimensions: TAEHV, shapes: taehvTensors(TAEHV) },
	], { file: 'tokenizer.json', bytes: words.length, sha256: createHash('sha256').update(words).digest('hex') });
	writeFileSync(join(root, 'parts', 'tokenizer.json'), words);
	const { ratio, blockQueries, blockKeys } = TURBO_ATTENTION;
	for (const [name, denoiser, decoder] of [['dense', 'dit', 'vae'], ['sparse', 'sla', 'vae'], ['tiny', 'dit', 'taehv']] as const) {
		mkdirSync(join(root, name));
		writeFileSync(join(root, name, 'model.json'), JSON.stringify({
			format: 2, name, title: name, license: 'none', fps: 16, width: 832, height: 480, sizes: [[832, 480]], default_steps: 4,
			components: { denoiser: `${denoiser}/dit`, text: 'parts/text', tokenizer: 'parts/tokenizer', decoder: `parts/${decoder}` },
			clip: { latents: 21, sigma_max: 80, ...(denoiser === 'sla' ? { attention: { ratio, block_queries: blockQueries, block_keys: blockKeys } } : {}) },
		}));
	}
};

/** Resident memory of this process, now (VmRSS) or at its highest (VmHWM), MB. */
const memoryMb = (field: 'VmRSS' | 'VmHWM'): number => Number(new RegExp(`${field}:\\s+(\\d+) kB`, 'u').exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? Number.NaN) / 1024;

type Time = { readonly seconds: number; readonly cpuSeconds: number };

/** Time that passed, and time that this process computed, which other load on the machine does not lengthen much. */
const timed = async (work: () => Promise<unknown>): Promise<Time> => {
	const [started, usedBefore] = [performance.now(), process.cpuUsage()];
	await work();
	const { user, system } = process.cpuUsage(usedBefore);
	return { seconds: (performance.now() - started) / 1000, cpuSeconds: (user + system) / 1e6 };
};

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN;

/** Median of the later ones; the first includes loading. */
const measure = async (root: string, { model, profile, part }: Variant, size: number, latents: number, threads: number, residency: Residency): Promise<Result> => {
	const networks = await loadNetworks({ folder: join(root, model), profile, width: size, height: size, threads, latents, residency });
	const prompt = await networks.encodePrompt('cat');
	const latent = gaussianNoise({ seed: 1, chunkIndex: 0, stepIndex: 0 }, 16 * latents * networks.latentHeight * networks.latentWidth);
	const times: Time[] = [];
	if (part === 'denoiser') {
		for (let run = 0; run <= RUNS; run++) {
			times.push(await timed(() => networks.step({ latent, timesteps: [988], prompt, firstPosition: 0, pastK: [], pastV: [], pastTokens: 0, wantKeysAndValues: false })));
		}
	} else {
		let memory = networks.emptyMemory();
		for (let index = 0; index <= RUNS + 1; index++) {
			times.push(await timed(async () => {
				({ memory } = await networks.decodeLatent(latentFrame(latent, 16, latents, index % latents), memory));
			}));
		}
	}
	// Of a decoder the second loads too: the graph for all latents but the first.
	const later = times.slice(part === 'denoiser' ? 1 : 2);
	const [cpuSeconds, loads] = [median(later.map((time) => time.cpuSeconds)), part === 'denoiser' ? times[0] : times[1]];
	const result = { loadSeconds: (loads?.cpuSeconds ?? 0) - cpuSeconds, laterSeconds: median(later.map((time) => time.seconds)), cpuSeconds, residentMb: memoryMb('VmRSS'), peakMb: memoryMb('VmHWM') };
	await networks.close();
	return result;
};

const [task = '', ...rest] = process.argv.slice(2);
if (task === 'measure') {
	const [root = '', index = '0', size = '256', latents = '3', threads = '1', residency = 'all'] = rest;
	const variant = VARIANTS[Number(index)];
	if (variant !== undefined) {
		process.send?.(await measure(root, variant, Number(size), Number(latents), Number(threads), RESIDENCIES.find((each) => each === residency) ?? 'all'));
		process.disconnect();
	}
} else {
	const [size = '256', frames = '9', threads = String(Math.min(2, availableParallelism()))] = process.argv.slice(2);
	const latents = 1 + (Number(frames) - 1) / 4;
	const root = mkdtempSync(join(tmpdir(), 'turbocast-real-model-'));
	try {
		writeModels(root);
		await openModelFolder(join(root, 'dense'));
		printWhere();
		const rows: string[][] = [];
		for (const [index, { name }] of VARIANTS.entries()) {
			const result = await new Promise<Result>((resolve, reject) => {
				const child = fork(fileURLToPath(import.meta.url), ['measure', root, String(index), size, String(latents), threads, 'one']);
				child.once('message', (message) => resolve(message as Result));
				child.once('exit', (code, signal) => reject(new Error(`${name} ended with ${signal ?? code}`)));
			});
			rows.push([name, `${size}x${size}x${frames}`, result.loadSeconds.toFixed(1), result.cpuSeconds.toFixed(2), result.laterSeconds.toFixed(2), result.residentMb.toFixed(0), result.peakMb.toFixed(0)]);
			console.log(rows.at(-1)?.join(' | '));
		}
		console.log(`${threads} threads; medians of ${RUNS} runs after the first`);
		printTable(['what', 'clip', 'load, CPU s', 'run, CPU s', 'run, s', 'RSS after, MB', 'peak RSS, MB'], rows);
	} finally {
		rmSync(root, { recursive: true, force: true });
	}
}
