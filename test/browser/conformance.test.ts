/** The SDK in a real browser passes the suite for clients, video included. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { runClientSuite } from '../../src/conformance/client-suite.js';
import type { Result } from '../../src/conformance/verdict.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { whyNoBrowser } from './chromium.js';
import { openStage } from './stage.js';

test('the SDK in Chromium does what the protocol wants of a client', { skip: whyNoBrowser() }, async () => {
	await using stage = await openStage();
	await using page = await stage.openPage();
	const transport = createWebRtcTransport({ fps: 16, log: silentLog, clock: systemClock });
	const start = (url: string): void => void page.evaluate(async (address) => {
		const session = sdk.connect(address, { video });
		await session.start('a cat jumps');
	}, url).catch(() => undefined);
	const results: Result[] = [];
	for await (const result of runClientSuite({ port: 0, patienceMs: 30_000, transport, onListening: start, signal: AbortSignal.timeout(200_000) })) {
		results.push(result);
	}
	await transport.close();
	assert.deepEqual(results.filter(({ verdict }) => verdict !== 'pass'), []);
});
