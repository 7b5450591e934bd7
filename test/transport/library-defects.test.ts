/** Defects of the library that webrtc-sender.ts goes around: when one of these tests fails, the way around it can go. Those of RTCP parsing are in rtcp-repair.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RtcpTransportLayerFeedback, RTCRtpSender, ntpTime, GenericNack, RtpPacket, RtpHeader, RTCPeerConnection, type RtcpPacket } from 'werift';
import { silentLog } from '../../src/base/log.js';
import { ntpMs, ntpTimestamp } from '../../src/base/ntp.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { Receiver } from './receiver.js';

test('times: the library writes the decimals of a second where a fraction of 2^32 belongs', async () => {
	// At some moment in the second half of a second, of which the library tells the decimals as a small number.
	let ours = ntpTimestamp(ntpMs(performance.now()));
	while ((ours & 0xffffffffn) < 0x80000000n || (ours & 0xffffffffn) > 0xf0000000n) {
		await systemClock.sleep(20);
		ours = ntpTimestamp(ntpMs(performance.now()));
	}
	const theirs = ntpTime();
	assert.equal(theirs >> 32n, ours >> 32n);
	assert.ok((theirs & 0xffffffffn) < 0x10000000n, 'the defect is gone: the library\'s own sender reports and abs-send-time can be used');
});

test('feedback that names the stream of retransmissions reaches the transport, and never the sender', async () => {
	let connection: RTCPeerConnection | undefined;
	const transport = createWebRtcTransport({
		announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock, onConnection: (made) => {
			connection = made;
		},
	});
	await using receiver = new Receiver('h264');
	await receiver.connect(transport);
	const [sender] = connection?.getSenders() ?? [];
	assert.ok(sender instanceof RTCRtpSender);
	const [atSender, atTransport]: [RtcpPacket[], RtcpPacket[]] = [[], []];
	sender.onRtcp.subscribe((packet) => atSender.push(packet));
	const both = new Promise<void>((resolve) => {
		sender.dtlsTransport.onRtcp.subscribe((packet) => {
			atTransport.push(packet);
			if (atTransport.filter(({ type }) => type === RtcpTransportLayerFeedback.type).length === 2) {
				resolve();
			}
		});
	});
	const [dtls] = receiver.connection.dtlsTransports;
	for (const mediaSourceSsrc of [sender.rtxSsrc, sender.ssrc]) {
		await dtls?.sendRtcp([new RtcpTransportLayerFeedback({ feedback: new GenericNack({ senderSsrc: 1, mediaSourceSsrc, lost: [7] }) })]);
	}
	await both;
	const named = (packets: readonly RtcpPacket[]): number[] => packets.flatMap((packet) => (packet instanceof RtcpTransportLayerFeedback && packet.feedback instanceof GenericNack ? [packet.feedback.mediaSourceSsrc] : []));
	assert.deepEqual(named(atTransport), [sender.rtxSsrc, sender.ssrc]);
	assert.deepEqual(named(atSender), [sender.ssrc], 'the defect is gone: listen to the sender');
	await transport.close();
});

test('a client of the library gives up when it is asked twice for the cookie of its handshake (fails when it does not: then hello-repair.ts can go)', async () => {
	await using receiver = new Receiver('h264');
	const asked = receiver.repeatVerify();
	const answerer = new RTCPeerConnection({ iceServers: [], iceUseIpv6: false, iceAdditionalHostAddresses: ['127.0.0.1'], bundlePolicy: 'max-bundle' });
	try {
		answerer.addTransceiver('video', { direction: 'sendonly' });
		await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
		await answerer.setRemoteDescription({ type: 'offer', sdp: receiver.connection.localDescription?.sdp ?? '' });
		await answerer.setLocalDescription(await answerer.createAnswer());
		const [dtls] = answerer.dtlsTransports;
		const failed = dtls?.onStateChange.watch((state) => state === 'failed');
		await receiver.connection.setRemoteDescription({ type: 'answer', sdp: answerer.localDescription?.sdp ?? '' });
		await asked;
		await failed;
	} finally {
		await answerer.close();
	}
});

test('a repeat of the library keeps the transport-wide number of the first sending', () => {
	const sender = new RTCRtpSender('video');
	const kept = new RtpPacket(new RtpHeader({ sequenceNumber: 9, extension: true, extensions: [{ id: 3, payload: Buffer.from([0, 7]) }] }), Buffer.from([1, 2, 3]));
	const sent: number[] = [];
	const inside = sender as unknown as { rtpCache: RtpPacket[]; dtlsTransport: unknown; handleRtcpPacket: (packet: RtcpPacket) => void };
	inside.rtpCache[9] = kept;
	inside.dtlsTransport = { state: 'connected', sendRtp: (_payload: Buffer, header: RtpHeader) => {
		sent.push(header.extensions[0]?.payload.readUInt16BE() ?? -1);
		return Promise.resolve(0);
	} };
	inside.handleRtcpPacket(new RtcpTransportLayerFeedback({ feedback: new GenericNack({ senderSsrc: 1, mediaSourceSsrc: sender.ssrc, lost: [9] }) }));
	assert.deepEqual(sent, [7], 'the defect is gone: the library may repeat by itself');
	sender.stop();
});
