/** The arithmetic of the reference networks: plain loops over float64, row-major, as the formulas have it. */

export type Numbers = Float64Array | Float32Array;

const at = (numbers: ArrayLike<number>, index: number): number => numbers[index] ?? Number.NaN;

/** y = x W^T + b; x [rows, inputs], W [outputs, inputs], b [outputs]. */
export const linear = (x: Numbers, weight: Numbers, bias: Numbers | undefined, outputs: number): Float64Array => {
	const inputs = weight.length / outputs;
	const rows = x.length / inputs;
	const y = new Float64Array(rows * outputs);
	for (let row = 0; row < rows; row++) {
		for (let output = 0; output < outputs; output++) {
			let total = bias === undefined ? 0 : at(bias, output);
			for (let input = 0; input < inputs; input++) {
				total += at(x, row * inputs + input) * at(weight, output * inputs + input);
			}
			y[row * outputs + output] = total;
		}
	}
	return y;
};

export const map = (x: Numbers, change: (value: number, index: number) => number): Float64Array => Float64Array.from(x, change);
export const sum = (a: Numbers, b: Numbers): Float64Array => map(a, (value, index) => value + at(b, index));

export const relu = (value: number): number => (value > 0 || Number.isNaN(value) ? value : 0);
export const silu = (value: number): number => value / (1 + Math.exp(-value));
/** The tanh approximation of GELU. */
export const gelu = (value: number): number => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3)));

/** Each row of `width` numbers divided by its root mean square, times weight. */
export const rmsNorm = (x: Numbers, weight: Numbers, epsilon: number): Float64Array => {
	const width = weight.length;
	const y = new Float64Array(x.length);
	for (let row = 0; row < x.length; row += width) {
		let squares = 0;
		for (let index = 0; index < width; index++) {
			squares += at(x, row + index) ** 2;
		}
		for (let index = 0; index < width; index++) {
			y[row + index] = (at(x, row + index) / Math.sqrt(squares / width + epsilon)) * at(weight, index);
		}
	}
	return y;
};

/** Each row of `width` numbers shifted and scaled to mean 0 and variance 1. */
export const layerNorm = (x: Numbers, width: number, epsilon: number): Float64Array => {
	const y = new Float64Array(x.length);
	for (let row = 0; row < x.length; row += width) {
		let mean = 0;
		for (let index = 0; index < width; index++) {
			mean += at(x, row + index) / width;
		}
		let variance = 0;
		for (let index = 0; index < width; index++) {
			variance += (at(x, row + index) - mean) ** 2 / width;
		}
		for (let index = 0; index < width; index++) {
			y[row + index] = (at(x, row + index) - mean) / Math.sqrt(variance + epsilon);
		}
	}
	return y;
};

export type AttentionInputs = {
	/** [queries, heads * d] */
	readonly q: Numbers;
	/** [keys, heads * d] */
	readonly k: Numbers;
	readonly v: Numbers;
	readonly heads: number;
	readonly width: number;
	readonly scale: number;
	/** Added to a score; -Infinity hides the key. */
	readonly bias?: (head: number, query: number, key: number) => number;
};

/** softmax(q k^T * scale + bias) v, head by head: [queries, heads * d]. */
export const attention = ({ q, k, v, heads, width, scale, bias }: AttentionInputs): Float64Array => {
	const queries = q.length / width;
	const keys = k.length / width;
	const d = width / heads;
	const y = new Float64Array(q.length);
	for (let head = 0; head < heads; head++) {
		for (let query = 0; query < queries; query++) {
			const scores = Array.from({ length: keys }, (_, key) => {
				let dot = 0;
				for (let channel = head * d; channel < (head + 1) * d; channel++) {
					dot += at(q, query * width + channel) * at(k, key * width + channel);
				}
				return dot * scale + (bias === undefined ? 0 : bias(head, query, key));
			});
			const largest = Math.max(...scores);
			const weights = scores.map((score) => Math.exp(score - largest));
			const total = weights.reduce((running, weight) => running + weight, 0);
			for (let channel = head * d; channel < (head + 1) * d; channel++) {
				let mixed = 0;
				for (const [key, weight] of weights.entries()) {
					mixed += (weight / total) * at(v, key * width + channel);
				}
				y[query * width + channel] = mixed;
			}
		}
	}
	return y;
};

/** A picture of several channels, [channels, height, width]. */
export type Planes = { readonly channels: number; readonly height: number; readonly width: number; readonly data: Numbers };

/** Convolution with an odd kernel and zero padding that keeps the size; weight [outputs, channels, kernel, kernel]. */
export const convolution = (x: Planes, weight: Numbers, bias: Numbers, kernel: number): Planes => {
	const { channels, height, width } = x;
	const outputs = bias.length;
	const reach = (kernel - 1) / 2;
	const data = new Float64Array(outputs * height * width);
	for (let output = 0; output < outputs; output++) {
		for (let row = 0; row < height; row++) {
			for (let column = 0; column < width; column++) {
				let total = at(bias, output);
				for (let channel = 0; channel < channels; channel++) {
					for (let dy = 0; dy < kernel; dy++) {
						for (let dx = 0; dx < kernel; dx++) {
							const [y, z] = [row + dy - reach, column + dx - reach];
							if (y >= 0 && y < height && z >= 0 && z < width) {
								total += at(x.data, (channel * height + y) * width + z) * at(weight, ((output * channels + channel) * kernel + dy) * kernel + dx);
							}
						}
					}
				}
				data[(output * height + row) * width + column] = total;
			}
		}
	}
	return { channels: outputs, height, width, data };
};

/** PyTorch's pixel_shuffle(2): channel 4c + 2 dy + dx becomes pixel (2y + dy, 2x + dx) of channel c. */
export const pixelShuffle = ({ channels, height, width, data }: Planes): Planes => {
	const shuffled = new Float64Array(data.length);
	for (let channel = 0; channel < channels; channel++) {
		const [target, dy, dx] = [Math.floor(channel / 4), Math.floor(channel / 2) % 2, channel % 2];
		for (let row = 0; row < height; row++) {
			for (let column = 0; column < width; column++) {
				shuffled[(target * 2 * height + 2 * row + dy) * 2 * width + 2 * column + dx] = at(data, (channel * height + row) * width + column);
			}
		}
	}
	return { channels: channels / 4, height: 2 * height, width: 2 * width, data: shuffled };
};
