/**
 * RGB to I420 and back: ITU-R BT.709-6, limited ("narrow") range, 8 bits.
 *
 * Section 3 gives E'Y = 0.2126 R + 0.7152 G + 0.0722 B, E'CB = (B - Y) / 1.8556 and E'CR = (R - Y) / 1.5748; section 4 quantises them
 * to 16 + 219 E'Y and 128 + 224 E'C. Chroma samples are the mean of the four pixels they stand for (sited between them), and
 * are repeated for all four on the way back.
 */
import { i420Bytes } from '../base/frame.js';

const KR = 0.2126;
const KG = 0.7152;
const KB = 0.0722;
const CB_DIVISOR = 2 * (1 - KB);
const CR_DIVISOR = 2 * (1 - KR);
const LUMA_SCALE = 219 / 255;
const CHROMA_SCALE = 224 / 255;

const requireLength = (data: Uint8Array, bytes: number, width: number, height: number, what: string): void => {
	if (width % 2 !== 0 || height % 2 !== 0 || data.length !== bytes) {
		throw new RangeError(`${what} of ${width}x${height} needs even sides and ${bytes} bytes, not ${data.length}.`);
	}
};

/** `rgb` is interleaved, 3 bytes a pixel, row by row; gives planes Y, U, V one after the other. */
export const rgbToI420 = (rgb: Uint8Array, width: number, height: number): Uint8Array => {
	requireLength(rgb, width * height * 3, width, height, 'An RGB picture');
	// Clamped arrays round to the nearest.
	const output = new Uint8ClampedArray(i420Bytes(width, height));
	const chromaWidth = width / 2;
	const uStart = width * height;
	const vStart = uStart + chromaWidth * (height / 2);
	for (let y = 0; y < height; y += 2) {
		for (let x = 0; x < width; x += 2) {
			let red = 0;
			let green = 0;
			let blue = 0;
			for (const pixel of [y * width + x, y * width + x + 1, (y + 1) * width + x, (y + 1) * width + x + 1]) {
				const r = rgb[3 * pixel] as number;
				const g = rgb[3 * pixel + 1] as number;
				const b = rgb[3 * pixel + 2] as number;
				output[pixel] = 16 + LUMA_SCALE * (KR * r + KG * g + KB * b);
				red += r / 4;
				green += g / 4;
				blue += b / 4;
			}
			const luma = KR * red + KG * green + KB * blue;
			const chroma = (y / 2) * chromaWidth + x / 2;
			output[uStart + chroma] = 128 + (CHROMA_SCALE * (blue - luma)) / CB_DIVISOR;
			output[vStart + chroma] = 128 + (CHROMA_SCALE * (red - luma)) / CR_DIVISOR;
		}
	}
	return new Uint8Array(output.buffer);
};

/** Gives interleaved RGB, 3 bytes a pixel. */
export const i420ToRgb = (i420: Uint8Array, width: number, height: number): Uint8Array => {
	requireLength(i420, i420Bytes(width, height), width, height, 'An I420 picture');
	const output = new Uint8ClampedArray(width * height * 3);
	const chromaWidth = width / 2;
	const uStart = width * height;
	const vStart = uStart + chromaWidth * (height / 2);
	for (let y = 0; y < height; y += 1) {
		for (let x = 0; x < width; x += 1) {
			const pixel = y * width + x;
			const chroma = (y >> 1) * chromaWidth + (x >> 1);
			const luma = ((i420[pixel] as number) - 16) / LUMA_SCALE;
			const red = luma + (((i420[vStart + chroma] as number) - 128) * CR_DIVISOR) / CHROMA_SCALE;
			const blue = luma + (((i420[uStart + chroma] as number) - 128) * CB_DIVISOR) / CHROMA_SCALE;
			output[3 * pixel] = red;
			output[3 * pixel + 1] = (luma - KR * red - KB * blue) / KG;
			output[3 * pixel + 2] = blue;
		}
	}
	return new Uint8Array(output.buffer);
};
