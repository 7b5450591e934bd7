/**
 * PyTorch's files (`torch.save`, since 1.6): a zip archive of `NAME/data.pkl`, a pickle of dicts whose tensors name their storage by a
 * persistent id, and one entry `NAME/data/KEY` of raw numbers for each storage.
 */
import { TurbocastError } from '../../protocol/errors.js';
import { type Dtype, DTYPE_BYTES } from '../safetensors.js';
import { type ByteSource, damaged } from './byte-source.js';
import { type PickleObject, type PickleValue, readPickle } from './pickle.js';
import { readStrided, spanOf } from './strided.js';
import { countOf, type StoredTensorInfo, type TensorStore } from './tensor-store.js';
import { readZipDirectory, type ZipEntry, zipDataOffset } from './zip-archive.js';

const STORAGES: { readonly [name: string]: Dtype } = {
	'torch.DoubleStorage': 'F64', 'torch.FloatStorage': 'F32', 'torch.HalfStorage': 'F16', 'torch.BFloat16Storage': 'BF16', 'torch.LongStorage': 'I64',
	'torch.IntStorage': 'I32', 'torch.ShortStorage': 'I16', 'torch.CharStorage': 'I8', 'torch.ByteStorage': 'U8', 'torch.BoolStorage': 'BOOL',
};
const ORDERED_DICT = 'collections.OrderedDict';
const TENSOR = 'torch._utils._rebuild_tensor_v2';
const PARAMETER = 'torch._utils._rebuild_parameter';

/** 14B's takes 0.2 MB. */
const MAX_PICKLE_BYTES = 64 * 1024 * 1024;
/** Dicts within dicts in which tensors are looked for: a Self-Forcing file has one. */
const MAX_DEPTH = 8;

type Storage = { readonly kind: 'storage'; readonly dtype: Dtype; readonly entry: ZipEntry };
type View = { readonly kind: 'tensor'; readonly storage: Storage; readonly offset: number; readonly shape: readonly number[]; readonly strides: readonly number[] };

const isObject = (value: PickleValue | undefined): value is PickleObject => typeof value === 'object' && value !== null && 'object' in value;
const storageOf = (value: PickleValue | undefined): Storage | undefined => (isObject(value) && (value.object as Storage).kind === 'storage' ? (value.object as Storage) : undefined);
const viewOf = (value: PickleValue | undefined): View | undefined => (isObject(value) && (value.object as View).kind === 'tensor' ? (value.object as View) : undefined);

const integersOf = (value: PickleValue | undefined): readonly number[] | undefined => {
	const items = typeof value === 'object' && value !== null && 'tuple' in value ? value.tuple : undefined;
	return items?.every((item): item is number => Number.isSafeInteger(item) && (item as number) >= 0) === true ? items : undefined;
};

const legacyMark = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/** Whether a file begins like PyTorch's formats before 1.6: a pickle of a magic number. */
export const isLegacyTorch = (start: Uint8Array): boolean => legacyMark.every((byte, index) => start[index] === byte) || (start[0] === 0x80 && (start[1] ?? 0) <= 5);

export const refuseLegacy = (label: string): never => {
	throw new TurbocastError('invalid_option', `${label} is in PyTorch's format from before 1.6. Where you trust the file, convert it once: python -c "import torch; torch.save(torch.load('${label}', map_location='cpu', weights_only=True), 'converted.pth')".`);
};

const makeTensor = (label: string, args: readonly PickleValue[]): PickleValue => {
	const storage = storageOf(args[0]);
	const offset = args[1];
	const [shape, strides] = [integersOf(args[2]), integersOf(args[3])];
	if (storage === undefined || typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0 || shape === undefined || strides?.length !== shape.length || Number.isNaN(countOf(shape))) {
		return damaged(label, 'a tensor is not described as PyTorch does it');
	}
	const bytes = DTYPE_BYTES[storage.dtype];
	if ((offset + spanOf(shape, strides)) * bytes > storage.entry.size) {
		return damaged(label, `a tensor [${shape.join(', ')}] reaches beyond its storage ${storage.entry.name}`);
	}
	return { object: { kind: 'tensor', storage, offset, shape, strides } satisfies View };
};

const makeDict = (label: string, args: readonly PickleValue[]): PickleValue => {
	const pairs = args[0] ?? [];
	if (args.length > 1 || !Array.isArray(pairs)) {
		return damaged(label, 'an OrderedDict is not made of pairs');
	}
	return new Map(pairs.map((pair): [PickleValue, PickleValue] => {
		const [key, value] = typeof pair === 'object' && pair !== null && 'tuple' in pair ? pair.tuple : Array.isArray(pair) ? pair : [];
		return key === undefined || value === undefined ? damaged(label, 'an OrderedDict is not made of pairs') : [key, value];
	}));
};

