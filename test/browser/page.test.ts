/** Everything on the page that is not the first prompt: each thing once, as somebody would use it. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { newServerKey } from '../../src/server/keys.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { runFfmpeg, splitFrames } from '../media/ffmpeg.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { launchChromium, waitForWebRtc, whyNoBrowser } from './chromium.js';

const skip = whyNoBrowser();
const PATIENCE_MS = 60_000;
let machine: Machine & AsyncDisposable;
let service: Service;
let browser: Browser;

const newTransport = () =>
	createWebRtcTransport({ portRange: undefined, announceAddresses: [], iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock });

before(async () => {
	if (skip !== false) {
		return;
	}
	[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	// However busy the machine is, there is room for two sessions, and no picture is made smaller.
	service = await startService(machine, { iceServers: [], maxSessions: 4, maxEngineShare: Infinity, bitrateFloorBps: 1 }, newTransport());
});
after(async () => {
	await browser?.close();
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

type Visit = AsyncDisposable & { readonly page: Page; /** Exceptions, and console errors and warnings. */ readonly complaints: string[] };

type SentMessage = { readonly type: string; readonly seed?: number; readonly axes?: { readonly [control: string]: number }; readonly prompt?: string; readonly transition?: { readonly mode: string; readonly chunks?: number }; readonly prompts?: readonly { readonly text: string; readonly weight: number }[] };
/** Who hears what a page sends. */
const sent = new WeakMap<Page, Set<(message: SentMessage) => void>>();

const visit = async (url = service.url, options: BrowserContextOptions = {}): Promise<Visit> => {
	const context = await browser.newContext({ acceptDownloads: true, ...options });
	const page = await context.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	const complaints: string[] = [];
	page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
	page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
	const listeners = new Set<(message: SentMessage) => void>();
	sent.set(page, listeners);
	page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => listeners.forEach((listener) => listener(JSON.parse(String(payload)) as SentMessage))));
	await page.addInitScript(waitForWebRtc);
	await page.goto(url);
	return { page, complaints, [Symbol.asyncDispose]: () => context.close() };
};

const start = async (page: Page, prompt = 'a cat jumps'): Promise<void> => {
	await page.fill('#prompt', prompt);
	await page.click('#start');
	await page.waitForSelector('body[data-state="generating"][data-shown]');
};

/** The controls of the next `input.action` that the page sends. */
const nextAction = (page: Page): Promise<{ readonly [control: string]: number }> =>
	new Promise((resolve) => sent.get(page)?.add((message) => {
		if (message.type === 'input.action') {
			resolve(message.axes ?? {});
		}
	}));

test('the last change shows where its milliseconds went, and they add up; the stream shows its figures', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await start(page);
	await page.fill('#prompt', 'a dog jumps');
	await page.waitForFunction(() => /^\d+ ms$/u.test(document.getElementById('figure-p95')?.textContent ?? ''));
	await page.waitForSelector('#change-part:not([hidden])');
	const { parts, total, last } = await page.evaluate(() => ({
		parts: [...document.querySelectorAll('#change-legend dd')].map((entry) => Number(entry.textContent)),
		total: Number.parseInt(document.getElementById('change-total')?.textContent ?? '', 10), last: document.getElementById('figure-change')?.textContent,
	}));
	assert.equal(parts.length, 10);
	// Each part is rounded by half a millisecond at most.
	assert.ok(Math.abs(parts.reduce((sum, part) => sum + part, 0) - total) <= 6, `${parts.join(' + ')} = ${total}`);
	assert.ok(total > 0 && last?.endsWith('ms') === true);
	assert.match((await page.textContent('#change-clock')) ?? '', /± \d/u);
	for (const figure of ['fps', 'speed', 'lead', 'bitrate', 'loss']) {
		await page.waitForFunction((id) => /\d/u.test(document.getElementById(id)?.textContent ?? ''), `figure-${figure}`);
	}
	await page.waitForFunction(() => document.querySelectorAll('#chunks-shown li').length >= 3);
});

