/** The ways that the video comes, in a real browser: over UDP, over the control socket where UDP is blocked, and back. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { launchChromium, waitForWebRtc, whyNoBrowser } from './chromium.js';

type Sdk = typeof import('../../client/index.js');
declare global {
	var sdk: Sdk;
	var video: HTMLVideoElement;
}

const skip = whyNoBrowser();
let machine: Machine & AsyncDisposable;
let service: Service;
let browser: Browser;
before(async () => {
	if (skip !== false) {
		return;
	}
	[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	const transport = createWebRtcTransport({ portRange: undefined, announceAddresses: [], iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock });
	service = await startService(machine, { iceServers: [] }, transport);
});
after(async () => {
	await browser?.close();
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

/** With relays alone and none to be had, a connection finds no way: as where UDP is blocked. `isBlocked` of the page says whether it is. */
const blockUdp = (): void => {
	const Real = globalThis.RTCPeerConnection;
	const state = globalThis as unknown as { isBlocked: boolean };
	state.isBlocked = true;
	globalThis.RTCPeerConnection = class extends Real {
		constructor(configuration: RTCConfiguration = {}) {
			super(state.isBlocked ? { ...configuration, iceTransportPolicy: 'relay' } : configuration);
		}
	};
};

const openPage = async (...preparations: readonly (() => void)[]): Promise<Page & AsyncDisposable> => {
	const page = await browser.newPage();
	page.on('pageerror', (error) => assert.fail(`exception in the page: ${error.message}`));
	for (const prepare of preparations) {
		await page.addInitScript(prepare);
	}
	await page.goto(`${service.url}healthz`);
	await page.evaluate(async () => {
		document.body.innerHTML = '<video muted playsinline></video>';
		const path = '/client/index.js';
		globalThis.sdk = (await import(path)) as Sdk;
		globalThis.video = document.querySelector('video') ?? document.createElement('video');
	});
	return page;
};

/** Starts at once, as a page does that is opened with a prompt, and plays for a while. */
const play = (page: Page, transport: 'auto' | 'webrtc' | 'websocket' | 'fmp4') => page.evaluate(async (choice) => {
	const session = sdk.connect(undefined, { video, transport: choice });
	const frames: { readonly rtp: number; readonly atMs: number; readonly hasTimeline: boolean }[] = [];
	const ways: unknown[] = [];
	void (async () => {
		for await (const event of session.events()) {
			if (event.type === 'frame.displayed') {
				frames.push({ rtp: event.rtp_timestamp, atMs: event.at_ms, hasTimeline: event.timeline !== undefined });
			} else if (event.type === 'transport.changed') {
				ways.push({ transport: event.transport, reason: event.reason });
			}
		}
	})();
	const first = await session.start('a cat jumps', { steps: 1, size: '32x32' });
	await first.displayed;
	// Later it may be a smaller one: a busy machine looks like a narrow way.
	const size = [video.videoWidth, video.videoHeight];
	const change = await session.setPrompt('a dog');
	const { latencyMs } = await change.displayed;
	const { totalMs } = await change.timeline;
	// On a busy machine some are shown before the clocks are compared.
	while (frames.length < 24 || frames.slice(-12).filter(({ hasTimeline }) => hasTimeline).length < 8) {
		await new Promise((resolve) => setTimeout(resolve, 50));
	}
	const result = {
		latencyMs, totalMs, frames, ways, now: session.transport, size,
		isStream: video.srcObject === session.stream, tracks: session.stream?.getTracks().length,
	};
	await session.stop();
	return result;
}, transport);

const assertFlows = (played: Awaited<ReturnType<typeof play>>): void => {
	const { frames, size, latencyMs, totalMs } = played;
	assert.deepEqual(size, [32, 32]);
	assert.ok(latencyMs > 0 && Math.abs(totalMs - latencyMs) < 50, `${latencyMs} ms, of which the timeline knows ${totalMs}`);
	const steps = frames.slice(1).map(({ rtp }, index) => (rtp - (frames[index]?.rtp ?? 0)) | 0);
	assert.ok(steps.every((step) => step >= 0), 'pictures in order');
};

test('where UDP comes through, it is WebRTC, without a word', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(waitForWebRtc);
	const played = await play(page, 'auto');
	assertFlows(played);
	assert.deepEqual([played.ways.length, played.now], [1, { transport: 'webrtc', reason: undefined }]);
	assert.deepEqual([played.isStream, played.tracks], [true, 1]);
});

