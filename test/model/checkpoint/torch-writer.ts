/** Writes what `torch.save` writes, byte by byte, and what it never would: no Python is needed to test the reader. */
import { writeFile } from 'node:fs/promises';

export const OP = {
	proto: Uint8Array.of(0x80, 2), mark: Uint8Array.of(0x28), stop: Uint8Array.of(0x2e), reduce: Uint8Array.of(0x52), build: Uint8Array.of(0x62), none: Uint8Array.of(0x4e),
	emptyDict: Uint8Array.of(0x7d), emptyTuple: Uint8Array.of(0x29), emptyList: Uint8Array.of(0x5d), setItems: Uint8Array.of(0x75), tuple: Uint8Array.of(0x74), appends: Uint8Array.of(0x65), persistent: Uint8Array.of(0x51),
} as const;

export const join = (...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> => {
	const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
	let offset = 0;
	for (const part of parts) {
		bytes.set(part, offset);
		offset += part.length;
	}
	return bytes;
};

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

const integer32 = (value: number): Uint8Array => {
	const bytes = new Uint8Array(4);
	new DataView(bytes.buffer).setInt32(0, value, true);
	return bytes;
};

export const text = (value: string): Uint8Array => join(Uint8Array.of(0x58), integer32(ascii(value).length), ascii(value));
export const integer = (value: number): Uint8Array => join(Uint8Array.of(0x4a), integer32(value));
export const tuple = (...items: readonly Uint8Array[]): Uint8Array => join(OP.mark, ...items, OP.tuple);
export const globalName = (module: string, name: string): Uint8Array => ascii(`c${module}\n${name}\n`);
export const call = (module: string, name: string, ...args: readonly Uint8Array[]): Uint8Array => join(globalName(module, name), tuple(...args), OP.reduce);
export const dict = (entries: Readonly<Record<string, Uint8Array>>, start: Uint8Array = OP.emptyDict): Uint8Array =>
	join(start, OP.mark, ...Object.entries(entries).flatMap(([name, value]) => [text(name), value]), OP.setItems);
export const orderedDict = call('collections', 'OrderedDict');
export const pickle = (value: Uint8Array): Uint8Array<ArrayBuffer> => join(OP.proto, value, OP.stop);

export type TensorPlan = { readonly storage: string; readonly key: string; readonly elements: number; readonly shape: readonly number[]; readonly strides?: readonly number[]; readonly offset?: number };

export const denseStrides = (shape: readonly number[]): number[] => shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));

/** As `torch._utils._rebuild_tensor_v2` is called. */
export const tensor = ({ storage, key, elements, shape, strides = denseStrides(shape), offset = 0 }: TensorPlan): Uint8Array =>
	call('torch._utils', '_rebuild_tensor_v2',
		join(tuple(text('storage'), globalName('torch', storage), text(key), text('cpu'), integer(elements)), OP.persistent),
		integer(offset), tuple(...shape.map(integer)), tuple(...strides.map(integer)), Uint8Array.of(0x89), orderedDict);

type ZipOptions = { readonly isZip64?: boolean; readonly method?: number };

/** What an entry holds, or how long the hole is that stands for it. */
export type ZipContent = { readonly name: string } & ({ readonly data: Uint8Array } | { readonly bytes: number });

export type ZipPart = { readonly offset: number; readonly bytes: Uint8Array };

/** In a 32-bit field: see the 64-bit one. */
const WIDE = 0xffffffff;
/** PyTorch pads here, so that data is aligned. */
const PADDING = 5;

const numbers = (bytes: number, ...fields: readonly (readonly [offset: number, size: 16 | 32 | 64, value: number])[]): Uint8Array => {
	const array = new Uint8Array(bytes);
	const view = new DataView(array.buffer);
	for (const [offset, size, value] of fields) {
		if (size === 64) {
			view.setBigUint64(offset, BigInt(value), true);
		} else if (size === 32) {
			view.setUint32(offset, value, true);
		} else {
			view.setUint16(offset, value, true);
		}
	}
	return array;
};

