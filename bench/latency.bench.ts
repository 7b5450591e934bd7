/**
 * What a viewer feels, end to end in a headless Chromium on the same machine: prompt to first picture, edit to changed
 * picture, stalls, and what the service costs meanwhile.
 *
 *     npm run bench -- latency [ROUNDS] [PLAY_SECONDS]
 *
 * The service runs as people run it, as a process of its own. Times are those of the browser: from the call of the SDK to the moment at which
 * the frame is expected on the screen (requestVideoFrameCallback), the connection being up.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium, type Page } from 'playwright-core';
import { residentMb } from './processes.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';

type Sdk = typeof import('../client/index.js');

const [rounds = '24', playSeconds = '40'] = process.argv.slice(2);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** As the browser tests have it: the picture stands still. */
const STALL_MS = 375;

/** Starts `turbocast serve` on a free port; gives its address once it is ready, and how long that took. */
const startService = async () => {
	const startedAtMs = performance.now();
	const child = spawn(process.execPath, [join(ROOT, 'bin', 'turbocast.mjs'), 'serve', '--port', '0'], { stdio: ['ignore', 'pipe', 'ignore'], cwd: ROOT });
	for await (const line of createInterface({ input: child.stdout })) {
		const url = /ready\. Open (\S+) /u.exec(line)?.[1];
		if (url !== undefined) {
			return { url, pid: child.pid ?? 0, readyMs: performance.now() - startedAtMs, stop: async () => {
				child.kill('SIGTERM');
				await once(child, 'exit');
			} };
		}
	}
	throw new Error('The service did not become ready.');
};

declare global {
	var sdk: Sdk;
	var video: HTMLVideoElement;
}

const openPage = async (url: string): Promise<{ page: Page; close: () => Promise<void> }> => {
	const executablePath = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';
	const browser = await chromium.launch({
		executablePath, args: ['--no-sandbox', '--disable-gpu', '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns'],
	});
	const page = await browser.newPage({ viewport: { width: 800, height: 700 } });
	await page.goto(`${url}healthz`);
	await page.evaluate(async () => {
		document.body.innerHTML = '<video muted playsinline style="width: 512px; height: 512px"></video>';
		const path = '/client/index.js';
		globalThis.sdk = (await import(path)) as Sdk;
		const [video] = document.getElementsByTagName('video');
		if (video !== undefined) {
			globalThis.video = video;
		}
	});
	return { page, close: () => browser.close() };
};

/** A session from a prompt that was never used before, ended after its first seconds. Gives the latency. */
const firstPicture = (page: Page, prompt: string): Promise<number> =>
	page.evaluate(async (text) => {
		const session = sdk.connect(undefined, { video });
		await session.ready;
		const { displayed } = await session.start(text);
		const { latencyMs } = await displayed;
		await session.stop();
		return latencyMs;
	}, prompt);

type Playing = { readonly edits: readonly number[]; readonly stages: readonly { readonly [stage: string]: number }[]; readonly shown: readonly number[]; readonly realTimeFactors: readonly number[]; readonly missed: number };

/** Plays for a while, then edits again and again at times that have nothing to do with chunks. */
const playAndEdit = (page: Page, options: { prompts: readonly string[]; playMs: number }): Promise<Playing> =>
	page.evaluate(async ({ prompts, playMs }) => {
		const session = sdk.connect(undefined, { video });
		const shown: number[] = [];
		const realTimeFactors: number[] = [];
		let missed = 0;
		const model = await session.ready;
		void (async () => {
			for await (const event of session.events()) {
				if (event.type === 'frame.displayed') {
					shown.push(event.at_ms);
				} else if (event.type === 'chunk.completed') {
					const { text_ms: text, denoise_ms: denoise, clean_ms: clean, decode_ms: decode } = event.timings;
					realTimeFactors.push((event.frames * 1000) / model.fps / (text + denoise + clean + decode));
					missed += event.deadline_missed ? 1 : 0;
				}
			}
		})();
		await (await session.start(prompts[0] ?? '')).displayed;
		const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
		await pause(playMs);
		const edits: number[] = [];
		const stages: { readonly [stage: string]: number }[] = [];
		for (const prompt of prompts.slice(1)) {
			await pause(700 + Math.random() * 800);
			const change = await session.setPrompt(prompt);
			edits.push((await change.displayed).latencyMs);
			stages.push((await change.timeline).stagesMs);
		}
		await session.stop();
		return { edits, stages, shown, realTimeFactors, missed };
	}, options);