test('where UDP is blocked the picture comes over the control socket, with the reason', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(blockUdp);
	const played = await play(page, 'auto');
	assertFlows(played);
	assert.deepEqual(played.ways, [played.now]);
	assert.equal(played.now.transport, 'websocket');
	assert.match(played.now.reason ?? '', /UDP/u);
	assert.deepEqual([played.isStream, played.tracks], [true, 1]);
});

test('without WebCodecs, as on plain http, the same picture comes as fragments of MP4', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(blockUdp, () => {
		Object.defineProperty(globalThis, 'VideoDecoder', { value: undefined });
	});
	const played = await play(page, 'auto');
	assertFlows(played);
	assert.equal(played.now.transport, 'fmp4');
	assert.match(played.now.reason ?? '', /UDP.*WebCodecs/u);
});

test('without a track generator, as in Firefox, pictures go through a canvas', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(blockUdp, () => {
		Object.defineProperty(globalThis, 'MediaStreamTrackGenerator', { value: undefined });
	});
	const played = await play(page, 'websocket');
	assertFlows(played);
	assert.deepEqual(played.now, { transport: 'websocket', reason: 'The application asked for it.' });
});

test('a browser that has none of them is told what it needs', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(blockUdp, () => {
		for (const name of ['VideoDecoder', 'MediaSource', 'ManagedMediaSource', 'RTCPeerConnection']) {
			Object.defineProperty(globalThis, name, { value: undefined });
		}
	});
	const ended = await page.evaluate(async () => {
		const last = await sdk.connect(undefined, { video }).ended;
		return last.kind === 'failed' ? [last.error.code, last.error.message] : [last.kind];
	});
	assert.equal(ended[0], 'transport_failed');
	assert.match(ended[1] ?? '', /WebRTC, WebCodecs \(on https\) or Media Source Extensions/u);
});

test('when UDP comes through later, WebRTC takes over, and the picture never goes', { skip, timeout: 300_000 }, async () => {
	await using page = await openPage(blockUdp);
	const result = await page.evaluate(async () => {
		const session = sdk.connect(undefined, { video });
		const ways: (string | undefined)[] = [];
		const shown: number[] = [];
		const changedAt: number[] = [];
		void (async () => {
			for await (const event of session.events()) {
				if (event.type === 'transport.changed') {
					ways.push(event.transport);
					changedAt.push(performance.now());
				} else if (event.type === 'frame.displayed') {
					shown.push(event.at_ms);
				}
			}
		})();
		await (await session.start('a cat jumps', { steps: 1, size: '32x32' })).displayed;
		(globalThis as unknown as { isBlocked: boolean }).isBlocked = false;
		const canvas = document.createElement('canvas');
		canvas.width = 1;
		canvas.height = 1;
		const context = canvas.getContext('2d', { willReadFrequently: true });
		let empty = 0;
		const deadlineMs = performance.now() + 120_000;
		while ((ways.at(-1) !== 'webrtc' || performance.now() < (changedAt.at(-1) ?? 0) + 1000) && performance.now() < deadlineMs) {
			await new Promise((resolve) => requestAnimationFrame(resolve));
			context?.clearRect(0, 0, 1, 1);
			context?.drawImage(video, 0, 0, 1, 1);
			empty += video.readyState < 2 || context?.getImageData(0, 0, 1, 1).data[3] !== 255 ? 1 : 0;
		}
		const at = changedAt.at(-1) ?? 0;
		const gaps = shown.slice(1).map((atMs, index) => ({ ms: atMs - (shown[index] ?? 0), isNear: atMs > at - 1000 && (shown[index] ?? 0) < at + 1000 }));
		const longest = (isNear: boolean): number => Math.max(...gaps.filter((gap) => gap.isNear === isNear).map(({ ms }) => ms));
		await session.stop();
		return { ways, empty, longestGapMs: longest(true), elsewhereMs: longest(false), frames: shown.length };
	});
	assert.deepEqual(result.ways, ['websocket', 'webrtc']);
	// Chromium may draw one frame of the display without a picture while the track changes; nobody sees a sixtieth of a second.
	assert.ok(result.empty <= 1, `${result.empty} frames of the display without a picture`);
	// On a machine that is busy pictures are late everywhere.
	const mostMs = Math.max(500, 1.5 * result.elsewhereMs);
	assert.ok(result.longestGapMs < mostMs, `${Math.round(result.longestGapMs)} ms between two of ${result.frames} pictures around the change, ${Math.round(result.elsewhereMs)} elsewhere`);
});
