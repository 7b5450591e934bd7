/**
 * Builds an ONNX graph node by node. Every node has a name (blk0/attn/qk) that errors carry, every value a type and a shape
 * that are known while building; the operators themselves, one function each, are in `operators.ts`.
 */
import { parse, relative } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';
import type { Dimension, ExternalData, Graph, GraphValue, Operation, TensorType } from './graph.js';
import { type Attribute, ELEMENT_BYTES, type ElementType, encodeModel, type NodeProto, type TensorProto } from './onnx-proto.js';

/** A value inside a graph. Shapes are row-major; text is a symbolic dimension. */
export type Value = { readonly name: string; readonly type: ElementType; readonly dims: readonly Dimension[] };

/** Bytes of a tensor inside a larger buffer that the graph will refer to. */
export type StoredTensor = {
	readonly location: string;
	/** The bytes, or the path of the file that has them. */
	readonly file: Uint8Array | string;
	readonly type: ElementType;
	readonly offset: number;
	readonly length: number;
};

/** A file that takes constants as they are made, so that those of a large network are not held in memory. */
export type Scratch = {
	readonly path: string;
	/** Appends; returns the offset of the first byte, a multiple of 64. */
	readonly append: (bytes: Uint8Array) => number;
};

export type NodeOptions = {
	readonly op: string;
	readonly name: string;
	readonly domain?: string;
	readonly inputs: readonly (Value | undefined)[];
	readonly attributes?: { readonly [name: string]: Attribute };
	/** Makes the result an output of the graph under this name, without a copy: so it may be written where an input lies. */
	readonly output?: string;
	readonly type: ElementType;
	readonly dims: readonly Dimension[];
};

/** Opset 23 brought RMSNormalization and RotaryEmbedding; nothing newer is used, so that every execution provider can run it. */
const OPSETS = { '': 23, 'com.microsoft': 1 } as const;
/** Of operators of our own; named only by graphs that have some. */
export const OWN_DOMAIN = 'turbocast';
const OWN_OPSETS = { [OWN_DOMAIN]: 1 } as const;
/** Tensors up to this many bytes stand in the graph itself, where shape inference can see them. */
const INLINE_BYTES = 256;
/** ONNX asks for external data at page boundaries only for memory mapping; 64 bytes keep vector loads aligned. */
const ALIGNMENT = 64;

type Assembly = {
	readonly name: string;
	readonly nodes: NodeProto[];
	readonly operations: Operation[];
	readonly constants: Set<string>;
	readonly initializers: TensorProto[];
	readonly inputs: GraphValue[];
	readonly outputs: GraphValue[];
	readonly names: Set<string>;
	readonly files: Map<string, Uint8Array | string>;
	readonly scratch: Scratch | undefined;
	readonly derived: { readonly bytes: Uint8Array; readonly offset: number }[];
	derivedBytes: number;
};

export const elements = (dims: readonly Dimension[]): number =>
	dims.reduce<number>((product, dimension) => product * (typeof dimension === 'number' ? dimension : Number.NaN), 1);

/** A path as ONNX Runtime takes it for external data: relative to the root, with slashes. */
export const rootLocation = (path: string): string => relative(parse(path).root, path).replaceAll('\\', '/');

export const shapeText = (dims: readonly Dimension[]): string => `[${dims.join(', ')}]`;

const wholeNumbers = (attributes: { readonly [name: string]: Attribute }): { readonly [name: string]: number } =>
	Object.fromEntries(Object.entries(attributes).flatMap(([name, attribute]): [string, number][] => ('int' in attribute ? [[name, attribute.int]] : [])));

export class GraphBuilder {
	readonly #assembly: Assembly;
	readonly #prefix: string;