/** An archive of stored entries in pieces, holes left out; with `isZip64` every size and offset stands in the 64-bit fields. */
export const zipParts = (entries: readonly ZipContent[], { isZip64 = true, method = 0 }: ZipOptions = {}): ZipPart[] => {
	const parts: ZipPart[] = [];
	const central: Uint8Array[] = [];
	let offset = 0;
	for (const entry of entries) {
		const name = ascii(entry.name);
		const size = 'data' in entry ? entry.data.length : entry.bytes;
		const narrow = (value: number): number => (isZip64 ? WIDE : value);
		const extra = isZip64 ? numbers(28, [0, 16, 1], [2, 16, 24], [4, 64, size], [12, 64, size], [20, 64, offset]) : new Uint8Array(0);
		const local = join(numbers(30, [0, 32, 0x04034b50], [26, 16, name.length], [28, 16, PADDING]), name, new Uint8Array(PADDING));
		central.push(join(numbers(46, [0, 32, 0x02014b50], [10, 16, method], [20, 32, narrow(size)], [24, 32, narrow(size)], [28, 16, name.length], [30, 16, extra.length], [42, 32, narrow(offset)]), name, extra));
		parts.push({ offset, bytes: local });
		if ('data' in entry) {
			parts.push({ offset: offset + local.length, bytes: entry.data });
		}
		offset += local.length + size;
	}
	const directory = join(...central);
	const end = isZip64 ? join(
		numbers(56, [0, 32, 0x06064b50], [32, 64, central.length], [40, 64, directory.length], [48, 64, offset]),
		numbers(20, [0, 32, 0x07064b50], [8, 64, offset + directory.length]),
		numbers(22, [0, 32, 0x06054b50], [10, 16, 0xffff], [12, 32, WIDE], [16, 32, WIDE]),
	) : numbers(22, [0, 32, 0x06054b50], [10, 16, central.length], [12, 32, directory.length], [16, 32, offset]);
	return [...parts, { offset, bytes: directory }, { offset: offset + directory.length, bytes: end }];
};

export const zip = (entries: Readonly<Record<string, Uint8Array>>, options: ZipOptions = {}): Uint8Array<ArrayBuffer> =>
	join(...zipParts(Object.entries(entries).map(([name, data]) => ({ name, data })), { isZip64: false, ...options }).map(({ bytes }) => bytes));

export const bytesOf = (data: ArrayBufferView): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** A file of `torch.save`: a pickle and the storages that it names. */
export const torchFile = (root: Uint8Array, storages: Readonly<Record<string, ArrayBufferView>> = {}, options: ZipOptions = {}): Uint8Array<ArrayBuffer> => zip({
	'archive/data.pkl': pickle(root), 'archive/byteorder': ascii('little'),
	...Object.fromEntries(Object.entries(storages).map(([key, data]) => [`archive/data/${key}`, bytesOf(data)])), 'archive/version': ascii('3\n'),
}, options);

const STORAGE_OF: { readonly [dtype: string]: string } = { F32: 'FloatStorage', BF16: 'BFloat16Storage', F16: 'HalfStorage', I8: 'CharStorage' };

export type StateDict = { readonly [name: string]: { readonly dtype: string; readonly shape: readonly number[]; readonly data: ArrayBufferView } };

/** Every tensor with a storage of its own; `wrap` puts the dict into others. */
export const writeStateDict = async (path: string, tensors: StateDict, wrap: (inner: Uint8Array) => Uint8Array = (inner) => inner): Promise<void> => {
	const names = Object.keys(tensors);
	const root = dict(Object.fromEntries(Object.entries(tensors).map(([name, { dtype, shape }], index) =>
		[name, tensor({ storage: STORAGE_OF[dtype] ?? '', key: String(index), elements: shape.reduce((product, size) => product * size, 1), shape })])), orderedDict);
	await writeFile(path, torchFile(wrap(root), Object.fromEntries(names.map((name, index) => [String(index), tensors[name]?.data ?? new Uint8Array(0)]))));
};
