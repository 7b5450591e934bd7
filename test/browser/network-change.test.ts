/** The way of the media dies under a session in a real browser, as when a phone leaves the house: packets of all the browser's ports are lost, those of new ones are not. */
import assert from 'node:assert/strict';
import { Socket, type RemoteInfo } from 'node:dgram';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { silentLog, type Log } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { launchChromium, whyNoBrowser } from './chromium.js';

type Sdk = typeof import('../../client/index.js');

const skip = whyNoBrowser();
const PATIENCE_MS = 60_000;
let machine: Machine & AsyncDisposable;
let service: Service;
let browser: Browser;
const messages: string[] = [];

/** Loses everything from and to the ports of the browser that are dead; `seen`: those that media was heard from. */
const network = { seen: new Set<number>(), dead: new Set<number>() };
/** Of sockets for datagrams, which carry all media; put back at the end. */
const original: { emit?: unknown; send?: unknown } = {};

before(async () => {
	if (skip !== false) {
		return;
	}
	const { prototype } = Socket as unknown as { prototype: { [method in 'emit' | 'send']: unknown } };
	original.emit = prototype.emit;
	original.send = prototype.send;
	Socket.prototype.emit = function (this: Socket, event: string, ...args: unknown[]): boolean {
		if (event === 'message') {
			const { port } = args[1] as RemoteInfo;
			network.seen.add(port);
			if (network.dead.has(port)) {
				return true;
			}
		}
		return (original.emit as (...all: unknown[]) => boolean).call(this, event, ...args);
	} as Socket['emit'];
	Socket.prototype.send = function (this: Socket, ...args: unknown[]): void {
		const callback = args.at(-1);
		if (args.some((argument) => typeof argument === 'number' && network.dead.has(argument))) {
			if (typeof callback === 'function') {
				(callback as (error: null) => void)(null);
			}
			return;
		}
		(original.send as (...all: unknown[]) => void).call(this, ...args);
	} as Socket['send'];
	[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	const log: Log = { ...silentLog, info: (_fields, message) => void messages.push(message), child: () => log };
	// Packets that are sent together do not pass `Socket.prototype.send`.
	const transport = createWebRtcTransport({ portRange: undefined, announceAddresses: [], iceServers: [], segmentation: false, fps: machine.model.spec.fps, log, clock: systemClock });
	service = await startService(machine, { iceServers: [] }, transport);
});
after(async () => {
	Object.assign(Socket.prototype, original);
	await browser?.close();
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

declare global {
	var sdk: Sdk;
	var video: HTMLVideoElement;
	var shown: () => number;
	var ports: number[];
	var live: ReturnType<Sdk['connect']>;
	var states: string[];
}

const openPage = async (): Promise<Page> => {
	const page = await browser.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	await page.addInitScript(() => {
		globalThis.ports = [];
		const { RTCPeerConnection: Original } = globalThis;
		globalThis.RTCPeerConnection = class extends Original {
			constructor(options?: RTCConfiguration) {
				super(options);
				this.addEventListener('icecandidate', ({ candidate }) => ports.push(candidate?.port ?? 0));
			}
		};
	});
	await page.goto(`${service.url}healthz`);
	await page.evaluate(async () => {
		document.body.innerHTML = '<video muted playsinline></video>';
		const path = '/client/index.js';
		globalThis.sdk = (await import(path)) as Sdk;
		globalThis.video = document.querySelector('video') as HTMLVideoElement;
		// The control socket is not to stand in for it.
		const session = sdk.connect(undefined, { video, transport: 'webrtc' });
		globalThis.live = session;
		let count = 0;
		globalThis.shown = () => count;
		globalThis.states = [];
		void (async () => {
			for await (const event of session.events()) {
				if (event.type === 'frame.displayed') {
					count += 1;
				} else if (event.type === 'state.changed') {
					states.push(event.state.kind);
				}
			}
		})();
		await session.start('red');
	});
	await page.waitForFunction(() => shown() > 10);
	return page;
};

/** Cuts the ways over these ports, and waits for the picture to go on. */
const cut = async (page: Page, ports: Iterable<number>): Promise<void> => {
	const cutAtMs = performance.now();
	network.dead = new Set(ports);
	await page.waitForTimeout(500);
	const before = await page.evaluate(() => shown());
	await page.waitForFunction((count) => shown() > count + 10, before);
	console.log(`picture back ${Math.round(performance.now() - cutAtMs)} ms after the network changed`);
	assert.equal(messages.filter((message) => message === 'viewer answered').length, 1);
	assert.equal(messages.filter((message) => message === 'viewer closed').length, 0);
	assert.deepEqual((await page.evaluate(() => states)).filter((state) => state === 'reconnecting' || state === 'failed'), []);
	await page.evaluate(() => live.close());
	while (!messages.includes('viewer closed')) {
		await systemClock.sleep(50);
	}
	await page.close();
};

test('every way dies: ICE is restarted, and the picture comes back in the same session and the same peer connection', { skip }, async () => {
	messages.length = 0;
	const page = await openPage();
	await cut(page, [...network.seen, ...(await page.evaluate(() => ports))]);
	assert.equal(messages.filter((message) => message === 'viewer restarts ICE').length, 1);
});

test('the way in use dies: the browser goes over to another pair where it has one, and the video follows', { skip }, async () => {
	messages.length = 0;
	network.seen.clear();
	const page = await openPage();
	await cut(page, network.seen);
});
