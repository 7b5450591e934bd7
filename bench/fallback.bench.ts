/**
 * How long somebody waits for the first picture whose network lets no UDP through.
 *
 *     npm run bench -- fallback [ROUNDS]
 *
 * The service runs as people run it, the page in a headless Chromium on the same machine, both over a network that drops every packet of media
 * (test/browser/bad-network.ts) and lets TCP pass. A round is a page that connects and starts at once; it ends with the first frame on the screen
 * (requestVideoFrameCallback). The case without a blocked network stands beside, as what falling back costs.
 */
import type { Browser } from 'playwright-core';
import { openBadNetwork } from '../test/browser/bad-network.js';
import { launchChromium } from '../test/browser/chromium.js';
import { serve } from '../test/cli/served.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';

type Sdk = typeof import('../client/index.js');

const [rounds = '12'] = process.argv.slice(2);
/** Milliseconds from opening to the picture. */
const GOAL_MS = 3500;

type Round = { readonly pictureMs: number; readonly way: string; readonly reason: string };

const playOnce = async (browser: Browser, url: string, prompt: string, hasWebCodecs: boolean): Promise<Round> => {
	const page = await browser.newPage();
	try {
		if (!hasWebCodecs) {
			await page.addInitScript(() => Object.defineProperty(globalThis, 'VideoDecoder', { value: undefined }));
		}
		await page.goto(`${url}healthz`);
		return await page.evaluate(async (text) => {
			document.body.innerHTML = '<video muted playsinline></video>';
			const path = '/client/index.js';
			const sdk = (await import(path)) as Sdk;
			const openedAtMs = performance.now();
			const session = sdk.connect(undefined, { video: document.getElementsByTagName('video')[0] ?? null });
			await (await session.start(text)).displayed;
			const pictureMs = performance.now() - openedAtMs;
			const { transport, reason } = session.transport;
			await session.stop();
			return { pictureMs, way: transport ?? 'none', reason: reason ?? '' };
		}, prompt);
	} finally {
		await page.close();
	}
};

const CASES = [
	{ name: 'UDP passes', isBlocked: false, hasWebCodecs: true },
	{ name: 'UDP blocked', isBlocked: true, hasWebCodecs: true },
	{ name: 'UDP blocked, a page without WebCodecs', isBlocked: true, hasWebCodecs: false },
] as const;

const service = await serve({ TURBOCAST_LOG__LEVEL: 'warn' });
const [network, browser] = await Promise.all([openBadNetwork(service.url), launchChromium()]);
try {
	printWhere();
	await playOnce(browser, network.url, 'a cat jumps', true);
	const rows: string[][] = [];
	for (const { name, isBlocked, hasWebCodecs } of CASES) {
		network.blockMedia(isBlocked);
		const played: Round[] = [];
		for (let round = 0; round < Number(rounds); round += 1) {
			played.push(await playOnce(browser, network.url, `a dog runs at night ${isBlocked ? 'b' : 'a'}${round}`, hasWebCodecs));
		}
		const times = played.map(({ pictureMs }) => pictureMs);
		const ways = [...new Set(played.map(({ way }) => way))].join(', ');
		const most = Math.max(...times);
		const verdict = isBlocked ? `${percentile(times, 0.95) <= GOAL_MS ? 'met' : 'MISSED'} (${GOAL_MS})` : '-';
		rows.push([name, ways, medianAndP95(times), most.toFixed(0), String(times.length), verdict]);
		console.log(`${name}: ${played.at(-1)?.reason === '' ? 'no reason, the best way' : played.at(-1)?.reason ?? ''}`);
	}
	printTable(['case', 'way', 'open to first picture, ms, median / p95', 'longest', 'of', 'goal'], rows);
} finally {
	await browser.close();
	await network[Symbol.asyncDispose]();
	await service[Symbol.asyncDispose]();
}
