/** The page by the rules of axe-core (WCAG 2.2 A and AA, and good practice): names, roles, contrast, order of headings, in each state and scheme. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { AxeResults } from 'axe-core';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { repositoryRoot } from '../repository.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { launchChromium, whyNoBrowser } from './chromium.js';

const skip = whyNoBrowser();
const PATIENCE_MS = 60_000;
const AXE = readFileSync(join(repositoryRoot, 'node_modules', 'axe-core', 'axe.min.js'), 'utf8');

let machine: Machine & AsyncDisposable;
let service: Service;
let browser: Browser;
before(async () => {
	if (skip !== false) {
		return;
	}
	[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	service = await startService(machine, { iceServers: [], maxSessions: 4 }, createWebRtcTransport({ iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock }));
});
after(async () => {
	await browser?.close();
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

declare global {
	var axe: { readonly run: () => Promise<AxeResults> };
}

/** What is wrong, each with the elements that it is wrong of. */
const complaints = async (page: Page): Promise<string[]> => {
	// Colours that fade in are none yet.
	await page.evaluate(() => Promise.all(document.getAnimations().filter((animation) => animation instanceof CSSTransition).map((animation) => animation.finished.catch(() => undefined))));
	// Where something lies behind a text that is no plain colour, axe leaves the contrast to people: this shimmer is hardly there.
	await page.evaluate(() => document.querySelector('.glow')?.setAttribute('hidden', ''));
	await page.evaluate(AXE);
	const { violations, passes } = await page.evaluate(() => axe.run());
	assert.ok(passes.length > 20);
	return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')} (${failureSummary ?? ''})`));
};

const PLACES: readonly (readonly [name: string, options: BrowserContextOptions])[] = [
	['a wide screen in the dark', { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' }],
	['a wide screen in the light', { viewport: { width: 1280, height: 900 }, colorScheme: 'light' }],
	['a phone in the dark', { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: 'dark' }],
	['a phone in the light', { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: 'light' }],
];

for (const [name, options] of PLACES) {
	test(`nothing is wrong on ${name}: ready, running with everything open, and stopped`, { skip }, async () => {
		const context = await browser.newContext(options);
		const page = await context.newPage();
		page.setDefaultTimeout(PATIENCE_MS);
		await page.goto(service.url);
		await page.waitForSelector('body[data-state="ready"]');
		assert.deepEqual(await complaints(page), []);

		await page.fill('#prompt', 'a cat jumps');
		await page.click('#start');
		await page.waitForSelector('body[data-state="generating"][data-shown]');
		await page.fill('#prompt', 'a dog jumps');
		await page.waitForSelector('#change-part:not([hidden])');
		await page.click('#mix');
		await page.click('#share');
		await page.waitForSelector('#share-part:not([hidden])');
		await page.check('#transition input[value="blend"]', { force: true });
		assert.deepEqual(await complaints(page), []);

		await page.click('#stop');
		await page.waitForSelector('body[data-state="ready"]');
		await page.waitForSelector('#share-part', { state: 'hidden' });
		assert.deepEqual(await complaints(page), []);
		await context.close();
	});
}

test('what is wrong is noticed', { skip }, async () => {
	const page = await browser.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	await page.goto(service.url);
	await page.waitForSelector('body[data-state="ready"]');
	await page.evaluate(() => {
		document.querySelector('label[for="prompt"]')?.remove();
		document.getElementById('prompt')?.removeAttribute('placeholder');
		// Not as an attribute, which the policy of the page forbids.
		Object.assign(document.getElementById('status')?.style ?? {}, { color: '#333', background: '#222' });
	});
	const found = await complaints(page);
	assert.ok(found.some((each) => each.startsWith('label: #prompt')), found.join('\n'));
	assert.ok(found.some((each) => each.startsWith('color-contrast: #status')), found.join('\n'));
	await page.close();
});
