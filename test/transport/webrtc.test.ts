import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { PictureLossIndication, ProtectionProfileAes128CmHmacSha1_80, RtcpPayloadSpecificFeedback } from 'werift';
import { VIDEO_CODECS, type EncodedChunk, type VideoCodec } from '../../src/base/frame.js';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { FrameMeta } from '../../src/protocol/messages.js';
import type { Transport } from '../../src/transport/transport.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { PLAYOUT_DELAY_URI } from '../../src/transport/rtp-writer.js';
import { Receiver } from './receiver.js';

const openTransport = (): Transport => createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock });

/** Bytes that look like an access unit to a packetiser: several packets long when `bytes` is large. */
const chunk = (codec: VideoCodec, frameId: number, bytes: number, isKeyframe = false): EncodedChunk => {
	const body = Buffer.from(Array.from({ length: bytes }, (_, index) => 1 + ((index * 7 + frameId) % 251)));
	const start = Buffer.from([0, 0, 0, 1]);
	const data = codec === 'vp8'
		? Buffer.concat([Buffer.from([isKeyframe ? 0x10 : 0x11]), body])
		: isKeyframe
			? Buffer.concat([start, Buffer.from([0x67, 0x42, 0xc0, 0x1f, 0x11]), start, Buffer.from([0x68, 0xce, 0x3c]), start, Buffer.from([0x65]), body])
			: Buffer.concat([start, Buffer.from([0x41]), body]);
	return { codec, data, isKeyframe, frameId, rtpTimestamp: (4_294_960_000 + frameId * 5625) % 2 ** 32, encodeMs: 1 };
};

const meta = (frameId: number): FrameMeta => ({
	type: 'frame.meta', frame_id: frameId, rtp_timestamp: 1, chunk_index: 0, media_ms: 0, keyframe: false,
	t_taken_ms: 0, t_generated_ms: 0, t_encoded_ms: 0, t_sent_ms: 0, applied_event_ids: [],
});

