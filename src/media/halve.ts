/** Half of a picture's width and height, each pixel the mean of four. */

/** Of either side of a picture whose sides are even: half, made even again. */
export const halfSide = (pixels: number): number => 2 * Math.floor(pixels / 4);

const halvePlane = (from: Uint8Array, fromAt: number, stride: number, to: Uint8Array, toAt: number, width: number, height: number): void => {
	for (let y = 0; y < height; y += 1) {
		let above = fromAt + 2 * y * stride;
		let out = toAt + y * width;
		for (let x = 0; x < width; x += 1) {
			to[out] = ((from[above] ?? 0) + (from[above + 1] ?? 0) + (from[above + stride] ?? 0) + (from[above + stride + 1] ?? 0) + 2) >> 2;
			above += 2;
			out += 1;
		}
	}
};

/** I420 of (height, width) to I420 of (halfSide(height), halfSide(width)). */
export const halveI420 = (data: Uint8Array, width: number, height: number): Uint8Array => {
	const [halfWidth, halfHeight] = [halfSide(width), halfSide(height)];
	const luma = halfWidth * halfHeight;
	const half = new Uint8Array((luma * 3) / 2);
	halvePlane(data, 0, width, half, 0, halfWidth, halfHeight);
	for (const plane of [0, 1]) {
		halvePlane(data, width * height + (plane * width * height) / 4, width / 2, half, luma + (plane * luma) / 4, halfWidth / 2, halfHeight / 2);
	}
	return half;
};
