/**
 * Time and memory of the full-size Wan VAE and TAEHV a latent, random weights, each in a process of its own as an engine runs it, beside what
 * src/engine/memory-need.ts expects: npm run bench -- video-codec [WIDTHxHEIGHT] [LATENTS] [THREADS] [NAME]. The first latent is one frame, each later one
 * four, by graphs of their own of the VAE. The VAE at 832x480 needs 14 GB and some three minutes a latent; time and memory grow with the area.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createOnnxRuntime } from '../src/engine/backends/onnxruntime.js';
import { joinedDecoder } from '../src/engine/joined-decoder.js';
import { BASE_BYTES, decoderBytes } from '../src/engine/memory-need.js';
import { openScratchFile } from '../src/engine/scratch-file.js';
import { taehvTensors, wanVaeTensors } from '../src/model/checkpoint/network-tensors.js';
import { encodeSafetensors, mapSafetensors } from '../src/model/safetensors.js';
import type { ImportedVaeSpec } from '../src/model/spec.js';
import { parseTaehvSpec } from '../src/model/taehv.js';
import { parseWanVaeSpec } from '../src/model/wan-vae-spec.js';
import { Weights } from '../src/model/weights.js';
import { randomNormals } from '../test/model/random-model.js';
import { randomTensors } from '../test/model/random-weights.js';
import { printTable, printWhere } from './report.js';

const SHARED = { latent_channels: 16, spatial_stride: 8, frames_per_latent: 4 } as const;
const DECODERS = {
	taehv: { title: 'TAEHV', vae: { kind: 'taehv', network: parseTaehvSpec({ widths: [256, 128, 64, 64], latent_channels: 16 }), ...SHARED } },
	vae: { title: 'Wan VAE', vae: { kind: 'wan-vae', network: parseWanVaeSpec({ dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] }), ...SHARED } },
} as const satisfies { readonly [name: string]: { readonly title: string; readonly vae: ImportedVaeSpec } };
type Name = keyof typeof DECODERS;
const NAMES = Object.keys(DECODERS) as Name[];

type Run = { readonly frames: number; readonly loadSeconds: number; readonly seconds: number; readonly cpuSeconds: number };
type Result = { readonly runs: readonly Run[]; readonly peakMb: number };

const shapesOf = (vae: ImportedVaeSpec) => (vae.kind === 'taehv' ? taehvTensors(vae.network) : wanVaeTensors(vae.network));

/** Resident memory of this process at its highest, MB. */
const peakMb = (): number => Number(/VmHWM:\s+(\d+) kB/u.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? Number.NaN) / 1000;

const measure = async (vae: ImportedVaeSpec, path: string, width: number, height: number, latents: number, threads: number): Promise<Result> => {
	const backend = createOnnxRuntime({ threads });
	const size = { height: height / vae.spatial_stride, width: width / vae.spatial_stride };
	const decoding = joinedDecoder(vae, size.height, size.width);
	const file = mapSafetensors('random weights', path);
	const load = async (position: 'first' | 'next') => {
		const scratch = openScratchFile();
		try {
			return await backend.load(decoding.graph(new Weights(file, scratch), position, 'bytes'), { returnsMemory: true });
		} finally {
			scratch.remove();
		}
	};
	const runs: Run[] = [];
	let [memory, loaded]: [readonly Float32Array[], string | undefined] = [[], undefined];
	let session: Awaited<ReturnType<typeof load>> | undefined;
	for (let index = 0; index < latents; index++) {
		const name = decoding.graphName(index === 0 ? 'first' : 'next');
		const beganMs = performance.now();
		if (session === undefined || name !== loaded) {
			await session?.close();
			session = await load(index === 0 ? 'first' : 'next');
			loaded = name;
		}
		const [startedMs, before] = [performance.now(), process.cpuUsage()];
		const latent = { type: 'float32' as const, dims: [vae.latent_channels, size.height, size.width], data: randomNormals(vae.latent_channels * size.height * size.width, index) };
		const results = await session.run({ latent, ...decoding.memoryFeeds(session, memory) });
		memory = decoding.memoryOf(results);
		const { user, system } = process.cpuUsage(before);
		runs.push({
			frames: (results['frames']?.data.length ?? 0) / (width * height * 1.5), loadSeconds: (startedMs - beganMs) / 1000, seconds: (performance.now() - startedMs) / 1000, cpuSeconds: (user + system) / 1e6,
		});
	}
	await session?.close();
	return { runs, peakMb: peakMb() };
};

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN;

const [task = '128x128', ...rest] = process.argv.slice(2);
if (task === 'measure') {
	const [name = '', path = '', ...numbers] = rest;
	const [width = 0, height = 0, latents = 0, threads = 1] = numbers.map(Number);
	process.send?.(await measure(DECODERS[name as Name].vae, path, width, height, latents, threads));
	process.disconnect();
} else {
	const [latents = '4', threads = '1', only] = rest;
	const [width = 0, height = 0] = task.split('x').map(Number);
	const folder = mkdtempSync(join(tmpdir(), 'turbocast-video-codec-'));
	try {
		printWhere();
		const rows: string[][] = [];
		for (const name of NAMES.filter((each) => only === undefined || each === only)) {
			const { title, vae } = DECODERS[name];
			const path = join(folder, `${name}.safetensors`);
			writeFileSync(path, encodeSafetensors(randomTensors(shapesOf(vae), 1)));
			const { runs, peakMb: peak } = await new Promise<Result>((resolve, reject) => {
				const child = fork(fileURLToPath(import.meta.url), ['measure', name, path, String(width), String(height), latents, threads]);
				child.once('message', (message) => resolve(message as Result));
				child.once('exit', (code, signal) => reject(new Error(`${title} ended with ${signal ?? code}`)));
			});
			const later = runs.slice(1);
			const expectedMb = (BASE_BYTES + decoderBytes(vae, mapSafetensors(name, path), width * height)) / 1e6;
			rows.push([
				title, task, `${runs[0]?.frames ?? 0} + ${later.length} x ${later[0]?.frames ?? 0}`, runs.reduce((sum, run) => sum + run.loadSeconds, 0).toFixed(1), (runs[0]?.seconds ?? Number.NaN).toFixed(2),
				median(later.map((run) => run.seconds)).toFixed(2), median(later.map((run) => run.cpuSeconds)).toFixed(2), peak.toFixed(0), expectedMb.toFixed(0),
			]);
		}
		printTable(['decoder', 'size', 'frames', 'loading, s', 'first latent, s', 'later latent, s', 'later latent, CPU s', 'peak RSS, MB', 'expected, MB'], rows);
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}
