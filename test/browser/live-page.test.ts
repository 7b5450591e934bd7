/** The whole service in a real browser: engine, encoder, WebRTC, page. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { startApp, type App } from '../../src/app.js';
import type { RawFrame } from '../../src/base/frame.js';
import { silentLog } from '../../src/base/log.js';
import { rtpDifference } from '../../src/base/time.js';
import { parseConfig } from '../../src/config.js';
import { i420ToRgb } from '../../src/media/color.js';
import { halfSide, halveI420 } from '../../src/media/halve.js';
import { psnrDb } from '../../src/media/psnr.js';
import type { ServerMessage } from '../../src/protocol/messages.js';
import { launchChromium, waitForWebRtc, whyNoBrowser } from './chromium.js';
import { ScreenRecorder, type ShownFrame } from './screen-recorder.js';

const skip = whyNoBrowser();
/** A picture that stands still longer than this is a stall: six frames at 16 a second, three at the pacer's slowest. */
const STALL_MS = 375;
/** Room for a machine that is busy with something else; nothing below is about speed. */
const PATIENCE_MS = 60_000;
/** For how long a tab that was closed keeps its place: the next test may want it. */
const GRACE_MS = 2000;
/** Frames kept for comparison: 40 seconds. */
const KEPT_FRAMES = 640;

let app: App;
let browser: Browser;
/** What the engine emitted, by session (a new one starts at frame 0) and frame id. */
let emitted = new Map<number, RawFrame>();

before(async () => {
	if (skip !== false) {
		return;
	}
	app = await startApp({
		config: parseConfig({ server: { port: 0 }, auth: { keys_file: '/nonexistent/keys.json' }, limits: { resume_grace_ms: GRACE_MS } }, 'the test'), log: silentLog,
		onFrame: (frame) => {
			if (frame.frameId === 0) {
				emitted = new Map();
			}
			emitted.set(frame.frameId, { ...frame, data: frame.data.slice() });
			emitted.delete(frame.frameId - KEPT_FRAMES);
		},
	});
	[browser] = await Promise.all([launchChromium(), app.ready()]);
});
after(async () => {
	await browser?.close();
	await app?.close();
});

type Visit = AsyncDisposable & { readonly page: Page; readonly recorder: ScreenRecorder; /** Console errors, exceptions, answers that are no success. */ readonly complaints: string[]; /** Of the first session. */ readonly seed: Promise<number> };

const visit = async (): Promise<Visit> => {
	const page = await browser.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	const complaints: string[] = [];
	page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(`${message.type()}: ${message.text()}`));
	page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
	page.on('requestfailed', (request) => complaints.push(`request failed: ${request.url()}`));
	page.on('response', (response) => response.status() >= 400 && complaints.push(`${response.status()}: ${response.url()}`));
	const seed = new Promise<number>((resolve) => {
		page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
			const message = JSON.parse(String(payload)) as ServerMessage;
			if (message.type === 'session.ready') {
				resolve(message.seed);
			}
		}));
	});
	await page.addInitScript(waitForWebRtc);
	const recorder = await ScreenRecorder.install(page);
	await page.goto(app.address.url);
	return { page, recorder, complaints, seed, [Symbol.asyncDispose]: () => page.close() };
};

const prompt = (page: Page) => page.getByRole('textbox', { name: 'Prompt', exact: true });
const button = (page: Page, name: 'Start' | 'Stop') => page.getByRole('button', { name, exact: true });
const status = (page: Page) => page.getByRole('status');

const start = async (page: Page, text: string): Promise<void> => {
	await prompt(page).fill(text);
	await button(page, 'Start').click();
};

const shownAtLeast = (page: Page, count: number) => page.waitForFunction((wanted) => globalThis.recorder.shown.length >= wanted, count);

/** Milliseconds of the longest run of frames without a stall. */
const longestRunMs = (shown: readonly ShownFrame[]): number => {
	let longest = 0;
	let begin = shown[0]?.atMs ?? 0;
	for (const [index, { atMs }] of shown.entries()) {
		if (atMs - (shown[index - 1]?.atMs ?? atMs) > STALL_MS) {
			begin = atMs;
		}
		longest = Math.max(longest, atMs - begin);
	}
	return longest;
};

