/** A Chromium as people have it, which tells no page its addresses: it reaches the server all the same, and its picture comes over WebRTC. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { whyNoBrowser } from './chromium.js';
import { openStage } from './stage.js';

test('a browser that hides its addresses behind names gets WebRTC', { skip: whyNoBrowser(), timeout: 300_000 }, async () => {
	await using stage = await openStage({ hidesAddresses: true });
	await using page = await stage.openPage();
	const { candidates, transport } = await page.evaluate(async () => {
		const told: string[] = [];
		const Real = globalThis.RTCPeerConnection;
		globalThis.RTCPeerConnection = class extends Real {
			constructor(configuration?: RTCConfiguration) {
				super(configuration);
				this.addEventListener('icecandidate', ({ candidate }) => told.push(...(candidate === null || candidate.candidate === '' ? [] : [candidate.candidate])));
			}

			/** Late, as in a page that is busy: the server knows by then that no candidate will come. */
			override async setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
				await new Promise((resolve) => setTimeout(resolve, 300));
				await super.setRemoteDescription(description);
			}
		};
		// However long it takes: the control socket is not to stand in for it.
		const session = sdk.connect(undefined, { video, transport: 'webrtc' });
		const start = await session.start('a cat jumps', { steps: 1, size: '32x32' });
		await start.displayed;
		const { transport: way } = session.transport;
		await session.stop();
		return { candidates: told, transport: way };
	});
	assert.equal(transport, 'webrtc');
	assert.ok(candidates.length > 0 && candidates.every((candidate) => candidate.split(' ')[4]?.endsWith('.local')), `it names ${candidates.join('; ')}`);
});