const readRoot = async (source: ByteSource, entries: ReadonlyMap<string, ZipEntry>): Promise<PickleValue> => {
	const { label } = source;
	const pickle = [...entries.values()].find(({ name }) => /^[^/]+\/data\.pkl$/u.test(name))
		?? damaged(label, 'it is a zip archive without data.pkl, so not one that torch.save wrote');
	if (pickle.size > MAX_PICKLE_BYTES) {
		return damaged(label, `its data.pkl has ${pickle.size} bytes, more than the ${MAX_PICKLE_BYTES} allowed`);
	}
	const folder = pickle.name.slice(0, -'data.pkl'.length);
	const order = entries.get(`${folder}byteorder`);
	if (order !== undefined && new TextDecoder().decode(await source.read(await zipDataOffset(source, order), Math.min(order.size, 16))).trim() !== 'little') {
		return damaged(label, 'its numbers are not little-endian');
	}
	const bytes = await source.read(await zipDataOffset(source, pickle), pickle.size);
	return readPickle(bytes, {
		label,
		allows: (name) => name === ORDERED_DICT || name === TENSOR || name === PARAMETER || Object.hasOwn(STORAGES, name),
		call: (name, args) => {
			switch (name) {
				case ORDERED_DICT:
					return makeDict(label, args);
				case TENSOR:
					return makeTensor(label, args);
				case PARAMETER:
					return viewOf(args[0]) === undefined ? damaged(label, 'a parameter is not a tensor') : (args[0] as PickleValue);
				default:
					throw new TurbocastError('weights_corrupt', `${label} is refused: it calls ${name}, which is no way to describe a tensor. Nothing of it was executed.`);
			}
		},
		persistent: (id) => {
			const [kind, type, key] = typeof id === 'object' && id !== null && 'tuple' in id ? id.tuple : [];
			const name = typeof type === 'object' && type !== null && 'global' in type ? type.global : '';
			const dtype = Object.hasOwn(STORAGES, name) ? STORAGES[name] : undefined;
			const entry = typeof key === 'string' ? entries.get(`${folder}data/${key}`) : undefined;
			if (kind !== 'storage' || dtype === undefined || typeof key !== 'string') {
				return damaged(label, 'a storage is not described as PyTorch does it');
			}
			return { object: { kind: 'storage', dtype, entry: entry ?? damaged(label, `the numbers of storage ${key} are missing`) } satisfies Storage };
		},
	});
};

/** Dicts that hold the weights beside other things, in the order of preference; a file without them is the dict itself. */
const ROOTS = ['generator_ema', 'generator', 'state_dict', 'model_state_dict', 'model'];

const findWeights = (root: PickleValue): { root: string | undefined; dict: PickleValue } => {
	const path: string[] = [];
	let dict = root;
	for (let depth = 0; depth < MAX_DEPTH && dict instanceof Map; depth++) {
		const outer: ReadonlyMap<PickleValue, PickleValue> = dict;
		const name = ROOTS.find((candidate) => outer.get(candidate) instanceof Map);
		if (name === undefined) {
			break;
		}
		path.push(name);
		dict = outer.get(name) ?? null;
	}
	return { root: path.length === 0 ? undefined : path.join('.'), dict };
};

/** Opens a zip archive of PyTorch; tensors are read when they are asked for. Throws `weights_corrupt`. Takes over `source`. */
export const openTorchFile = async (source: ByteSource): Promise<TensorStore> => {
	const entries = await readZipDirectory(source);
	const { root, dict } = findWeights(await readRoot(source, entries));
	if (!(dict instanceof Map)) {
		return damaged(source.label, 'it holds no dict of tensors');
	}
	const tensors = new Map<string, StoredTensorInfo>();
	for (const [name, value] of dict) {
		const view = viewOf(value);
		if (typeof name !== 'string' || view === undefined) {
			continue; // Step counters and the like stand beside the tensors.
		}
		const { storage: { dtype, entry }, offset, shape, strides } = view;
		const elementBytes = DTYPE_BYTES[dtype];
		const start = async (): Promise<number> => (await zipDataOffset(source, entry)) + offset * elementBytes;
		tensors.set(name, { dtype, shape, read: () => readStrided(source, { name, shape, strides, elementBytes, start }) });
	}
	return { label: source.label, tensors, root, close: source.close };
};
