/**
 * Writes the few ONNX message types that we use, in protocol buffer wire format. Field numbers are those of `onnx.proto`
 * (IR version 11); every message is a chain of (tag, value) where tag = field number * 8 + wire type.
 */

/** The version that belongs to opset 23. */
const IR_VERSION = 11;

const WIRE = { varint: 0, bytes: 2, fixed32: 5 } as const;

/** onnx.TensorProto.DataType. */
export const ELEMENT_TYPES = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7, bool: 9, float16: 10, bfloat16: 16 } as const;
export type ElementType = keyof typeof ELEMENT_TYPES;

export const ELEMENT_BYTES: { readonly [T in ElementType]: number } = { float32: 4, uint8: 1, int8: 1, int32: 4, int64: 8, bool: 1, float16: 2, bfloat16: 2 };

/** onnx.AttributeProto.AttributeType. */
const ATTRIBUTE_TYPES = { float: 1, int: 2, string: 3, floats: 6, ints: 7 } as const;

export type Attribute =
	| { readonly float: number }
	| { readonly int: number }
	| { readonly string: string }
	| { readonly ints: readonly number[] };

export type NodeProto = {
	readonly op: string;
	/** `''` for the standard operators. */
	readonly domain: string;
	readonly name: string;
	/** `''` for an input that is left out. */
	readonly inputs: readonly string[];
	readonly outputs: readonly string[];
	readonly attributes: { readonly [name: string]: Attribute };
};

export type TensorProto = {
	readonly name: string;
	readonly type: ElementType;
	readonly dims: readonly number[];
	readonly data: { readonly raw: Uint8Array } | { readonly location: string; readonly offset: number; readonly length: number };
};

export type ValueProto = { readonly name: string; readonly type: ElementType; readonly dims: readonly (number | string)[] };

export type ModelProto = {
	readonly name: string;
	readonly nodes: readonly NodeProto[];
	readonly initializers: readonly TensorProto[];
	readonly inputs: readonly ValueProto[];
	readonly outputs: readonly ValueProto[];
	/** Version by domain. */
	readonly opsets: { readonly [domain: string]: number };
};

class MessageWriter {
	readonly #parts: Uint8Array[] = [];

	/** Base 128, least significant group first; our numbers are never negative except attributes, which take ten bytes. */
	#varint(value: number | bigint): void {
		const bytes: number[] = [];
		for (let rest = BigInt.asUintN(64, BigInt(value)); ;) {
			const low = Number(rest & 0x7fn);
			rest >>= 7n;
			bytes.push(rest === 0n ? low : low | 0x80);
			if (rest === 0n) {
				break;
			}
		}
		this.#parts.push(Uint8Array.from(bytes));
	}

	int(field: number, value: number | bigint): this {
		this.#varint(field * 8 + WIRE.varint);
		this.#varint(value);
		return this;
	}

	float(field: number, value: number): this {
		this.#varint(field * 8 + WIRE.fixed32);
		const bytes = new Uint8Array(4);
		new DataView(bytes.buffer).setFloat32(0, value, true);
		this.#parts.push(bytes);
		return this;
	}

	bytes(field: number, value: Uint8Array): this {
		this.#varint(field * 8 + WIRE.bytes);
		this.#varint(value.length);
		this.#parts.push(value);
		return this;
	}

	string(field: number, value: string): this {
		return this.bytes(field, new TextEncoder().encode(value));
	}

	message(field: number, write: (inner: MessageWriter) => void): this {
		const inner = new MessageWriter();
		write(inner);
		return this.bytes(field, inner.finish());
	}

	finish(): Uint8Array {
		const whole = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
		let offset = 0;
		for (const part of this.#parts) {
			whole.set(part, offset);
			offset += part.length;
		}
		return whole;
	}
}

const writeAttribute = (writer: MessageWriter, name: string, attribute: Attribute): void => {
	writer.string(1, name);
	if ('float' in attribute) {
		writer.float(2, attribute.float).int(20, ATTRIBUTE_TYPES.float);
	} else if ('int' in attribute) {
		writer.int(3, attribute.int).int(20, ATTRIBUTE_TYPES.int);
	} else if ('string' in attribute) {
		writer.string(4, attribute.string).int(20, ATTRIBUTE_TYPES.string);
	} else {
		for (const value of attribute.ints) {
			writer.int(8, value);
		}
		writer.int(20, ATTRIBUTE_TYPES.ints);
	}
};

const writeNode = (writer: MessageWriter, node: NodeProto): void => {
	for (const input of node.inputs) {
		writer.string(1, input);
	}
	for (const output of node.outputs) {
		writer.string(2, output);
	}
	writer.string(3, node.name).string(4, node.op);
	for (const [name, attribute] of Object.entries(node.attributes)) {
		writer.message(5, (inner) => writeAttribute(inner, name, attribute));
	}
	writer.string(7, node.domain);
};

const writeTensor = (writer: MessageWriter, tensor: TensorProto): void => {
	for (const dimension of tensor.dims) {
		writer.int(1, dimension);
	}
	writer.int(2, ELEMENT_TYPES[tensor.type]).string(8, tensor.name);
	if ('raw' in tensor.data) {
		writer.bytes(9, tensor.data.raw);
		return;
	}
	for (const [key, value] of Object.entries(tensor.data)) {
		writer.message(13, (entry) => entry.string(1, key).string(2, String(value)));
	}
	writer.int(14, 1); // data_location = EXTERNAL
};

const writeValue = (writer: MessageWriter, value: ValueProto): void => {
	writer.string(1, value.name).message(2, (type) =>
		type.message(1, (tensor) =>
			tensor.int(1, ELEMENT_TYPES[value.type]).message(2, (shape) => {
				for (const dimension of value.dims) {
					shape.message(1, (inner) => (typeof dimension === 'number' ? inner.int(1, dimension) : inner.string(2, dimension)));
				}
			})));
};

/** A serialised `onnx.ModelProto`. */
export const encodeModel = (model: ModelProto): Uint8Array => {
	const writer = new MessageWriter().int(1, IR_VERSION).string(2, 'turbocast').message(7, (graph) => {
		for (const node of model.nodes) {
			graph.message(1, (inner) => writeNode(inner, node));
		}
		graph.string(2, model.name);
		for (const tensor of model.initializers) {
			graph.message(5, (inner) => writeTensor(inner, tensor));
		}
		for (const input of model.inputs) {
			graph.message(11, (inner) => writeValue(inner, input));
		}
		for (const output of model.outputs) {
			graph.message(12, (inner) => writeValue(inner, output));
		}
	});
	for (const [domain, version] of Object.entries(model.opsets)) {
		writer.message(8, (opset) => opset.string(1, domain).int(2, version));
	}
	return writer.finish();
};