test('a prompt is typed, and its video is shown for five seconds without a stall', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder, complaints } = visitor;
	assert.equal(await page.locator('video').count(), 1);
	await page.evaluate(() => {
		(globalThis as { firstVideo?: Element | null }).firstVideo = document.querySelector('video');
	});
	// The fewest: a machine that is busy shows as many pictures as it can make.
	await page.locator('#steps input').first().check({ force: true });
	await start(page, 'a cat jumps on the beach at night');
	await status(page).filter({ hasText: 'Generating' }).waitFor();
	await shownAtLeast(page, 80);
	while (longestRunMs(await recorder.shown()) < 5000) {
		await shownAtLeast(page, (await recorder.shown()).length + 16);
	}
	const shown = await recorder.shown();
	for (const [index, frame] of shown.entries()) {
		const previous = shown[index - 1];
		assert.ok(previous === undefined || rtpDifference(frame.rtpTimestamp, previous.rtpTimestamp) > 0, 'time goes forward');
	}
	assert.match((await page.locator('#figure-first').textContent()) ?? '', /^\d+ ms$/u);

	await button(page, 'Stop').click();
	await status(page).filter({ hasText: 'Ready' }).waitFor();
	assert.equal(await page.evaluate(() => document.querySelector('video') === (globalThis as { firstVideo?: Element | null }).firstVideo), true, 'the video element is never replaced');
	assert.deepEqual(complaints, []);
});

/** What was encoded of a frame: all of it, or half of either side, where the way is narrow or the machine so busy that it looks so. */
const encodedOf = ({ data, width, height }: RawFrame, shownWidth: number): { readonly data: Uint8Array; readonly width: number; readonly height: number } =>
	(shownWidth === width ? { data, width, height } : { data: halveI420(data, width, height), width: halfSide(width), height: halfSide(height) });

test('the picture on the screen is the frame that the engine emitted, matched by its id', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder } = visitor;
	await start(page, 'a fox jumps in the snow');
	await shownAtLeast(page, 24);
	const snapshots = await recorder.takeSnapshots(12);
	await page.waitForFunction((last) => globalThis.recorder.metas.some((meta) => ((meta.rtp_timestamp - last) | 0) >= 0), snapshots.at(-1)?.rtpTimestamp ?? -1);
	const metas = await recorder.metas();
	const matched = snapshots.flatMap((snapshot) => metas.filter((entry) => entry.rtp_timestamp === snapshot.rtpTimestamp).map((meta) => ({ snapshot, meta })));
	// The channel of the records repeats none that is lost.
	assert.ok(matched.length >= snapshots.length * 0.75, `telemetry for only ${matched.length} of ${snapshots.length} pictures`);
	let surest = 0;
	for (const { snapshot, meta } of matched) {
		const frame = emitted.get(meta.frame_id);
		assert.ok(frame !== undefined);
		const encoded = encodedOf(frame, snapshot.width);
		assert.deepEqual([snapshot.width, snapshot.height], [encoded.width, encoded.height]);
		const likeness = (id: number): number => {
			const other = emitted.get(id);
			return other === undefined ? 0 : psnrDb(i420ToRgb(encodedOf(other, snapshot.width).data, encoded.width, encoded.height), snapshot.rgb);
		};
		const psnr = likeness(meta.frame_id);
		assert.ok(psnr >= 30, `frame ${meta.frame_id}: ${psnr.toFixed(1)} dB`);
		const others = Array.from({ length: 17 }, (_, index) => meta.frame_id - 8 + index).filter((id) => id !== meta.frame_id).map(likeness);
		surest += psnr > Math.max(...others) ? 1 : 0;
	}
	// A picture that stands still for a frame is as much like its neighbour; most do not.
	assert.ok(surest >= matched.length * 0.75, `only ${surest} of ${matched.length} pictures are more like their own frame than like any within half a second`);
});

/** Frames of the first chunks that the engine makes of one prompt, without any session. */
const render = async (seed: number, text: string, chunks: number): Promise<RawFrame[]> => {
	const { width, height, default_steps: steps } = app.engine.model;
	const stream = await app.engine.openStream({ seed, width, height });
	const frames: RawFrame[] = [];
	for (let chunk = 0; chunk < chunks; chunk++) {
		for await (const frame of stream.generate({ prompt: text, steps, controls: {} }).frames) {
			frames.push(frame);
		}
	}
	await stream.close();
	return frames;
};

