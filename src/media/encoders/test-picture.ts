/** A picture of the self-tests: soft waves that move, so that an encoder has something to predict, in colours that differ in both chroma planes. */
import { i420Bytes } from '../../base/frame.js';

/** I420, `width * height * 3 / 2` bytes; both sides even. */
export const testPicture = (index: number, width: number, height: number): Uint8Array => {
	const data = new Uint8Array(i420Bytes(width, height));
	for (let y = 0; y < height; y += 1) {
		for (let x = 0; x < width; x += 1) {
			data[y * width + x] = 120 + Math.round(50 * Math.sin((x + 3 * index) / 13) + 30 * Math.cos((y - 2 * index) / 11));
		}
	}
	const [halfWidth, halfHeight] = [width / 2, height / 2];
	for (let y = 0; y < halfHeight; y += 1) {
		for (let x = 0; x < halfWidth; x += 1) {
			data[width * height + y * halfWidth + x] = 90 + Math.round((60 * x) / halfWidth);
			data[width * height + halfWidth * halfHeight + y * halfWidth + x] = 170 - Math.round((60 * y) / halfHeight);
		}
	}
	return data;
};
