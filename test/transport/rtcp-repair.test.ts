/** Each repair, and the defect in the library that it stands against: when a test of a defect fails, its repair can go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GenericNack, RtcpHeader, RtcpPacketConverter, RtcpTransportLayerFeedback, RTCRtpSender, TransportWideCC, type RtcpPacket } from 'werift';
import { lostSequences, readTransportFeedback, repairCompoundParsing, splitCompound } from '../../src/transport/rtcp-repair.js';
import { disableBuiltInEstimator, disableBuiltInResend } from '../../src/transport/webrtc-sender.js';

/** Transport-layer feedback, format 1 (RFC 4585 section 6.2.1): sequence 1000 is lost, and by the mask 1002. */
const NACK = Buffer.from('81cd0003' + '00000001' + '00000002' + '03e80002', 'hex');
/** REMB (draft-alvestrand-rmcat-remb-03): 2 Mbps for one stream. */
const REMB = Buffer.from('8fce0005' + '00000001' + '00000000' + '52454d42' + '010bd090' + '00000002', 'hex');

const lostIn = (packets: readonly RtcpPacket[]): number[][] =>
	packets.flatMap((packet) => (packet instanceof RtcpTransportLayerFeedback && packet.feedback instanceof GenericNack ? [packet.feedback.lost] : []));

test('the library reads a NACK on into the packet behind it; repaired, it does not', () => {
	const compound = Buffer.concat([NACK, REMB]);
	assert.ok((lostIn(RtcpPacketConverter.deSerialize(compound))[0]?.length ?? 0) > 2, 'the defect is gone: remove repairCompoundParsing');
	repairCompoundParsing();
	repairCompoundParsing();
	const packets = RtcpPacketConverter.deSerialize(compound);
	assert.deepEqual(lostIn(packets), [[1000, 1002]]);
	assert.equal(packets.length, 2);
});

test('a compound is cut at the lengths of its packets, and its truncated end is left out', () => {
	const compound = Buffer.concat([NACK, REMB]);
	assert.deepEqual(splitCompound(compound).map((packet) => packet.length), [16, 24]);
	assert.deepEqual(splitCompound(compound.subarray(0, 39)).map((packet) => packet.length), [16]);
	assert.deepEqual(splitCompound(Buffer.from('80c8', 'hex')), []);
	// A length beyond the end, as a hostile peer may write it.
	assert.deepEqual(splitCompound(Buffer.from('81cdffff00000001', 'hex')), []);
});

test('the library does not wrap the numbers of a NACK at 2^16; repaired, they are', () => {
	const { lost } = GenericNack.deSerialize(Buffer.from('00000001' + '00000002' + 'ffff0003', 'hex'), new RtcpHeader({ type: 205, count: 1 }));
	assert.deepEqual(lost, [65_535, 65_536, 65_537], 'the defect is gone: remove lostSequences');
	assert.deepEqual(lostSequences({ lost }), [65_535, 0, 1]);
});

/**
 * Feedback on ten packets from 65530, reference time 5 * 64 ms: a run of 3 received (small deltas of 1 ms), then a vector of
 * two-bit symbols: received, lost, lost, received late (large delta of 100 ms), received, lost, lost.
 *
 *     base ffa  count 10 | reference 5, number 0 | run 2003 (type 1, 3) | vector: 11 01 00 00 10 01 00 00
 */
const TRANSPORT_WIDE = Buffer.from(
	'8fcd0007' + '00000001' + '00000002' + 'fffa000a' + '00000500' + '2003' + 'd090' + '04040404' + '0190' + '04' + '00', 'hex',
);

test('the library misreads transport-wide feedback; readTransportFeedback does not', () => {
	const header = RtcpHeader.deSerialize(TRANSPORT_WIDE.subarray(0, 4));
	const feedback = TransportWideCC.deSerialize(TRANSPORT_WIDE.subarray(4), header);
	const reports = readTransportFeedback(feedback);
	assert.deepEqual(reports.map((report) => report.sequence), [65_530, 65_531, 65_532, 65_533, 65_534, 65_535, 0, 1, 2, 3]);
	assert.deepEqual(reports.map((report) => report.arrivedAtMs), [321, 322, 323, 324, undefined, undefined, 424, 425, undefined, undefined]);
	assert.notEqual(feedback.packetResults.length, 10, 'the defect is gone: use packetResults');
});

test('the library answers NACKs by itself and keeps every packet in its estimator; both can be stopped', () => {
	const sender = new RTCRtpSender('video');
	const inside = sender as unknown as { rtpCache: unknown[]; senderBWE: { rtpPacketSent: (info: object) => void; sentInfos: object } };
	disableBuiltInResend(sender);
	inside.rtpCache[3] = 'a packet';
	inside.rtpCache = ['a packet'];
	assert.deepEqual(inside.rtpCache, []);
	const info = { wideSeq: 7, size: 100, sendingAtMs: 1, sentAtMs: 1 };
	inside.senderBWE.rtpPacketSent(info);
	assert.equal(Object.keys(inside.senderBWE.sentInfos).length, 1, 'the library keeps it no more: remove disableBuiltInEstimator');
	disableBuiltInEstimator(sender);
	inside.senderBWE.rtpPacketSent({ ...info, wideSeq: 8 });
	assert.equal(Object.keys(inside.senderBWE.sentInfos).length, 1);
	sender.stop();
});