describe('a viewer', () => {
	let transport: Transport;
	before(() => {
		transport = openTransport();
	});
	after(() => transport.close());

	for (const codec of VIDEO_CODECS) {
		test(`${codec}: every access unit arrives as it was sent, with its time, also across the wrap of RTP time`, async () => {
			await using receiver = new Receiver(codec);
			const viewer = await receiver.connect(transport);
			assert.equal(viewer.codec, codec);
			const chunks = [chunk(codec, 0, 20_000, true), ...Array.from({ length: 8 }, (_, index) => chunk(codec, index + 1, index * 900 + 40))];
			assert.deepEqual(chunks.map((entry) => viewer.send(entry)), chunks.map(() => 'sent'));
			await receiver.until(() => receiver.units.length === chunks.length);
			for (const [index, unit] of receiver.units.entries()) {
				assert.equal(unit.rtpTimestamp, chunks[index]?.rtpTimestamp);
				assert.ok(unit.data.equals(chunks[index]?.data ?? Buffer.alloc(0)), `unit ${index} differs`);
			}
			await viewer.close('test is over');
		});
	}

	test('packets carry playout-delay 0 to 200 ms under the negotiated number', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.connect(transport);
		viewer.send(chunk('h264', 0, 3000, true));
		await receiver.until(() => receiver.units.length === 1);
		const line: RegExpExecArray | null = /a=extmap:(\d+) (\S+playout-delay)/u.exec(receiver.connection.remoteDescription?.sdp ?? '');
		assert.equal(line?.[2], PLAYOUT_DELAY_URI);
		for (const packet of receiver.packets) {
			const extension = packet.header.extensions.find(({ id }): boolean => id === Number(line?.[1]));
			assert.deepEqual([...(extension?.payload ?? [])], [0, 0, 20]);
		}
		await viewer.close('test is over');
	});

	test('a peer that asks twice for the cookie of the handshake is connected', async () => {
		await using receiver = new Receiver('h264');
		const asked = receiver.repeatVerify();
		const viewer = await receiver.connect(transport);
		await asked;
		viewer.send(chunk('h264', 0, 3000, true));
		await receiver.until(() => receiver.units.length === 1);
		await viewer.close('test is over');
	});

	test('asks for a key frame when it connects, and when the receiver reports a lost picture', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.offerTo(transport);
		let asked = 0;
		const next = (): Promise<void> => new Promise((resolve) => {
			const stop = viewer.onKeyframeNeeded(() => {
				asked += 1;
				stop();
				resolve();
			});
		});
		await next();
		assert.equal(viewer.state.kind, 'connected');
		viewer.send(chunk('h264', 0, 1000, true));
		await receiver.until(() => receiver.units.length === 1);
		// Requests within one frame of the first count as one; a browser repeats what was not answered, and so does this.
		const again = next();
		const repeat = setInterval(() => {
			const [dtls] = receiver.connection.dtlsTransports;
			void dtls?.sendRtcp([new RtcpPayloadSpecificFeedback({ feedback: new PictureLossIndication({ senderSsrc: 1, mediaSsrc: receiver.mediaSsrc }) })]);
		}, 10);
		await again;
		clearInterval(repeat);
		assert.equal(asked, 2);
		await viewer.close('test is over');
	});

	test('shows no broken picture: without a key frame everything is dropped, and again after a drop', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.offerTo(transport);
		assert.equal(viewer.send(chunk('h264', 0, 100, true)), 'dropped', 'not connected yet');
		await receiver.until(() => viewer.state.kind === 'connected', viewer);
		assert.equal(viewer.send(chunk('h264', 1, 100)), 'dropped');
		assert.equal(viewer.send(chunk('h264', 2, 100, true)), 'sent');
		assert.equal(viewer.send(chunk('h264', 3, 100)), 'sent');
		await viewer.close('test is over');
		assert.equal(viewer.send(chunk('h264', 4, 100, true)), 'dropped');
	});

	test('records arrive on the telemetry channel', async () => {
		await using receiver = new Receiver('vp8');
		const viewer = await receiver.connect(transport);
		viewer.sendMeta(meta(1));
		await receiver.until(() => receiver.telemetry.readyState === 'open');
		// The channel may open on the other side a moment later; until then records are dropped, as they may be.
		const repeat = setInterval(() => viewer.sendMeta(meta(7)), 5);
		await receiver.until(() => receiver.records.length >= 1);
		clearInterval(repeat);
		assert.equal((JSON.parse(receiver.records.at(-1) ?? '') as FrameMeta).frame_id, 7);
		await viewer.close('test is over');
		viewer.sendMeta(meta(8));
	});

	test('lost packets are sent again, and every unit gets through', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.connect(transport);
		// Every ninth packet, the first units excepted so that the receiver knows the stream.
		receiver.losePackets((count) => count > 20 && count % 9 === 0);
		const chunks = Array.from({ length: 40 }, (_, index) => chunk('h264', index, 4000, index === 0));
		const sending = (async () => {
			for (const entry of chunks) {
				viewer.send(entry);
				await systemClock.sleep(15);
			}
		})();
		await sending;
		// A receiver sees that the last packet of all is missing only when another follows.
		const more = setInterval(() => viewer.send(chunk('h264', 40, 100)), 20);
		await receiver.until(() => chunks.every((entry) => receiver.units.some((unit) => unit.rtpTimestamp === entry.rtpTimestamp)));
		clearInterval(more);
		for (const entry of chunks) {
			assert.ok(receiver.units.find((unit) => unit.rtpTimestamp === entry.rtpTimestamp)?.data.equals(entry.data));
		}
		await viewer.close('test is over');
	});

	test('packets are protected by the profile that every peer has', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.connect(transport);
		const profiles = receiver.connection.dtlsTransports.map(({ srtp }) => srtp?.localContext.profile);
		assert.deepEqual(profiles, [ProtectionProfileAes128CmHmacSha1_80]);
		await viewer.close('test is over');
	});

	test('accepts trickled candidates, the end of them in both forms, and ignores what is of no use', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.offerTo(transport);
		await viewer.addCandidate({ candidate: 'candidate:1 1 udp 2113937151 5f3c.local 54321 typ host', sdp_mid: '0', sdp_mline_index: 0 });
		await viewer.addCandidate({ candidate: 'candidate:1 1 tcp 2113937151 127.0.0.1 9 typ host tcptype active', sdp_mid: '0' });
		await viewer.addCandidate({ candidate: 'candidate:1 1 udp 2113937151 127.0.0.1 9 typ host', sdp_mid: '0', sdp_mline_index: 0 });
		await viewer.addCandidate({ candidate: '', sdp_mid: '0' });
		await viewer.addCandidate(null);
		await receiver.until(() => viewer.state.kind === 'connected', viewer);
		await viewer.close('test is over');
		await viewer.addCandidate(null);
	});

	test('a peer that names no address, as a browser hides its own, is waited for: it reaches this side', async () => {
		await using receiver = new Receiver('h264');
		await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
		const offer = (receiver.connection.localDescription?.sdp ?? '').split('\r\n').filter((line) => !/^a=(?:candidate:|end-of-candidates)/u.test(line)).join('\r\n');
		const { viewer, answerSdp } = await transport.accept(offer);
		await viewer.addCandidate({ candidate: 'candidate:1 1 udp 2113937151 5f3c.local 54321 typ host', sdp_mid: '0', sdp_mline_index: 0 });
		await viewer.addCandidate(null);
		await receiver.connection.setRemoteDescription({ type: 'answer', sdp: answerSdp });
		await receiver.until(() => viewer.state.kind === 'connected' || viewer.state.kind === 'closed', viewer);
		assert.equal(viewer.state.kind, 'connected');
		await viewer.close('test is over');
	});

	test('a candidate for a section that does not exist is refused, and the connection goes on', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.offerTo(transport);
		await assert.rejects(viewer.addCandidate({ candidate: 'candidate:1 1 udp 2113937151 127.0.0.1 9 typ host', sdp_mid: 'nowhere' }), { code: 'invalid_request' });
		await receiver.until(() => viewer.state.kind === 'connected', viewer);
		await viewer.close('test is over');
	});

	test('close is idempotent and says why', async () => {
		await using receiver = new Receiver('h264');
		const viewer = await receiver.connect(transport);
		const states: string[] = [];
		viewer.onState((state) => states.push(state.kind));
		await Promise.all([viewer.close('first reason'), viewer.close('second')]);
		assert.deepEqual(viewer.state, { kind: 'closed', reason: 'first reason' });
		assert.deepEqual(states, ['closed']);
	});
});