test('the last seconds are saved as an MP4 file that other programs play', { skip }, async () => {
	await using visitor = await visit();
	const { page, complaints } = visitor;
	await start(page);
	await page.waitForFunction(() => (document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= 40);
	const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save clip' }).click()]);
	assert.match(file.suggestedFilename(), /^turbocast .*\.mp4$/u);
	const path = await file.path();
	const { output, text } = await runFfmpeg(['-i', path, '-f', 'rawvideo', '-pix_fmt', 'yuv420p', 'pipe:1']);
	assert.match(text, /Video: h264/u);
	assert.equal((await readFile(path)).subarray(4, 8).toString(), 'ftyp');
	const frames = splitFrames(output, 48, 32);
	assert.ok(frames.length >= 20, `${frames.length} frames`);
	assert.ok(new Set(frames.map((frame) => Buffer.from(frame).toString('base64'))).size > 1, 'the picture moves');
	assert.deepEqual(complaints, []);
});

test('prompts that were used are one click away, also after a reload, and can be forgotten', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await start(page, 'a cat jumps');
	await page.fill('#prompt', 'a dog jumps');
	await page.waitForFunction(() => document.querySelectorAll('#history button').length === 2);
	assert.deepEqual(await page.locator('#history button').allTextContents(), ['a dog jumps', 'a cat jumps']);
	const changes = await page.textContent('#change-count');
	await page.getByRole('button', { name: 'a cat jumps', exact: true }).click();
	await page.waitForFunction((before) => document.getElementById('change-count')?.textContent !== before, changes);
	assert.equal(await page.inputValue('#prompt'), 'a cat jumps');
	await page.reload();
	assert.deepEqual(await page.locator('#history button').allTextContents(), ['a cat jumps', 'a dog jumps']);
	await page.click('#forget');
	assert.equal(await page.locator('#history-part').isHidden(), true);
});

test('steps change while it runs, and the seed that was asked for is the one in use', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	const started = new Promise<SentMessage>((resolve) => sent.get(page)?.add((message) => message.type === 'session.start' && resolve(message)));
	await page.waitForSelector('body[data-state="ready"]');
	await page.fill('#seed', '1234');
	await start(page);
	assert.equal((await started).seed, 1234);
	assert.equal(await page.getAttribute('#seed', 'placeholder'), '1234');
	const steps = page.locator('#steps input:not(:checked)').first();
	await steps.check({ force: true });
	await page.waitForFunction(() => /\d/u.test(document.getElementById('figure-change')?.textContent ?? ''));
	await page.click('#dice');
	assert.match(await page.inputValue('#seed'), /^\d+$/u);
});

