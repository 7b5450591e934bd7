/** ICE restarts: the way changes, what was negotiated stays. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { RTCPeerConnection } from 'werift';
import type { EncodedChunk } from '../../src/base/frame.js';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import type { Transport } from '../../src/transport/transport.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { Receiver } from './receiver.js';

let transport: Transport;
before(() => {
	transport = createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock });
});
after(() => transport.close());

const keyFrame = (frameId: number): EncodedChunk => ({
	codec: 'h264', isKeyframe: true, frameId, rtpTimestamp: frameId * 5625, encodeMs: 1,
	data: Buffer.concat([Buffer.from([0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 1, 0x65]), Buffer.alloc(3000, frameId + 1)]),
});

const fragmentIn = (sdp: string): string | undefined => /^a=ice-ufrag:(\S+)/mu.exec(sdp)?.[1];

test('an offer of the same connection with new credentials restarts ICE: the same viewer sends on, after a key frame was asked for', async () => {
	await using receiver = new Receiver('h264');
	const viewer = await receiver.connect(transport);
	viewer.send(keyFrame(0));
	await receiver.until(() => receiver.units.length === 1);

	const offer = await receiver.restartOffer();
	assert.notEqual(fragmentIn(offer), undefined);
	assert.ok(viewer.continues(offer));
	const before = fragmentIn(receiver.connection.remoteDescription?.sdp ?? '');
	const states: string[] = [];
	viewer.onState(({ kind }) => states.push(kind));
	let keyframes = 0;
	viewer.onKeyframeNeeded(() => {
		keyframes += 1;
	});
	keyframes = 0;
	const answer = await viewer.restart(offer);
	assert.notEqual(fragmentIn(answer), before, 'this side has new credentials too');
	assert.equal(viewer.send(keyFrame(1)), 'dropped');
	await receiver.restarted(answer);
	await receiver.until(() => viewer.state.kind === 'connected', viewer);
	assert.deepEqual(states, ['disconnected', 'connected']);
	assert.equal(keyframes, 1);
	assert.equal(viewer.send(keyFrame(2)), 'sent');
	await receiver.until(() => receiver.units.length === 2);
	assert.equal(receiver.units[1]?.rtpTimestamp, 2 * 5625);
	assert.equal(transport.counts().connected, 1);
	await viewer.close('test is over');
});

test('an offer of another connection is none for this viewer, and one that is damaged costs it nothing', async () => {
	await using receiver = new Receiver('h264');
	await using other = new Receiver('h264');
	const viewer = await receiver.connect(transport);
	const foreign = await other.connection.createOffer();
	await other.connection.setLocalDescription(foreign);
	const sdp = other.connection.localDescription?.sdp ?? '';
	assert.equal(viewer.continues(sdp), false);
	await assert.rejects(viewer.restart(sdp), (error) => error instanceof TurbocastError && error.code === 'invalid_sdp');
	const again = await receiver.restartOffer();
	await assert.rejects(viewer.restart(again.replace(/a=ice-pwd:.*/gu, 'a=ice-pwd')), TurbocastError);
	assert.equal(viewer.state.kind, 'connected');
	assert.equal(viewer.send(keyFrame(0)), 'sent');
	await receiver.until(() => receiver.units.length === 1);
	await viewer.close('test is over');
	await assert.rejects(viewer.restart(again), (error) => error instanceof TurbocastError && error.code === 'invalid_state');
});

test('werift 0.25.2 begins no checks by itself after a restart (fails when it does: then the call in webrtc-viewer.ts can go)', async () => {
	await using receiver = new Receiver('h264');
	const answerer = new RTCPeerConnection({ iceServers: [], iceUseIpv6: false, iceAdditionalHostAddresses: ['127.0.0.1'], bundlePolicy: 'max-bundle' });
	try {
		answerer.addTransceiver('video', { direction: 'sendonly' });
		const answer = async (sdp: string): Promise<string> => {
			await answerer.setRemoteDescription({ type: 'offer', sdp });
			await answerer.setLocalDescription(await answerer.createAnswer());
			return answerer.localDescription?.sdp ?? '';
		};
		await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
		await receiver.connection.setRemoteDescription({ type: 'answer', sdp: await answer(receiver.connection.localDescription?.sdp ?? '') });
		await receiver.until(() => receiver.connection.connectionState === 'connected');
		while (answerer.connectionState !== 'connected') {
			await systemClock.sleep(20);
		}
		await answer(await receiver.restartOffer());
		await systemClock.sleep(500);
		assert.equal(answerer.iceTransports[0]?.connection.nominated, undefined);
		assert.equal(answerer.connectionState, 'connected', 'and says that it is connected');
	} finally {
		await answerer.close();
	}
});