test('an edited prompt changes the picture from the frame that the server named, and not a frame earlier', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder, seed } = visitor;
	await start(page, 'a penguin bounces in the snow');
	await shownAtLeast(page, 16);
	await prompt(page).fill('a car drives on the road at night qwertyuiop');
	await page.locator('#note').filter({ hasText: 'I don\'t know the word “qwertyuiop”' }).waitFor();
	await page.locator('#figure-change').filter({ hasText: /^\d+ ms$/u }).waitFor();
	const change = (await recorder.metas()).findLast((meta) => meta.applied_event_ids.length > 0);
	assert.ok(change !== undefined && change.frame_id > 0);
	await page.waitForFunction((rtp) => globalThis.recorder.shown.some((frame) => frame.rtpTimestamp >= rtp), change.rtp_timestamp);
	await page.waitForFunction((id) => globalThis.recorder.metas.some((meta) => meta.frame_id >= id), change.frame_id + 8);
	await button(page, 'Stop').click();
	await status(page).filter({ hasText: 'Ready' }).waitFor();

	// What would have been shown without the edit: the same frames up to the change, others from there on.
	const unedited = await render(await seed, 'a penguin bounces in the snow', change.chunk_index + 1);
	const firstDifferent = unedited.findIndex((frame) => Buffer.compare(frame.data, emitted.get(frame.frameId)?.data ?? new Uint8Array()) !== 0);
	assert.equal(firstDifferent, change.frame_id);
});

test('a killed engine is told of, comes back, and the video goes on by itself', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder, complaints } = visitor;
	await start(page, 'a ball rolls along in the desert');
	await shownAtLeast(page, 12);
	const state = app.engine.state;
	assert.ok(state.kind === 'ready');
	// A standby takes over so soon that nobody could read the words; every text that the line ever had is kept.
	await page.locator('#status').evaluate((line) => {
		const texts: string[] = [];
		new MutationObserver(() => texts.push(line.textContent ?? '')).observe(line, { childList: true, characterData: true, subtree: true });
		(globalThis as unknown as { statusTexts: string[] }).statusTexts = texts;
	});
	process.kill(state.pid, 'SIGKILL');
	await page.waitForFunction(() => (globalThis as unknown as { statusTexts: string[] }).statusTexts.some((text) => text.includes('Restarting the engine')));
	await recorder.clear();
	await status(page).filter({ hasText: 'Generating' }).waitFor();
	await shownAtLeast(page, 32);
	assert.equal(await page.locator('#note').textContent(), '');
	assert.deepEqual(complaints, []);
});

test('Start, Stop and Start again works, each time with new video', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder, complaints } = visitor;
	for (let round = 0; round < 3; round++) {
		await recorder.clear();
		await start(page, `a ${['cat', 'dog', 'rocket'][round] ?? ''} jumps`);
		await shownAtLeast(page, 10);
		await status(page).filter({ hasText: 'Generating' }).waitFor();
		assert.equal(await button(page, 'Start').isDisabled(), true);
		await button(page, 'Stop').click();
		await status(page).filter({ hasText: 'Ready' }).waitFor();
		assert.equal(await button(page, 'Stop').isDisabled(), true);
	}
	// Pressed at once, before the page has connected anew.
	await recorder.clear();
	await start(page, 'a whale sways under the sea');
	await shownAtLeast(page, 10);
	await button(page, 'Stop').click();
	await button(page, 'Start').click();
	await recorder.clear();
	await shownAtLeast(page, 10);
	assert.deepEqual(complaints, []);
});

test('an example prompt starts with a click, and an empty prompt is answered by what to do', { skip }, async () => {
	await using visitor = await visit();
	const { page, recorder } = visitor;
	await button(page, 'Start').click();
	await page.locator('#note').filter({ hasText: 'The prompt is empty' }).waitFor();
	await page.locator('#examples button').first().click();
	await shownAtLeast(page, 5);
	assert.equal(await prompt(page).inputValue(), app.engine.model.examples[0]);
	await page.keyboard.press('Tab');
	const steer = page.getByRole('button', { name: 'steer right' });
	await steer.hover();
	await recorder.clear();
	await page.mouse.down();
	await page.waitForFunction(() => globalThis.recorder.metas.some((meta) => meta.applied_event_ids.length > 0));
	await page.mouse.up();
});

test('a closed tab frees its place within seconds', { skip }, async () => {
	{
		await using visitor = await visit();
		await start(visitor.page, 'a cat jumps');
		await shownAtLeast(visitor.page, 4);
	}
	const placesFree = async (): Promise<number> => {
		const body = (await (await fetch(`${app.address.url}readyz`)).json()) as { places_free?: number };
		return body.places_free ?? 0;
	};
	while ((await placesFree()) < 2) {
		// Asked again until the server has noticed; the test's time limit is the assertion.
	}
});
