/** A browser that reaches nobody but the TURN server gets its picture through it, with the credentials that the server made for it. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { startMachine, startService, type Machine } from '../server/service.js';
import { startTurnServer } from '../transport/turn-server.js';
import { launchChromium, whyNoBrowser } from './chromium.js';

const skip = whyNoBrowser();
let machine: Machine & AsyncDisposable;
let browser: Browser;
before(async () => {
	if (skip === false) {
		[machine, browser] = await Promise.all([startMachine(), launchChromium()]);
	}
});
after(async () => {
	await browser?.close();
	await machine?.[Symbol.asyncDispose]();
});

test('a picture goes through a TURN relay, and can be steered', { skip, timeout: 300_000 }, async () => {
	await using turn = await startTurnServer('a secret');
	await using service = await startService(machine, { iceServers: [], turn: { urls: [turn.url], secret: 'a secret', credentialSeconds: 600 } }, createWebRtcTransport({ fps: machine.model.spec.fps, log: silentLog, clock: systemClock }));
	await using page = await browser.newPage();
	await page.addInitScript(() => {
		const Connection = globalThis.RTCPeerConnection;
		globalThis.RTCPeerConnection = class extends Connection {
			constructor(configuration?: RTCConfiguration) {
				super({ ...configuration, iceTransportPolicy: 'relay' });
				(globalThis as { connections?: RTCPeerConnection[] }).connections = [...(globalThis as { connections?: RTCPeerConnection[] }).connections ?? [], this];
			}
		};
	});
	await page.goto(`${service.url}healthz`);
	const { latencyMs, transport, way } = await page.evaluate(async () => {
		document.body.innerHTML = '<video muted playsinline></video>';
		const path = '/client/index.js';
		const { connect } = (await import(path)) as typeof import('../../client/index.js');
		const video = document.querySelector('video') as HTMLVideoElement;
		const session = connect(location.origin.replace('http', 'ws'), { video, transport: 'webrtc' });
		const start = await session.start('a cat jumps');
		await start.displayed;
		const change = await session.setPrompt('a dog sleeps');
		const { latencyMs } = await change.displayed;
		const [connection] = (globalThis as { connections?: RTCPeerConnection[] }).connections ?? [];
		const report = [...(await connection?.getStats() ?? new Map<string, Record<string, unknown>>()).values()] as readonly { readonly [name: string]: unknown }[];
		const pair = report.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated === true && state === 'succeeded');
		const local = report.find(({ id }) => id === pair?.['localCandidateId']);
		return { latencyMs, transport: session.transport.transport, way: local?.['candidateType'] };
	});
	assert.deepEqual([transport, way], ['webrtc', 'relay']);
	assert.ok(latencyMs > 0);
	while (turn.relayed() <= 10_000) {
		// Pictures go on; the time limit is the assertion.
		await systemClock.sleep(50);
	}
});