const metric = async (url: string, name: string): Promise<number> =>
	Number(new RegExp(`^${name} (\\S+)$`, 'mu').exec(await (await fetch(`${url}metrics`)).text())?.[1] ?? Number.NaN);

const SUBJECTS = ['cat', 'dog', 'fox', 'rocket', 'whale', 'penguin', 'car', 'bee', 'ball', 'balloon', 'face', 'ufo'];
const MOTIONS = ['jumps', 'spins', 'sways', 'flies', 'bounces'];
const prompts = (count: number, place: string): string[] =>
	Array.from({ length: count }, (_, index) => `a ${SUBJECTS[index % SUBJECTS.length] ?? ''} ${MOTIONS[index % MOTIONS.length] ?? ''} ${place} ${index}`);

const service = await startService();
const { page, close } = await openPage(service.url);
try {
	await firstPicture(page, 'warm up');
	const first: number[] = [];
	for (const prompt of prompts(Number(rounds), 'in the snow')) {
		first.push(await firstPicture(page, prompt));
	}
	const loopDelays: number[] = [];
	const memory: number[] = [];
	const watching = setInterval(() => {
		void metric(service.url, 'turbocast_event_loop_delay_p99_ms').then((value) => loopDelays.push(value), () => undefined);
		memory.push(residentMb(service.pid) ?? Number.NaN);
	}, 5000);
	const playing = await playAndEdit(page, { prompts: prompts(Number(rounds) + 1, 'at night'), playMs: Number(playSeconds) * 1000 });
	clearInterval(watching);

	const gaps = playing.shown.slice(1).map((atMs, index) => atMs - (playing.shown[index] ?? atMs));
	const shownSeconds = ((playing.shown.at(-1) ?? 0) - (playing.shown[0] ?? 0)) / 1000;
	const stalls = gaps.filter((gap) => gap > STALL_MS);
	printWhere();
	printTable(['what', 'median / p95', 'of'], [
		['prompt to first picture, ms', medianAndP95(first), String(first.length)],
		['edit to changed picture, ms', medianAndP95(playing.edits), String(playing.edits.length)],
		['distance of frames on the screen, ms', medianAndP95(gaps), String(gaps.length)],
		['generation, times real time', `${percentile(playing.realTimeFactors, 0.5).toFixed(2)} / ${percentile(playing.realTimeFactors, 0.05).toFixed(2)}`, `${playing.realTimeFactors.length} chunks`],
	]);
	const [names] = playing.stages;
	printTable(['where an edit spends its time, ms', 'median / p95'], Object.keys(names ?? {}).map((stage) => [stage, medianAndP95(playing.stages.map((each) => each[stage] ?? Number.NaN))]));
	printTable(['what', 'value'], [
		['start to ready, ms', service.readyMs.toFixed(0)],
		['shown', `${shownSeconds.toFixed(1)} s, ${(playing.shown.length / shownSeconds).toFixed(1)} frames a second`],
		['stalls', `${stalls.length}, longest gap ${Math.max(...gaps).toFixed(0)} ms, ${playing.missed} chunks late`],
		['event-loop delay p99 of the main process, worst ten seconds, ms', Math.max(...loopDelays).toFixed(1)],
		['resident memory of all processes, most, MB', Math.max(...memory).toFixed(0)],
	]);
} finally {
	await close();
	await service.stop();
}
