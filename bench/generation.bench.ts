/**
 * How long a chunk takes, part by part, through the real engine process: for each profile and number of steps.
 *
 *     npm run bench -- generation [MODEL_FOLDER] [CHUNKS] [THREADS]
 *
 * A chunk is asked for as soon as the last one is done, so nothing else of the service runs beside it.
 */
import { readFileSync } from 'node:fs';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import { EngineHost } from '../src/engine/engine-host.js';
import type { EngineStream } from '../src/engine/engine.js';
import { CPU_PROFILES, type EngineProfile } from '../src/engine/protocol.js';
import { chunkMs, framesPerChunk, type ModelSpec } from '../src/model/spec.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';

const [modelFolder = 'models/toybox', chunks = '24', threads = '1'] = process.argv.slice(2);
/** Until the window is full and everything has been used once. */
const warmUpChunks = (spec: ModelSpec): number => Math.ceil(spec.stream.window_latents / spec.stream.latents_per_chunk) + 1;
/** A prompt that is new costs its encoding; every so many chunks, as if somebody typed. */
const PROMPT_EVERY = 4;

type Sample = { readonly chunkMs: number; readonly firstLatentMs: number; readonly textMs: number; readonly denoiseMs: number; readonly cleanMs: number; readonly decodeMs: number; readonly isNewPrompt: boolean };

const measureChunk = async (stream: EngineStream, prompt: string, steps: number, isNewPrompt: boolean): Promise<Sample> => {
	const startMs = systemClock.nowMs();
	const run = stream.generate({ prompt, steps, controls: {} });
	let firstLatentMs: number | undefined;
	for await (const frame of run.frames) {
		firstLatentMs ??= frame.generatedAtMs - startMs;
	}
	const { textMs, denoiseMs, cleanMs, decodeMs } = await run.timings;
	return { chunkMs: systemClock.nowMs() - startMs, firstLatentMs: firstLatentMs ?? Number.NaN, textMs, denoiseMs, cleanMs, decodeMs, isNewPrompt };
};

/** Resident memory of a process in MB, where the system tells. */
const residentMb = (pid: number): string => {
	try {
		const kb = /VmRSS:\s+(\d+) kB/u.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
		return kb === undefined ? '-' : (Number(kb) / 1024).toFixed(0);
	} catch {
		return '-';
	}
};

const measureProfile = async (profile: EngineProfile): Promise<string[][]> => {
	const engine = await EngineHost.start({ modelFolder, profile, threads: Number(threads), log: silentLog, clock: systemClock });
	try {
		await engine.ready();
		const { model: spec, state } = engine;
		const rows: string[][] = [];
		for (const steps of Object.keys(spec.schedules).map(Number)) {
			const stream = await engine.openStream({ seed: 1, width: spec.width, height: spec.height });
			const samples: Sample[] = [];
			const warmUp = warmUpChunks(spec);
			for (let chunk = 0; chunk < warmUp + Number(chunks); chunk++) {
				const isNewPrompt = chunk % PROMPT_EVERY === 0;
				const prompt = `${spec.examples[0] ?? 'a cat'} ${steps} ${Math.floor(chunk / PROMPT_EVERY)}`;
				const sample = await measureChunk(stream, prompt, steps, isNewPrompt);
				if (chunk >= warmUp) {
					samples.push(sample);
				}
			}
			await stream.close();
			const column = (read: (sample: Sample) => number, of = samples): string => medianAndP95(of.map(read));
			const wholeMs = samples.map((sample) => sample.chunkMs);
			rows.push([
				profile, String(steps),
				column((sample) => sample.textMs, samples.filter((sample) => sample.isNewPrompt)),
				column((sample) => sample.denoiseMs / steps),
				column((sample) => sample.cleanMs),
				column((sample) => sample.decodeMs),
				column((sample) => sample.firstLatentMs),
				column((sample) => sample.chunkMs),
				(chunkMs(spec) / percentile(wholeMs, 0.5)).toFixed(2),
				state.kind === 'ready' ? residentMb(state.pid) : '-',
				state.kind === 'ready' ? state.coldStartMs.toFixed(0) : '-',
			]);
		}
		console.log(`${profile}: ${spec.name}, ${spec.width}x${spec.height}, ${framesPerChunk(spec)} frames a chunk (${chunkMs(spec)} ms of video), ${threads} thread(s), ${chunks} chunks`);
		return rows;
	} finally {
		await engine.close();
	}
};

printWhere();
const rows: string[][] = [];
for (const profile of CPU_PROFILES) {
	rows.push(...(await measureProfile(profile)));
}
console.log('Times in ms, median / p95. "real time" is how many times faster than playback a median chunk is made.');
printTable(['profile', 'steps', 'new prompt', 'step', 'clean pass', 'decode', 'first frames', 'chunk', 'real time', 'RSS MB', 'ready after'], rows);
