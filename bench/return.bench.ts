/**
 * How long somebody who was away waits for the picture: after the page was loaded again, and after the network was gone for some seconds.
 *
 *     npm run bench -- return [ROUNDS] [OUTAGE_SECONDS]
 *
 * The service runs as people run it, the page in a headless Chromium on the same machine, both over a network that can be cut (test/browser/bad-network.ts). A
 * reload counts from the navigation (`performance.timeOrigin`), an outage from the moment at which packets pass again; both end with the frame on
 * the screen (requestVideoFrameCallback). Counted as well: sessions that were not the same afterwards.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import { openBadNetwork, type BadNetwork } from '../test/browser/bad-network.js';
import { launchChromium } from '../test/browser/chromium.js';
import { watchReturn } from '../test/browser/return-watch.js';
import { serve } from '../test/cli/served.js';
import type { ServerMessage } from '../src/protocol/messages.js';
import { medianAndP95, printTable, printWhere } from './report.js';

const [count = '12', outageSeconds = '4'] = process.argv.slice(2);

const reload = async (page: Page): Promise<number> => {
	await page.reload();
	return page.evaluate(() => globalThis.returned.frameAfter(0));
};

/** When each `session.ready` came, `Date.now` time. */
const readyAtMs: number[] = [];
const untilReady = async (afterMs: number): Promise<number> => {
	for (;;) {
		const found = readyAtMs.find((atMs) => atMs > afterMs);
		if (found !== undefined) {
			return found;
		}
		await sleep(20);
	}
};

/** Until the picture moves, and until the session hears what it is told. */
const outage = async (page: Page, network: BadNetwork, breaks: boolean): Promise<readonly [picture: number, control: number]> => {
	const cutAtMs = Date.now();
	network.cut(breaks);
	await page.context().setOffline(true);
	await sleep(Number(outageSeconds) * 1000);
	network.mend();
	const [mendedAtMs, mendedAt] = await page.evaluate(() => [performance.now(), Date.now()] as const);
	await page.context().setOffline(false);
	const picture = await page.evaluate((afterMs) => globalThis.returned.frameAfter(afterMs), mendedAtMs) - mendedAtMs;
	return [picture, Math.max(0, await untilReady(cutAtMs) - mendedAt)];
};

const service = await serve({ TURBOCAST_LOG__LEVEL: 'warn' });
const [network, browser] = await Promise.all([openBadNetwork(service.url), launchChromium()]);
try {
	printWhere();
	const context = await browser.newContext();
	const page = await context.newPage();
	const sessions: string[] = [];
	page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
		// Pictures over the socket are no messages.
		const message = typeof payload === 'string' ? JSON.parse(payload) as ServerMessage : undefined;
		if (message?.type === 'session.ready') {
			sessions.push(message.session_id);
			readyAtMs.push(Date.now());
		}
	}));
	await watchReturn(page);
	await page.goto(network.url);
	await page.fill('#prompt', 'a cat jumps on the beach');
	await page.click('#start');
	await page.waitForSelector('body[data-state="generating"][data-shown]');
	const rows: string[][] = [];
	const rounds = async (once: () => Promise<readonly number[]>, whats: readonly string[]): Promise<void> => {
		const tookMs: (readonly number[])[] = [];
		for (let round = 0; round < Number(count); round += 1) {
			tookMs.push(await once());
			await page.waitForSelector('body[data-state="generating"][data-shown]');
			// So that rounds meet chunks at any moment.
			await sleep(1000 + Math.random() * 500);
		}
		rows.push(...whats.map((what, column) => [what, medianAndP95(tookMs.map((each) => each[column] ?? Number.NaN)), String(tookMs.length)]));
	};
	await rounds(async () => [await reload(page)], ['reload of the page to picture, ms']);
	for (const [how, breaks] of [['breaks', true], ['falls silent', false]] as const) {
		await rounds(() => outage(page, network, breaks), [`network that ${how} is back to picture, ms`, `network that ${how} is back to a session that can be steered, ms`]);
	}
	printTable(['what', 'median / p95', 'of'], rows);
	console.log(`${new Set(sessions).size} session over ${sessions.length} connections`);
} finally {
	await browser.close();
	await network[Symbol.asyncDispose]();
	await service[Symbol.asyncDispose]();
}
