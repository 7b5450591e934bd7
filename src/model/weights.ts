/** Weights as a graph sees them: where they are stored when they can stay there, or made anew from their numbers. */
import { GraphBuilder, rootLocation, type Scratch, type Value } from './graph-builder.js';
import { cast, gather } from './operators.js';
import { readTiles, tileEntries, untiledShapes } from './quant-checkpoint.js';
import { type MappedSafetensors, readFloats, type Safetensors, tensorEntry, type TensorEntry } from './safetensors.js';
import { dequantizeTiles } from './w8a8.js';
import { TurbocastError } from '../protocol/errors.js';

const product = (shape: readonly number[]): number => shape.reduce((total, dimension) => total * dimension, 1);

export class Weights {
	readonly #file: Safetensors | MappedSafetensors;
	readonly #scratch: Scratch | undefined;

	/** A graph over a file on disk needs a scratch file for what it makes of the weights. */
	constructor(file: Safetensors | MappedSafetensors, scratch?: Scratch) {
		this.#file = file;
		this.#scratch = scratch;
	}

	/** The start of a graph over these weights. */
	graph(name: string): GraphBuilder {
		return new GraphBuilder(name, this.#scratch);
	}

	/** How messages call the file. */
	get label(): string {
		return this.#file.label;
	}

	/** Names and shapes of all tensors; a weight in 8-bit tiles counts as the weight. */
	get shapes(): ReadonlyMap<string, readonly number[]> {
		return untiledShapes(this.#file);
	}

	has(name: string): boolean {
		return this.shapes.has(name);
	}

	/** The numbers of a tensor, those in 8-bit tiles too. Throws `model_invalid` when it is missing or has another shape. */
	floats(name: string, shape: readonly number[]): Float32Array {
		const tiles = readTiles(this.#file, name, shape);
		return tiles !== undefined ? dequantizeTiles(tiles) : readFloats(this.#file, tensorEntry(this.#file, name, shape));
	}

	/** Rows of a table [n, width] by index, as float32: of a table in bfloat16 only those are converted. */
	rows(g: GraphBuilder, name: string, shape: readonly [number, number], indices: Value): Value {
		const { dtype, offset, byteLength } = tensorEntry(this.#file, name, shape);
		if (dtype !== 'BF16') {
			return gather(g, `${name}/rows`, this.value(g, name, shape), indices);
		}
		return cast(g, `${name}/rows/float32`, gather(g, `${name}/rows`, g.stored(name, { ...this.#place(), type: 'bfloat16', offset, length: byteLength }, shape), indices), 'float32');
	}

	/** The tensor as a value of the graph, its bytes left where they are unless they are tiles; `dims` may regroup its elements. */
	value(g: GraphBuilder, name: string, shape: readonly number[], dims = shape): Value {
		const tiles = readTiles(this.#file, name, shape);
		if (tiles !== undefined) {
			return g.floats(name, dims, dequantizeTiles(tiles));
		}
		const { dtype, offset, byteLength } = tensorEntry(this.#file, name, shape);
		if (product(dims) !== product(shape)) {
			g.fail(name, `[${shape.join(', ')}] cannot be read as [${dims.join(', ')}]`);
		}
		const stored = { ...this.#place(), offset, length: byteLength };
		switch (dtype) {
			case 'F32':
				return g.stored(name, { ...stored, type: 'float32' }, dims);
			case 'BF16':
				// Folded into a float32 constant when the graph is loaded.
				return cast(g, `${name}/float32`, g.stored(name, { ...stored, type: 'bfloat16' }, dims), 'float32');
			default:
				throw new TurbocastError('model_invalid', `${this.#file.label}: ${name} is ${dtype}; weights must be F32 or BF16.`);
		}
	}

	/** The 8-bit tiles of a weight [outputs, inputs] and their scales, both left where they are; `undefined` when it is stored otherwise. Throws `model_invalid`. */
	tiles(g: GraphBuilder, name: string, shape: readonly [number, number]): { readonly values: Value; readonly scales: Value } | undefined {
		const entries = tileEntries(this.#file, name, shape);
		if (entries === undefined) {
			return undefined;
		}
		const stored = (suffix: string, { offset, byteLength }: TensorEntry, type: 'int8' | 'float32', dims: readonly number[]): Value =>
			g.stored(`${name}/${suffix}`, { ...this.#place(), type, offset, length: byteLength }, dims);
		const { scales } = entries;
		return {
			values: stored('int8', entries.values, 'int8', shape),
			scales: scales.dtype === 'F32' ? stored('scale', scales, 'float32', scales.shape) : g.floats(`${name}/scale`, scales.shape, readFloats(this.#file, scales)),
		};
	}

	/** As `value`, rounded to float16 when the graph is loaded. */
	half(g: GraphBuilder, name: string, shape: readonly number[], dims = shape): Value {
		return cast(g, `${name}/float16`, this.value(g, name, shape, dims), 'float16');
	}

	#place(): { readonly location: string; readonly file: Uint8Array | string } {
		const file = this.#file;
		return 'bytes' in file ? { location: file.label, file: file.bytes } : { location: rootLocation(file.path), file: file.path };
	}
}
