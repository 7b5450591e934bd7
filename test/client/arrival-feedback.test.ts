/** Feedback of the receiver in Node, read as the server reads it; and the library's own, which it stands in for. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { RtcpPacketConverter, RtcpTransportLayerFeedback, TransportWideCC } from 'werift';
import { ArrivalFeedback } from '../../client/node/arrival-feedback.js';
import { readTransportFeedback, type PacketReport } from '../../src/transport/rtcp-repair.js';
import { createRandom } from '../model/random-model.js';

const read = (packet: Buffer): PacketReport[] =>
	RtcpPacketConverter.deSerialize(packet).flatMap((parsed) =>
		(parsed instanceof RtcpTransportLayerFeedback && parsed.feedback instanceof TransportWideCC ? readTransportFeedback(parsed.feedback) : []));

const wide = (packet: Buffer | undefined): PacketReport[] => {
	assert.ok(packet !== undefined);
	assert.equal(packet.length, 4 * (packet.readUInt16BE(2) + 1));
	return read(packet);
};

test('what arrived, what is missing, and when, across the wrap of numbers and of times', () => {
	const random = createRandom(3);
	// Reference times have 24 bits of 64 ms: they wrap after 12.4 days.
	const startMs = 0x1000000 * 64 - 5000;
	const feedback = new ArrivalFeedback(1, 2);
	const arrivals = new Map<number, number>();
	const told = new Map<number, number | undefined>();
	let nowMs = startMs;
	let number = 64_000;
	while (number < 64_000 + 70_000) {
		const group = 1 + Math.floor(random() * 40);
		const numbers = Array.from({ length: group }, (_, index) => number + index).filter(() => random() > 0.1);
		number += group;
		// Some are overtaken.
		numbers.sort((a, b) => a - b + 6 * (random() - 0.5));
		for (const one of numbers) {
			nowMs += random() < 0.05 ? 90 * random() : random();
			arrivals.set(one, nowMs);
			feedback.arrived(one & 0xffff, nowMs);
		}
		const packet = feedback.take(nowMs);
		if (numbers.length === 0) {
			assert.equal(packet, undefined);
			continue;
		}
		for (const { sequence, arrivedAtMs } of wide(packet)) {
			const near = number - 1 - ((number - 1 - sequence) & 0xffff);
			if (arrivedAtMs !== undefined || !told.has(near)) {
				told.set(near, arrivedAtMs);
			}
		}
	}
	const last = Math.max(...arrivals.keys());
	for (let at = Math.min(...arrivals.keys()); at <= last; at += 1) {
		const arrivedMs = arrivals.get(at);
		const toldMs = told.get(at);
		assert.ok(told.has(at), `nothing was told of ${at}`);
		assert.equal(toldMs === undefined, arrivedMs === undefined, String(at));
		if (arrivedMs !== undefined && toldMs !== undefined) {
			assert.ok(Math.abs((arrivedMs % (0x1000000 * 64)) - (toldMs % (0x1000000 * 64))) < 0.2, `${at}: ${arrivedMs} was told as ${toldMs}`);
		}
	}
});

test('each arrival is told once, a packet that was overtaken with those around it, and after a long silence no more than the limit', () => {
	const feedback = new ArrivalFeedback(1, 2);
	assert.equal(feedback.take(0), undefined);
	[10, 11, 13].forEach((number) => feedback.arrived(number, 100));
	assert.deepEqual(wide(feedback.take(100)).map(({ sequence, arrivedAtMs }) => [sequence, arrivedAtMs]), [[10, 100], [11, 100], [12, undefined], [13, 100]]);
	assert.equal(feedback.take(120), undefined);
	feedback.arrived(13, 130);
	assert.equal(feedback.take(130), undefined, 'a copy is nothing new');
	feedback.arrived(12, 140);
	feedback.arrived(14, 150);
	assert.deepEqual(wide(feedback.take(150)).map(({ sequence, arrivedAtMs }) => [sequence, arrivedAtMs]), [[12, 140], [13, 100], [14, 150]]);
	feedback.arrived(20_000, 5000);
	const reports = wide(feedback.take(5000));
	assert.equal(reports.length, 512);
	assert.deepEqual(reports.at(-1), { sequence: 20_000, arrivedAtMs: 5000 });
});

test('the library\'s own feedback cannot be read (fails when it can: then arrival-feedback.ts can go)', () => {
	type Own = { handleTWCC: (number: number) => void };
	const { ReceiverTWCC } = createRequire(import.meta.resolve('werift'))('./webrtc/src/media/receiver/receiverTwcc.js') as {
		readonly ReceiverTWCC: new (transport: { sendRtcp: (packets: readonly { serialize: () => Buffer }[]) => Promise<void> }, sender: number, media: number) => Own;
	};
	const packets: Buffer[] = [];
	const own = new ReceiverTWCC({ sendRtcp: (sent) => Promise.resolve(void packets.push(...sent.map((packet) => packet.serialize()))) }, 1, 2);
	for (let number = 0; number < 110; number += 1) {
		own.handleTWCC(number);
	}
	assert.equal(packets.length, 10);
	const readable = packets.filter((packet) => {
		try {
			return read(packet).length > 0;
		} catch {
			return false;
		}
	});
	assert.ok(readable.length < packets.length, 'every one of them can be read');
});
