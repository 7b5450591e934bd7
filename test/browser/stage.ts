/** What the tests of the SDK in a browser stand on: a server with a real engine and real WebRTC, and a Chromium. */
import assert from 'node:assert/strict';
import type { Browser, Page } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { AuthOptions } from '../../src/server/auth.js';
import type { ServerConfig } from '../../src/server/server-config.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { launchChromium } from './chromium.js';

/** Of what is waited for in pages: room for a machine that is busy. */
export const PATIENCE_MS = 60_000;

type Sdk = typeof import('../../client/index.js');

declare global {
	var sdk: Sdk;
	var video: HTMLVideoElement;
}

export type Stage = AsyncDisposable & {
	readonly machine: Machine;
	readonly service: Service;
	readonly browser: Browser;
	/** Another server on the same engine. */
	readonly startService: (changes?: Partial<ServerConfig>, auth?: Partial<AuthOptions>) => Promise<Service>;
	/** An empty page of the server's origin, with the SDK at hand as `sdk` and a video as `video`. */
	readonly openPage: () => Promise<Page & AsyncDisposable>;
};

export const openStage = async (options: Parameters<typeof launchChromium>[0] = {}): Promise<Stage> => {
	const [machine, browser] = await Promise.all([startMachine(), launchChromium(options)]);
	const start: Stage['startService'] = (changes, auth) =>
		startService(machine, { iceServers: [], ...changes }, createWebRtcTransport({ fps: machine.model.spec.fps, log: silentLog, clock: systemClock }), auth);
	const service = await start();
	return {
		machine, service, browser, startService: start,
		openPage: async () => {
			const page = await browser.newPage();
			page.setDefaultTimeout(PATIENCE_MS);
			page.on('pageerror', (error) => assert.fail(`exception in the page: ${error.message}`));
			// Any answer of the server makes a document of its origin; one made up by the test would count as a page of the internet.
			await page.goto(`${service.url}healthz`);
			await page.evaluate(async () => {
				document.body.innerHTML = '<video muted playsinline></video>';
				const path = '/client/index.js';
				globalThis.sdk = (await import(path)) as Sdk;
				globalThis.video = document.querySelector('video') as HTMLVideoElement;
			});
			return page;
		},
		[Symbol.asyncDispose]: async () => {
			await browser.close();
			await service[Symbol.asyncDispose]();
			await machine[Symbol.asyncDispose]();
		},
	};
};