test('connections leave nothing behind when they close', async () => {
	const resources = (): string[] => process.getActiveResourcesInfo().filter((name) => name !== 'TTYWrap' && name !== 'PipeWrap').sort();
	const once = async (): Promise<void> => {
		const transport = openTransport();
		const receiver = new Receiver('h264');
		const viewer = await receiver.connect(transport);
		viewer.send(chunk('h264', 0, 5000, true));
		await receiver.until(() => receiver.units.length === 1);
		await transport.close();
		await receiver.connection.close();
		assert.equal(viewer.state.kind, 'closed');
		await assert.rejects(transport.accept('v=0'), { code: 'draining' });
	};
	const before = resources().length;
	// The library ends its timers some turns after close, on a busy machine some seconds: wait for them, a minute at most.
	const settledAt = async (most: number): Promise<string[]> => {
		let left = resources();
		for (let turn = 0; left.length > most && turn < 2400; turn += 1) {
			await new Promise((resolve) => setTimeout(resolve, 25));
			left = resources();
		}
		return left;
	};
	const allowed = before + 2;
	for (let cycle = 0; cycle < 5; cycle += 1) {
		await once();
	}
	const left = await settledAt(allowed);
	assert.ok(left.length <= allowed, `${before} resources became ${left.length}: ${left.join()}`);
});
