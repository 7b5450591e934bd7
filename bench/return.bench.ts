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

const [rounds = '12', outageSeconds = '4'] = process.argv.slice(2);

const reload = async (page: Page): Promise<number> => {
	await page.reload();
	return page.evaluate(() => globalThis.returned.frameAfter(0));
};

const outage = async (page: Page, network: BadNetwork, breaks: boolean): Promise<number> => {
	network.cut(breaks);
	await page.context().setOffline(true);
	await sleep(Number(outageSeconds) * 1000);
	network.mend();
	const mendedAtMs = await page.evaluate(() => performance.now());
	await page.context().setOffline(false);
	return await page.evaluate((afterMs) => globalThis.returned.frameAfter(afterMs), mendedAtMs) - mendedAtMs;
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
		}
	}));
	await watchReturn(page);
	await page.goto(network.url);
	await page.fill('#prompt', 'a cat jumps on the beach');
	await page.click('#start');
	await page.waitForSelector('body[data-state="generating"][data-shown]');
	const rows: string[][] = [];
	for (const [what, once] of [
		['reload of the page to picture, ms', () => reload(page)],
		['network that breaks is back to picture, ms', () => outage(page, network, true)],
		['network that falls silent is back to picture, ms', () => outage(page, network, false)],
	] as const) {
		const tookMs: number[] = [];
		for (let round = 0; round < Number(rounds); round += 1) {
			tookMs.push(await once());
			await page.waitForSelector('body[data-state="generating"][data-shown]');
			// So that rounds meet chunks at any moment.
			await sleep(1000 + Math.random() * 500);
		}
		rows.push([what, medianAndP95(tookMs), String(tookMs.length)]);
	}
	printTable(['what', 'median / p95', 'of'], rows);
	console.log(`${new Set(sessions).size} session over ${sessions.length} connections`);
} finally {
	await browser.close();
	await network[Symbol.asyncDispose]();
	await service[Symbol.asyncDispose]();
}