	constructor(name: string, scratch?: Scratch, parent?: { readonly assembly: Assembly; readonly prefix: string }) {
		this.#assembly = parent?.assembly ?? {
			name, nodes: [], operations: [], constants: new Set(), initializers: [], inputs: [], outputs: [], names: new Set(), files: new Map(), scratch, derived: [], derivedBytes: 0,
		};
		this.#prefix = parent?.prefix ?? '';
	}

	/** The same graph; names given from here on stand below `scope`. */
	at(scope: string): GraphBuilder {
		return new GraphBuilder(this.#assembly.name, undefined, { assembly: this.#assembly, prefix: `${this.#prefix}${scope}/` });
	}

	/** Throws `model_invalid` naming the graph and the node. */
	fail(name: string, sentence: string): never {
		throw new TurbocastError('model_invalid', `Graph ${this.#assembly.name}, node ${this.#prefix}${name}: ${sentence}.`);
	}

	input(name: string, type: TensorType, dims: readonly Dimension[]): Value {
		this.#assembly.inputs.push({ name: this.#claim(name, ''), type, dims });
		return { name, type, dims };
	}

	/** Makes `value` an output under `name`. */
	output(name: string, value: Value): void {
		this.#declareOutput(name, value);
		this.#assembly.nodes.push({ op: 'Identity', domain: '', name: `out/${name}`, inputs: [value.name], outputs: [name], attributes: {} });
	}

	/** One node with one output. Operators call it after they have checked their inputs and worked out type and shape. */
	node(options: NodeOptions): Value {
		if (options.output !== undefined) {
			this.#declareOutput(options.output, options);
		}
		return this.nodes({ ...options, results: [options] })[0] as Value;
	}

	/** One node with several outputs. */
	nodes(options: Omit<NodeOptions, 'type' | 'dims'> & { readonly results: readonly { readonly type: ElementType; readonly dims: readonly Dimension[] }[] }): Value[] {
		for (const result of options.results) {
			if (result.dims.some((dimension) => typeof dimension === 'number' && (!Number.isInteger(dimension) || dimension < 0))) {
				this.fail(options.name, `the shape ${shapeText(result.dims)} is impossible`);
			}
		}
		const name = this.#claim(options.name);
		const outputs = options.results.map((result, index) => ({ name: options.results.length === 1 ? options.output ?? name : `${name}:${index}`, type: result.type, dims: result.dims }));
		this.#assembly.nodes.push({
			op: options.op, domain: options.domain ?? '', name, attributes: options.attributes ?? {},
			// A trailing input that is left out must not be written: ONNX Runtime 1.30's LayerNormalization fusion crashes on an empty name.
			inputs: options.inputs.slice(0, options.inputs.findLastIndex((input) => input !== undefined) + 1).map((input) => input?.name ?? ''),
			outputs: outputs.map((output) => output.name),
		});
		this.#assembly.operations.push({
			op: options.op, name, ...(options.domain === OWN_DOMAIN ? { sizes: wholeNumbers(options.attributes ?? {}) } : {}), outputs,
			inputs: options.inputs.flatMap((input) => (input === undefined ? [] : [{ type: input.type, dims: input.dims, isConstant: this.#assembly.constants.has(input.name) }])),
		});
		return outputs;
	}

	/** A tensor that stays where it is stored; `dims` may regroup its elements. */
	stored(name: string, tensor: StoredTensor, dims: readonly number[]): Value {
		if (elements(dims) * ELEMENT_BYTES[tensor.type] !== tensor.length) {
			this.fail(name, `${tensor.length} bytes do not make ${tensor.type} ${shapeText(dims)}`);
		}
		const known = this.#assembly.files.get(tensor.location);
		if (known !== undefined && known !== tensor.file) {
			this.fail(name, `two files are called ${tensor.location}`);
		}
		this.#assembly.files.set(tensor.location, tensor.file);
		return this.#initializer(name, tensor.type, dims, { location: tensor.location, offset: tensor.offset, length: tensor.length });
	}

	/** A constant made here. */
	constant(name: string, type: ElementType, dims: readonly number[], data: ArrayBufferView): Value {
		const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
		if (bytes.length !== elements(dims) * ELEMENT_BYTES[type]) {
			this.fail(name, `${bytes.length} bytes do not make ${type} ${shapeText(dims)}`);
		}
		if (bytes.length <= INLINE_BYTES) {
			return this.#initializer(name, type, dims, { raw: bytes.slice() });
		}
		const { scratch } = this.#assembly;
		if (scratch !== undefined) {
			const location = rootLocation(scratch.path);
			this.#assembly.files.set(location, scratch.path);
			return this.#initializer(name, type, dims, { location, offset: scratch.append(bytes), length: bytes.length });
		}
		const offset = this.#assembly.derivedBytes;
		this.#assembly.derived.push({ bytes, offset });
		this.#assembly.derivedBytes = Math.ceil((offset + bytes.length) / ALIGNMENT) * ALIGNMENT;
		return this.#initializer(name, type, dims, { location: this.#derivedLocation, offset, length: bytes.length });
	}

	floats(name: string, dims: readonly number[], data: readonly number[] | Float32Array): Value {
		return this.constant(name, 'float32', dims, Float32Array.from(data));
	}

	/** A scalar. */
	float(name: string, value: number): Value {
		return this.floats(name, [], [value]);
	}

	integers(name: string, data: readonly number[]): Value {
		return this.constant(name, 'int64', [data.length], BigInt64Array.from(data, (value) => BigInt(value)));
	}

	finish(): Graph {
		const { name, nodes, operations, initializers, inputs, outputs, files, derived, derivedBytes } = this.#assembly;
		const external = [...files].map(([location, file]): ExternalData => (typeof file === 'string' ? { location, path: file } : { location, data: file }));
		if (derivedBytes > 0 && external.some((entry) => 'path' in entry)) {
			this.fail('constants', 'weights on disk and constants in memory cannot be mixed; give the builder a scratch file');
		}
		if (derivedBytes > 0) {
			const data = new Uint8Array(derivedBytes);
			for (const { bytes, offset } of derived) {
				data.set(bytes, offset);
			}
			external.push({ location: this.#derivedLocation, data });
		}
		return { name, model: encodeModel({ name, nodes, initializers, inputs, outputs, opsets: nodes.some(({ domain }) => domain in OWN_OPSETS) ? { ...OPSETS, ...OWN_OPSETS } : OPSETS }), external, inputs, outputs, operations };
	}

	get #derivedLocation(): string {
		return `${this.#assembly.name}.derived`;
	}

	#initializer(name: string, type: ElementType, dims: readonly number[], data: TensorProto['data']): Value {
		const full = this.#claim(name);
		this.#assembly.constants.add(full);
		this.#assembly.initializers.push({ name: full, type, dims, data });
		return { name: full, type, dims };
	}

	#declareOutput(name: string, { type, dims }: Pick<Value, 'type' | 'dims'>): void {
		if (type === 'bfloat16') {
			this.fail(name, 'bfloat16 cannot leave a graph; cast it first');
		}
		this.#assembly.outputs.push({ name: this.#claim(name, ''), type, dims });
	}

	#claim(name: string, prefix = this.#prefix): string {
		const full = `${prefix}${name}`;
		if (this.#assembly.names.has(full)) {
			this.fail(name, 'the name is taken');
		}
		this.#assembly.names.add(full);
		return full;
	}
}
