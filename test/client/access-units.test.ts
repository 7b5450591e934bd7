/** Packets of a stream back into pictures, however they arrive. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AccessUnits, type NodeCodec, type Packet } from '../../client/node/access-units.js';

/** Key frames are an IDR unit in fragments (RFC 6184 section 5.8), others one unit of type 1. */
const h264 = (sequence: number, timestamp: number, part: 'key-first' | 'key-later' | 'delta', marker: boolean): Packet => ({
	header: { sequenceNumber: sequence & 0xffff, timestamp, marker },
	payload: Buffer.from(part === 'delta' ? [0x61, 1] : [0x7c, part === 'key-first' ? 0x85 : 0x05, 1]),
});

const collect = (codec: NodeCodec, packets: readonly Packet[]) => {
	const units: string[] = [];
	let losses = 0;
	const assembly = new AccessUnits(codec, {
		onUnit: ({ rtpTimestamp, packets: parts, isKeyframe }) => units.push(`${rtpTimestamp}:${parts.length}${isKeyframe ? 'k' : ''}`),
		onLoss: () => {
			losses += 1;
		},
	});
	packets.forEach((packet) => assembly.add(packet));
	return { units, losses };
};

const stream = (start: number): Packet[] => [
	h264(start, 100, 'key-first', false), h264(start + 1, 100, 'key-later', true), h264(start + 2, 200, 'delta', true), h264(start + 3, 300, 'delta', false), h264(start + 4, 300, 'delta', true), h264(start + 5, 400, 'delta', true),
];

test('packets in order, out of order, twice and across the wrap give the same pictures in order', () => {
	const expected = ['100:2k', '200:1', '300:2', '400:1'];
	for (const start of [10, 65_533]) {
		const [a, b, c, d, e, f] = stream(start) as [Packet, Packet, Packet, Packet, Packet, Packet];
		assert.deepEqual(collect('h264', [a, b, c, d, e, f]).units, expected);
		assert.deepEqual(collect('h264', [b, a, d, c, f, e]).units, expected);
		assert.deepEqual(collect('h264', [a, a, b, c, b, d, e, e, f]).units, expected);
	}
});

test('nothing is given before a key frame, and a picture that waits for a packet holds those after it', () => {
	const [a, b, c, d, e, f] = stream(10) as [Packet, Packet, Packet, Packet, Packet, Packet];
	assert.deepEqual(collect('h264', [c, d, e]).units, []);
	assert.deepEqual(collect('h264', [h264(9, 50, 'delta', true), a, b, c]).units, ['100:2k', '200:1']);
	assert.deepEqual(collect('h264', [a, b, d, e, f]).units, ['100:2k']);
});

test('a packet that never comes leaves its picture and those that build on it out, up to the next key frame', () => {
	const packets = [h264(0, 0, 'key-first', false), h264(1, 0, 'key-later', true)];
	for (let sequence = 3; sequence < 300; sequence += 1) {
		packets.push(h264(sequence, sequence * 100, 'delta', true));
	}
	const before = collect('h264', packets);
	assert.deepEqual(before.units, ['0:2k']);
	assert.ok(before.losses > 0);
	const after = collect('h264', [...packets, h264(300, 30_000, 'key-first', false), h264(301, 30_000, 'key-later', true), h264(302, 30_100, 'delta', true)]);
	assert.deepEqual(after.units, ['0:2k', '30000:2k', '30100:1']);
});

test('key frames of VP8 are told by the frame tag behind a descriptor of any length', () => {
	const vp8 = (sequence: number, timestamp: number, payload: number[]): Packet => ({ header: { sequenceNumber: sequence, timestamp, marker: true }, payload: Buffer.from(payload) });
	const { units } = collect('vp8', [
		vp8(1, 100, [0x10, 0x10]), vp8(2, 200, [0x10, 0x11]), vp8(3, 300, [0x90, 0x80, 0x05, 0x10]), vp8(4, 400, [0x90, 0x80, 0x85, 0x05, 0x11]), vp8(5, 500, [0x90, 0xe0, 0x05, 0x01, 0x20, 0x10]),
	]);
	assert.deepEqual(units, ['100:1k', '200:1', '300:1k', '400:1', '500:1k']);
});
