/** The tensors of one case, by name; whatever is missing or has another shape is said with its name. */
import { readFloats, type Safetensors, type TensorEntry } from '../model/safetensors.js';
import { TurbocastError } from '../protocol/errors.js';

/** A size that must be met, or any (`undefined`). */
type Expected = readonly (number | undefined)[];

export class GoldenTensors {
	readonly #file: Safetensors;

	constructor(file: Safetensors) {
		this.#file = file;
	}

	/** How messages call the file. */
	get label(): string {
		return this.#file.label;
	}

	has(name: string): boolean {
		return this.#file.tensors.has(name);
	}

	/** Throws `model_invalid` when there is no such tensor, or when it has another shape. */
	shape(name: string, expected?: Expected): readonly number[] {
		return this.#entry(name, expected).shape;
	}

	/** F32, BF16 or F64 as float32. */
	floats(name: string, expected?: Expected): Float32Array {
		const entry = this.#entry(name, expected);
		return entry.dtype === 'F64' ? Float32Array.from(new Float64Array(this.#bytes(entry).buffer)) : readFloats(this.#file, entry);
	}

	/** F64, F32 or BF16. */
	doubles(name: string, expected?: Expected): Float64Array {
		const entry = this.#entry(name, expected);
		return entry.dtype === 'F64' ? new Float64Array(this.#bytes(entry).buffer) : Float64Array.from(readFloats(this.#file, entry));
	}

	/** Any of the integer types, or BOOL (0 or 1). */
	integers(name: string, expected?: Expected): number[] {
		const entry = this.#entry(name, expected);
		const { buffer } = this.#bytes(entry);
		switch (entry.dtype) {
			case 'I64':
				return Array.from(new BigInt64Array(buffer), Number);
			case 'I32':
				return Array.from(new Int32Array(buffer));
			case 'I16':
				return Array.from(new Int16Array(buffer));
			case 'I8':
				return Array.from(new Int8Array(buffer));
			case 'U8':
			case 'BOOL':
				return Array.from(new Uint8Array(buffer));
			default:
				throw new TurbocastError('model_invalid', `${this.label}: ${name} is ${entry.dtype}; whole numbers are expected.`);
		}
	}

	#bytes({ offset, byteLength }: TensorEntry): Uint8Array<ArrayBuffer> {
		return new Uint8Array(this.#file.bytes.subarray(offset, offset + byteLength));
	}

	#entry(name: string, expected?: Expected): TensorEntry {
		const entry = this.#file.tensors.get(name);
		if (entry === undefined) {
			throw new TurbocastError('model_invalid', `${this.label} has no tensor ${name}, which its kind asks for.`);
		}
		if (expected !== undefined && (expected.length !== entry.shape.length || expected.some((size, axis) => size !== undefined && size !== entry.shape[axis]))) {
			throw new TurbocastError('model_invalid', `${this.label}: ${name} is [${entry.shape.join(', ')}], but [${expected.map((size) => size ?? 'any').join(', ')}] is expected.`);
		}
		return entry;
	}
}
