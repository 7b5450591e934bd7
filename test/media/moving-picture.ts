/**
 * Test input: a textured ground that pans, and a bright square that runs over it. Not a picture of any model. `grain` adds noise
 * of that amplitude, new in every frame, so that an encoder needs all the rate it may have.
 */
import { i420Bytes, type RawFrame } from '../../src/base/frame.js';

export const movingPicture = (frameId: number, width: number, height: number, grain = 0): RawFrame => {
	const data = new Uint8Array(i420Bytes(width, height)).fill(128);
	const side = Math.floor(height / 4);
	const left = (frameId * 5) % (width - side);
	const top = (frameId * 3) % (height - side);
	for (let y = 0; y < height; y += 1) {
		for (let x = 0; x < width; x += 1) {
			const inside = x >= left && x < left + side && y >= top && y < top + side;
			data[y * width + x] = inside ? 210 : 100 + Math.round(40 * Math.sin((x + 2 * frameId) / 9) + 25 * Math.cos((y + x / 2) / 7));
		}
	}
	let state = frameId + 1;
	for (let index = 0; grain > 0 && index < width * height; index += 1) {
		// Numerical Recipes' linear congruential generator: the same grain on every run.
		state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
		data[index] = (data[index] as number) + Math.round(grain * (state / 2 ** 31 - 1));
	}
	for (let index = 0; index < (width * height) / 4; index += 1) {
		const x = (index % (width / 2)) / (width / 2);
		data[width * height + index] = 100 + Math.round(50 * x);
		data[(width * height * 5) / 4 + index] = 150 - Math.round(40 * x);
	}
	return { frameId, chunkIndex: Math.floor(frameId / 8), indexInChunk: frameId % 8, width, height, data, generatedAtMs: frameId * 62.5 };
};