test('whoever follows the shared link sees the same video, and steers when allowed', { skip }, async () => {
	await using owner = await visit(service.url, { permissions: ['clipboard-read', 'clipboard-write'] });
	await start(owner.page);
	await owner.page.click('#share');
	await owner.page.waitForFunction(() => (document.querySelector<HTMLInputElement>('#share-link')?.value ?? '') !== '');
	const viewLink = await owner.page.inputValue('#share-link');
	await using viewer = await visit(viewLink);
	await viewer.page.waitForSelector('body[data-state="generating"][data-guest="true"]');
	await viewer.page.waitForFunction(() => (document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= 8);
	assert.equal(new URL(viewer.page.url()).hash, '', 'the token is not left in the address bar');
	assert.equal(await viewer.page.locator('#composer').isHidden(), true);
	assert.equal(await viewer.page.locator('#ask-control').isHidden(), true);

	await owner.page.check('#share-steer');
	await owner.page.click('#share');
	await owner.page.waitForFunction((before) => document.querySelector<HTMLInputElement>('#share-link')?.value !== before, viewLink);
	await using guest = await visit(await owner.page.inputValue('#share-link'));
	await guest.page.click('#ask-control');
	await owner.page.click('#requests button');
	await guest.page.waitForSelector('body[data-driving="true"]');
	await guest.page.fill('#prompt', 'a dog jumps');
	await guest.page.keyboard.press('Enter');
	await guest.page.waitForFunction(() => /\d/u.test(document.getElementById('figure-change')?.textContent ?? ''));
	await guest.page.click('#release-control');
	await owner.page.waitForSelector('body[data-driving="true"]');
});

test('a server that asks for a key is given one on the page; a wrong one is said, and not tried again', { skip }, async () => {
	const key = newServerKey();
	await using own = await startService(machine, { iceServers: [] }, newTransport(), { keys: [key] });
	await using visitor = await visit(own.url);
	const { page } = visitor;
	await page.waitForSelector('#key-part:not([hidden])');
	let sockets = 0;
	page.on('websocket', () => {
		sockets += 1;
	});
	await page.fill('#key', 'sk_wrong');
	await page.click('#key-form button');
	await page.locator('#note').filter({ hasText: 'not one of this server' }).waitFor();
	assert.equal(sockets, 1);
	await page.fill('#key', key);
	await page.click('#key-form button');
	await page.waitForSelector('body[data-state="ready"]');
	assert.equal(await page.locator('#key-part').isHidden(), true);
	assert.equal(sockets, 2);
});

test('the keyboard reaches everything: the prompt by a slash, every control by Tab, the pads by arrows', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await page.waitForSelector('body[data-state="ready"]');
	await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
	await page.keyboard.press('/');
	assert.equal(await page.evaluate(() => document.activeElement?.id), 'prompt');
	await page.keyboard.type('a cat jumps');
	await page.keyboard.press('Enter');
	await page.waitForSelector('body[data-state="generating"][data-shown]');
	const wanted = await page.evaluate(() => [...document.querySelectorAll<HTMLElement>('button, input')].filter((entry) => entry.checkVisibility() && !(entry as HTMLButtonElement).disabled && !(entry instanceof HTMLInputElement && entry.type === 'radio' && !entry.checked)).length);
	const reached = new Set<string>();
	await page.evaluate(() => [...document.querySelectorAll<HTMLElement>('button, input')].forEach((entry, index) => {
		entry.dataset['order'] = String(index);
	}));
	for (let press = 0; press < wanted + 2; press += 1) {
		await page.keyboard.press('Tab');
		reached.add(await page.evaluate(() => (document.activeElement as HTMLElement | null)?.dataset['order'] ?? ''));
	}
	reached.delete('');
	assert.ok(reached.size >= wanted, `${reached.size} of ${wanted} controls were reached`);
	const acted = nextAction(page);
	await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
	await page.keyboard.press('ArrowRight');
	assert.equal((await acted)['steer_x'], 1);
});

test('a gamepad steers: its left stick is the first pad', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await start(page);
	const acted = nextAction(page);
	await page.evaluate(() => {
		// No hardware here: what the browser would tell of one.
		Object.defineProperty(navigator, 'getGamepads', { value: () => [{ axes: [1, 0, 0, 0] }] });
		dispatchEvent(new Event('gamepadconnected'));
	});
	assert.deepEqual(await acted, { steer_x: 1 });
});

test('on a phone nothing is wider than the screen, in the dark and in the light, and the text can be read', { skip }, async () => {
	for (const colorScheme of ['dark', 'light'] as const) {
		await using visitor = await visit(service.url, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme });
		const { page } = visitor;
		await start(page);
		await page.fill('#prompt', 'a dog jumps');
		await page.waitForSelector('#change-part:not([hidden])');
		assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 390, `${colorScheme}: scrolls sideways`);
		const worst = await page.evaluate(() => {
			const luminance = (colour: string): number => {
				const channels = (colour.match(/[\d.]+/gu) ?? []).slice(0, 3).map((value) => Number(value) / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
				return 0.2126 * (channels[0] ?? 0) + 0.7152 * (channels[1] ?? 0) + 0.0722 * (channels[2] ?? 0);
			};
			const ground = luminance(getComputedStyle(document.documentElement).backgroundColor);
			// WCAG 2.2 section 1.4.3, against the ground of the page.
			const contrast = (element: Element): number => {
				const text = luminance(getComputedStyle(element).color);
				return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
			};
			return Math.min(...['#status', '#note', 'h2', 'dt', 'dd', '.fine', '.caption', 'footer', '#examples button'].map((selector) => {
				const found = document.querySelector(selector);
				return found === null ? 0 : contrast(found);
			}));
		});
		assert.ok(worst >= 4.5, `${colorScheme}: contrast ${worst.toFixed(2)}`);
	}
});

