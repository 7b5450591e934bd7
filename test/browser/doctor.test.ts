/** The panel of the page that names the failing hop, over set-ups that are broken in that way. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { AuthOptions } from '../../src/server/auth.js';
import { newServerKey } from '../../src/server/keys.js';
import type { ServerConfig } from '../../src/server/server-config.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { startTurnServer } from '../transport/turn-server.js';
import { openBadNetwork } from './bad-network.js';
import { launchChromium, whyNoBrowser } from './chromium.js';

const skip = whyNoBrowser();
const PATIENCE_MS = 60_000;
let machine: Machine & AsyncDisposable;
let service: Service;
let browser: Browser;

const startServer = (changes: Partial<ServerConfig> = {}, auth: Partial<AuthOptions> = {}): Promise<Service> =>
	startService(machine, { iceServers: [], ...changes }, createWebRtcTransport({ fps: machine.model.spec.fps, log: silentLog, clock: systemClock }), auth);

before(async () => {
	if (skip !== false) {
		return;
	}
	[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	service = await startServer();
});
after(async () => {
	await browser?.close();
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

const openPage = async (url: string, prepare?: () => void): Promise<Page & AsyncDisposable> => {
	const page = await browser.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	if (prepare !== undefined) {
		await page.addInitScript(prepare);
	}
	await page.goto(url);
	return page;
};

const play = async (page: Page): Promise<void> => {
	await page.fill('#prompt', 'a cat jumps');
	await page.click('#start:enabled');
	await page.waitForSelector('body[data-shown]');
};

type Row = { readonly hop: string; readonly verdict: string; readonly diagnosis: string | undefined; readonly text: string };

const check = async (page: Page): Promise<Row[]> => {
	await page.click('#doctor-check');
	await page.waitForSelector('#doctor-check:enabled');
	return page.evaluate(() => [...document.querySelectorAll<HTMLElement>('#doctor-findings li')].map((item) => ({
		hop: item.dataset['hop'] ?? '', verdict: item.className, diagnosis: item.dataset['diagnosis'], text: item.textContent ?? '',
	})));
};

/** Of all that is not good; that there is no TURN is no matter here. */
const wrongOf = (rows: readonly Row[]): unknown[] => rows.flatMap(({ verdict, diagnosis }) => (verdict === 'good' || diagnosis === 'turn_missing' ? [] : [[diagnosis, verdict]]));
const textOf = (rows: readonly Row[], hop: string): string => rows.filter((row) => row.hop === hop).map(({ text }) => text).join(' ');

test('where all is well it says so: server, clock, codecs, the pair of candidates, the way', { skip }, async () => {
	await using page = await openPage(service.url);
	await play(page);
	await page.waitForFunction(() => document.getElementById('figure-way')?.textContent === 'WebRTC');
	const rows = await check(page);
	assert.deepEqual(wrongOf(rows), []);
	assert.deepEqual(rows.map(({ hop }) => hop), ['server', 'admission', 'clock', 'codec', 'turn', 'media', 'picture']);
	assert.match(textOf(rows, 'media'), /\w+ \S+ \(udp\) to \w+ \S+ \(udp\).*Candidates gathered here: .*host/u);
	assert.match(textOf(rows, 'codec'), /VP8 by WebRTC/u);
	assert.match(textOf(rows, 'picture'), /comes by webrtc.*Clocks of frames: -?\d+ ms apart/u);
});

test('UDP that is blocked: the picture comes another way, and the panel names it', { skip }, async () => {
	await using network = await openBadNetwork(service.url);
	network.blockMedia(true);
	await using page = await openPage(network.url);
	await play(page);
	const rows = await check(page);
	assert.deepEqual(wrongOf(rows), [['udp_blocked', 'doubtful']]);
	assert.match(textOf(rows, 'picture'), /comes by (?:websocket|fmp4): WebRTC did not connect/u);
	assert.match(await page.textContent('#doctor-verdict') ?? '', /The picture comes; worth a look/u);
});

test('an advertised address that leads nowhere', { skip }, async () => {
	await using network = await openBadNetwork(service.url, { announce: '203.0.113.7' });
	await using page = await openPage(network.url);
	await play(page);
	const rows = await check(page);
	assert.deepEqual(wrongOf(rows), [['wrong_address', 'doubtful']]);
	assert.match(textOf(rows, 'media'), /203\.0\.113\.7.*announce_addresses/u);
});

test('a codec that was taken out of the offer', { skip }, async () => {
	await using network = await openBadNetwork(service.url, { offer: (sdp) => sdp.replaceAll(/(?:H264|VP8)\/90000/gu, 'AV1X/90000') });
	await using page = await openPage(network.url);
	await play(page);
	const rows = await check(page);
	assert.ok(rows.some(({ diagnosis }) => diagnosis === 'codec_missing'), JSON.stringify(rows));
});

test('a clock that was moved by an hour', { skip }, async () => {
	await using page = await openPage(service.url, () => {
		const now = Date.now.bind(Date);
		Date.now = () => now() - 3_600_000;
	});
	await page.waitForSelector('#start:enabled');
	await page.waitForSelector('body[data-state="ready"]');
	assert.ok((await check(page)).some(({ diagnosis }) => diagnosis === 'clock_skew'));
});

test('a TURN server that refuses, and one that relays', { skip }, async () => {
	await using turn = await startTurnServer('a secret');
	for (const [secret, wanted] of [['another secret', 'turn_refused'], ['a secret', undefined]] as const) {
		await using relayed = await startServer({ turn: { urls: [turn.url], secret, credentialSeconds: 600 } });
		await using page = await openPage(relayed.url);
		await page.waitForSelector('body[data-state="ready"]');
		const row = (await check(page)).find(({ hop }) => hop === 'turn');
		assert.equal(row?.diagnosis, wanted, row?.text);
	}
});

test('a key that the server refuses, and a server that is gone', { skip }, async () => {
	const closed = await startServer({}, { keys: [newServerKey()] });
	await using page = await openPage(closed.url);
	await page.waitForSelector('#key-part:not([hidden])');
	assert.deepEqual(wrongOf(await check(page)), [['key_refused', 'broken']]);
	await closed[Symbol.asyncDispose]();
	assert.ok((await check(page)).some(({ diagnosis }) => diagnosis === 'server_unreached'));
});
