import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Encodes, LEAST_SMALL_BPS, RateFollower } from '../../src/server/encodes.js';
import { halfSide, halveI420 } from '../../src/media/halve.js';
import { MemoryViewer } from './memory-transport.js';

const viewer = (bandwidthBps?: number): MemoryViewer => {
	const made = new MemoryViewer('viewer');
	made.bandwidthBps = bandwidthBps;
	return made;
};

const encodes = (): Encodes => new Encodes({ floorBps: 300_000, mostBps: 1_200_000 });

test('the rate follows the slowest viewer, between the floor and the most', () => {
	const all = encodes();
	assert.equal(all.rateFor('h264', [viewer(), viewer()]), 1_200_000);
	assert.equal(all.rateFor('h264', [viewer(), viewer(700_000), viewer(900_000)]), 700_000);
	assert.equal(all.rateFor('h264', [viewer(200_000)]), 300_000);
	assert.equal(all.rateFor('h264-small', [viewer(200_000), viewer(150_000)]), 150_000);
	assert.equal(all.rateFor('h264-small', [viewer(1000)]), LEAST_SMALL_BPS);
	assert.equal(all.rateFor('h264-small', [viewer()]), 300_000);
	const odd = new Encodes({ floorBps: 300_000, mostBps: 200_000 });
	assert.deepEqual([odd.rateFor('h264', [viewer()]), odd.rateFor('h264-small', [viewer()])], [200_000, 200_000]);
});

test('a viewer below the floor gets the small encode, and goes back when its way has carried more for a while', () => {
	const all = encodes();
	const slow = viewer(800_000);
	assert.equal(all.update(slow, 0), false);
	assert.equal(all.of(slow), 'h264');
	slow.bandwidthBps = 250_000;
	assert.equal(all.update(slow, 100), false, 'a dip is not enough');
	assert.equal(all.update(slow, 1000), false);
	assert.equal(all.update(slow, 1100), true);
	assert.equal(all.of(slow), 'h264-small');
	assert.equal(all.update(slow, 1200), false, 'it moves once');
	const verySlow = viewer(100_000);
	assert.equal(all.update(verySlow, 0), true, 'far below the floor it moves at once');
	slow.bandwidthBps = 350_000;
	assert.equal(all.update(slow, 10_000), false, 'a little above the floor is not enough');
	slow.bandwidthBps = undefined;
	assert.equal(all.update(slow, 11_000), false);
	assert.equal(all.update(slow, 13_900), false);
	slow.bandwidthBps = 310_000;
	assert.equal(all.update(slow, 14_000), false, 'not without a break');
	slow.bandwidthBps = 900_000;
	assert.equal(all.update(slow, 15_000), false);
	assert.equal(all.update(slow, 18_000), true);
	assert.equal(all.of(slow), 'h264');
});

test('a rate that costs nothing is followed closely; one that costs a key frame down at once and up seldom', () => {
	const free = new RateFollower(1_000_000, false);
	assert.equal(free.follow(970_000, 0), false);
	assert.equal(free.follow(900_000, 0), true);
	assert.equal(free.bps, 900_000);
	const costly = new RateFollower(1_000_000, true);
	assert.equal(costly.follow(900_000, 0), false);
	assert.equal(costly.follow(700_000, 100), true);
	assert.equal(costly.follow(1_000_000, 4000), false);
	assert.equal(costly.follow(1_000_000, 6000), true);
});

test('half of a picture: each pixel the mean of four, in all three planes', () => {
	// 8x4: luma counts up, chroma is flat.
	const [width, height] = [8, 4];
	const data = Uint8Array.from([...Array.from({ length: 32 }, (_, index) => index * 4), ...new Array<number>(8).fill(90), ...new Array<number>(8).fill(200)]);
	const half = halveI420(data, width, height);
	assert.equal(half.length, (4 * 2 * 3) / 2);
	assert.deepEqual([...half.subarray(0, 4)], [18, 26, 34, 42]);
	assert.deepEqual([...half.subarray(8)], [90, 90, 200, 200]);
	assert.equal(halfSide(832), 416);
	assert.equal(halfSide(90), 44);
});