test('a reload of the page goes on with the session where it was', { skip }, async () => {
	await using own = await startService(machine, { iceServers: [], resumeGraceMs: 30_000 }, newTransport());
	await using visitor = await visit(own.url);
	const { page } = visitor;
	const sessionIds = new Set<string>();
	page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
		const message = JSON.parse(String(payload)) as { type: string; session_id: string };
		if (message.type === 'session.ready') {
			sessionIds.add(message.session_id);
		}
	}));
	await page.reload();
	await start(page, 'a cat jumps');
	await page.reload();
	await page.waitForSelector('body[data-state="generating"][data-shown]');
	await page.waitForFunction(() => (document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= 5);
	assert.equal(sessionIds.size, 1, 'one session over both');
	assert.equal(await page.inputValue('#prompt'), 'a cat jumps');
	assert.equal(await page.locator('#stop').isDisabled(), false);
	await page.click('#stop');
	await page.waitForSelector('body[data-state="ready"]');
});

test('the picture is held and goes on, begins anew, and forks into a second session', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await start(page);
	await page.click('#pause');
	await page.waitForSelector('body[data-state="paused"]');
	assert.equal(await page.textContent('#pause'), 'Play');
	await page.click('#pause');
	await page.waitForSelector('body[data-state="generating"]');
	await page.click('#reset');
	await page.waitForFunction(() => /\d/u.test(document.getElementById('figure-change')?.textContent ?? ''));
	await page.click('#fork');
	const link = await page.locator('#note a').getAttribute('href');
	await using other = await visit(new URL(link ?? '', service.url).href);
	await other.page.waitForSelector('body[data-state="generating"][data-shown]');
	await other.page.waitForFunction(() => (document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= 5);
});

/** The next `session.update` of a page that has this. */
const nextUpdate = (page: Page, where: (message: SentMessage) => boolean): Promise<SentMessage> =>
	new Promise((resolve) => sent.get(page)?.add((message) => {
		if (message.type === 'session.update' && where(message)) {
			resolve(message);
		}
	}));

test('texts are mixed by weights that change while it runs, by keyboard alone, and a reload shows them again', { skip }, async () => {
	await using own = await startService(machine, { iceServers: [], resumeGraceMs: 30_000 }, newTransport());
	await using visitor = await visit(own.url);
	const { page, complaints } = visitor;
	await start(page, 'a cat');
	await page.focus('#mix');
	await page.keyboard.press('Enter');
	assert.equal(await page.getAttribute('#mix', 'aria-expanded'), 'true');
	// A machine that types slowly sends what there is at a pause.
	const mixed = nextUpdate(page, ({ prompts }) => prompts?.[1]?.text === 'a dog');
	await page.keyboard.type('a dog');
	assert.deepEqual((await mixed).prompts, [{ text: 'a cat', weight: 50 }, { text: 'a dog', weight: 50 }]);
	const heavier = nextUpdate(page, ({ prompts }) => prompts?.[1]?.weight === 60);
	await page.keyboard.press('Tab');
	await page.keyboard.press('ArrowRight');
	await page.keyboard.press('ArrowRight');
	assert.deepEqual((await heavier).prompts, [{ text: 'a cat', weight: 50 }, { text: 'a dog', weight: 60 }]);
	assert.deepEqual(await page.locator('#mix-rows output').allTextContents(), ['45 %', '55 %']);
	await page.waitForFunction(() => /\d/u.test(document.getElementById('figure-change')?.textContent ?? ''));

	await page.reload();
	await page.waitForSelector('body[data-state="generating"][data-shown]');
	assert.equal(await page.inputValue('#prompt'), 'a cat');
	assert.equal(await page.inputValue('#mix-rows input[type="text"]'), 'a dog');
	assert.deepEqual(await page.locator('#mix-rows output').allTextContents(), ['45 %', '55 %']);
	const alone = nextUpdate(page, ({ prompt }) => prompt === 'a cat');
	await page.click('#mix-rows button');
	await alone;
	assert.equal(await page.isHidden('#mix-part'), true);
	assert.deepEqual(complaints, []);
});

