/**
 * Rotary position embedding in three dimensions (Wan 2.1): of the d channels of a head, d - 4 floor(d / 6) turn with time, 2 floor(d / 6)
 * each with height and width. Tables are made on the host in float64, so that a stream may run for ever.
 */

export type RopeGrid = {
	/** Position of the first latent frame in the stream. */
	readonly firstPosition: number;
	/** Latent frames, rows and columns of tokens. */
	readonly frames: number;
	readonly rows: number;
	readonly columns: number;
};

/** Channels of a head that turn with [time, height, width]. */
export const ropeAxes = (headDim: number): [number, number, number] => {
	const side = 2 * Math.floor(headDim / 6);
	return [headDim - 2 * side, side, side];
};

/** Cosines and sines [frames * rows * columns, headDim / 2], tokens in the order (frame, row, column). */
export const ropeTables = (headDim: number, theta: number, grid: RopeGrid): { cos: Float32Array; sin: Float32Array } => {
	const { firstPosition, frames, rows, columns } = grid;
	const half = headDim / 2;
	const cos = new Float32Array(frames * rows * columns * half);
	const sin = new Float32Array(cos.length);
	const axes = ropeAxes(headDim);
	let index = 0;
	for (let frame = 0; frame < frames; frame++) {
		for (let row = 0; row < rows; row++) {
			for (let column = 0; column < columns; column++) {
				const position = [firstPosition + frame, row, column];
				for (const [axis, channels] of axes.entries()) {
					for (let pair = 0; pair < channels / 2; pair++) {
						const angle = (position[axis] ?? 0) * theta ** ((-2 * pair) / channels);
						cos[index] = Math.cos(angle);
						sin[index] = Math.sin(angle);
						index += 1;
					}
				}
			}
		}
	}
	return { cos, sin };
};
