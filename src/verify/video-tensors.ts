/** Video as golden tensors have it, [C, T, ...], and as a stream has it, [T, C, ...]. */
import type { VideoFrames } from '../engine/video-codec.js';

/** [a, b, ...] to [b, a, ...]. */
export const swapFirstAxes = (data: Float32Array, a: number, b: number): Float32Array => {
	const size = data.length / (a * b);
	const swapped = new Float32Array(data.length);
	for (let i = 0; i < a; i++) {
		for (let j = 0; j < b; j++) {
			swapped.set(data.subarray((i * b + j) * size, (i * b + j + 1) * size), (j * a + i) * size);
		}
	}
	return swapped;
};

/** The parts of a stream as one clip. */
export const joinFrames = (parts: readonly VideoFrames[]): VideoFrames => {
	const data = new Float32Array(parts.reduce((sum, part) => sum + part.data.length, 0));
	let offset = 0;
	for (const part of parts) {
		data.set(part.data, offset);
		offset += part.data.length;
	}
	return { count: parts.reduce((sum, part) => sum + part.count, 0), height: parts[0]?.height ?? 0, width: parts[0]?.width ?? 0, data };
};