test('a change is a cut, flows or blends, as is chosen, and each is shown', { skip }, async () => {
	await using visitor = await visit();
	const { page, complaints } = visitor;
	await start(page, 'a cat');
	for (const [label, prompt, transition] of [
		['Cut', 'a dog', { mode: 'cut' }], ['Flow', 'a fox', { mode: 'recache' }], ['Blend', 'a cat', { mode: 'blend', chunks: 2 }],
	] as const) {
		await page.getByLabel(label, { exact: true }).check();
		assert.equal(await page.isHidden('#chunks-part'), label !== 'Blend');
		if (label === 'Blend') {
			await page.fill('#chunks', '2');
		}
		const before = await page.textContent('#change-count');
		const update = nextUpdate(page, (message) => message.prompt === prompt);
		await page.fill('#prompt', prompt);
		assert.deepEqual((await update).transition, transition);
		await page.waitForFunction((count) => document.getElementById('change-count')?.textContent !== count, before);
	}
	assert.equal(await page.textContent('#note'), '');
	assert.deepEqual(complaints, []);
});

test('a text without weight counts for nothing, and four are the most', { skip }, async () => {
	await using visitor = await visit();
	const { page } = visitor;
	await start(page, 'a cat');
	await page.click('#mix');
	const mixed = nextUpdate(page, ({ prompts }) => prompts?.length === 2);
	await page.fill('#mix-rows input[type="text"]', 'a dog');
	await mixed;
	const dogAlone = nextUpdate(page, ({ prompt }) => prompt === 'a dog');
	await page.locator('#mix-rows input[type="range"]').first().fill('0');
	await dogAlone;
	await page.click('#mix-add');
	await page.click('#mix-add');
	assert.equal(await page.locator('#mix-rows li').count(), 4);
	assert.equal(await page.isHidden('#mix-add'), true);
});

test('the page says when a session is going to end, and when generation falls behind', { skip }, async () => {
	const context = await browser.newContext();
	const page = await context.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	// As the server says it: what it says when is tested there. What it would say of this machine does not come in between.
	let tell: (message: object) => void = () => undefined;
	await page.routeWebSocket(/realtime/u, (socket) => {
		const server = socket.connectToServer();
		server.onMessage((message) => (JSON.parse(String(message)) as SentMessage).type === 'pacing.updated' || socket.send(message));
		tell = (message) => socket.send(JSON.stringify(message));
	});
	await page.addInitScript(waitForWebRtc);
	await page.goto(service.url);
	await page.waitForSelector('body[data-state="ready"]');
	await start(page, 'a cat');
	tell({ type: 'pacing.updated', reason: 'behind', fps: 9, lead_ms: 100, max_lead_ms: 1000 });
	await page.waitForFunction(() => document.getElementById('pace')?.textContent?.startsWith('Generation falls behind: the picture runs at 9 of '));
	tell({ type: 'pacing.updated', reason: 'recovered', fps: 16, lead_ms: 100, max_lead_ms: 1000 });
	await page.waitForFunction(() => document.getElementById('pace')?.textContent === '');
	tell({ type: 'session.expiring', reason: 'max_duration', seconds_left: 10 });
	await page.waitForFunction(() => document.getElementById('expiring')?.textContent === 'This session ends in 10 seconds: its time is over.');
	await page.click('#stop');
	await page.waitForFunction(() => document.getElementById('expiring')?.textContent === '');
	await context.close();
});

for (const [name, viewport] of [['wide', { width: 1280, height: 900 }], ['phone', { width: 390, height: 844 }]] as const) {
	test(`the frame of the picture stays where it is, whatever happens around it (${name})`, { skip }, async () => {
		await using visitor = await visit(service.url, { viewport });
		const { page } = visitor;
		const boxes = new Set<string>();
		const look = async (): Promise<unknown> => boxes.add(JSON.stringify(await page.locator('.stage').boundingBox()));
		await look();
		await page.waitForSelector('body[data-state="ready"]');
		await look();
		await page.click('#start');
		await look();
		await start(page);
		await look();
		await page.click('#mix');
		await page.click('#share');
		await page.waitForFunction(() => !document.getElementById('share-part')?.hidden);
		await page.evaluate(() => document.querySelectorAll('#note, #expiring, #pace').forEach((line) => line.append('a long sentence '.repeat(12))));
		await look();
		await page.click('#pause');
		await page.waitForSelector('body[data-state="paused"]');
		await look();
		await page.click('#stop');
		await page.waitForSelector('body[data-state="ready"]');
		await look();
		assert.equal(boxes.size, 1, [...boxes].join(' '));
	});
}
