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

/** An archive of stored entries; with `isZip64` every size and offset stands in the 64-bit fields. */
export const zip = (entries: Readonly<Record<string, Uint8Array>>, { isZip64 = false, method = 0 }: ZipOptions = {}): Uint8Array<ArrayBuffer> => {
	const [files, central]: [Uint8Array[], Uint8Array[]] = [[], []];
	let offset = 0;
	for (const [name, data] of Object.entries(entries)) {
		const local = new Uint8Array(30 + name.length + 5);
		const view = new DataView(local.buffer);
		view.setUint32(0, 0x04034b50, true);
		view.setUint16(26, name.length, true);
		view.setUint16(28, 5, true); // PyTorch pads here, so that data is aligned
		local.set(ascii(name), 30);
		const header = new Uint8Array(46 + name.length + (isZip64 ? 28 : 0));
		const fields = new DataView(header.buffer);
		fields.setUint32(0, 0x02014b50, true);
		fields.setUint16(10, method, true);
		fields.setUint32(20, isZip64 ? 0xffffffff : data.length, true);
		fields.setUint32(24, isZip64 ? 0xffffffff : data.length, true);
		fields.setUint16(28, name.length, true);
		fields.setUint16(30, isZip64 ? 28 : 0, true);
		fields.setUint32(42, isZip64 ? 0xffffffff : offset, true);
		header.set(ascii(name), 46);
		if (isZip64) {
			const extra = 46 + name.length;
			fields.setUint16(extra, 1, true);
			fields.setUint16(extra + 2, 24, true);
			fields.setBigUint64(extra + 4, BigInt(data.length), true);
			fields.setBigUint64(extra + 12, BigInt(data.length), true);
			fields.setBigUint64(extra + 20, BigInt(offset), true);
		}
		files.push(local, data);
		central.push(header);
		offset += local.length + data.length;
	}
	const directory = join(...central);
	const end = new Uint8Array(22);
	const endView = new DataView(end.buffer);
	endView.setUint32(0, 0x06054b50, true);
	endView.setUint16(10, isZip64 ? 0xffff : central.length, true);
	endView.setUint32(12, isZip64 ? 0xffffffff : directory.length, true);
	endView.setUint32(16, isZip64 ? 0xffffffff : offset, true);
	if (!isZip64) {
		return join(...files, directory, end);
	}
	const end64 = new Uint8Array(56);
	const end64View = new DataView(end64.buffer);
	end64View.setUint32(0, 0x06064b50, true);
	end64View.setBigUint64(32, BigInt(central.length), true);
	end64View.setBigUint64(40, BigInt(directory.length), true);
	end64View.setBigUint64(48, BigInt(offset), true);
	const locator = new Uint8Array(20);
	const locatorView = new DataView(locator.buffer);
	locatorView.setUint32(0, 0x07064b50, true);
	locatorView.setBigUint64(8, BigInt(offset + directory.length), true);
	return join(...files, directory, end64, locator, end);
};

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
