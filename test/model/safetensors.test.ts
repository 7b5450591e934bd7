import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeSafetensors, MAX_HEADER_BYTES, parseSafetensors, readFloats, tensorEntry } from '../../src/model/safetensors.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const withHeader = (header: string | Uint8Array, data = new Uint8Array(16), claimed?: bigint): Uint8Array => {
	const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
	const bytes = new Uint8Array(8 + text.length + data.length);
	new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
	bytes.set(text, 8);
	bytes.set(data, 8 + text.length);
	return bytes;
};

const isCorrupt = (pattern: RegExp) => (error: unknown): boolean =>
	error instanceof TurbocastError && error.code === 'weights_corrupt' && error.message.startsWith('file.safetensors') && pattern.test(error.message);

test('what is written is read back, by name, in every order and from any offset', () => {
	const file = parseSafetensors('f', encodeSafetensors({
		odd: { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) },
		floats: { dtype: 'F32', shape: [2, 2], data: Float32Array.of(1, -2, 0.5, 1e30) },
		empty: { dtype: 'F32', shape: [0, 4], data: new Float32Array(0) },
	}));
	assert.deepEqual([...readFloats(file, tensorEntry(file, 'floats', [2, 2]))], [1, -2, 0.5, Math.fround(1e30)]);
	assert.equal(readFloats(file, tensorEntry(file, 'empty', [0, 4])).length, 0);
	assert.equal(file.tensors.size, 3);
});

test('a Buffer, whose slice shares memory, is read like any other bytes', () => {
	const bytes = Buffer.from(encodeSafetensors({ x: { dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) } }));
	const file = parseSafetensors('f', bytes);
	assert.deepEqual([...readFloats(file, tensorEntry(file, 'x', [2]))], [1, 2]);
});

test('BF16 is read as the upper half of a float32', () => {
	const file = parseSafetensors('f', encodeSafetensors({ x: { dtype: 'BF16', shape: [3], data: Uint16Array.of(0x3f80, 0xc000, 0x7f80) } }));
	assert.deepEqual([...readFloats(file, tensorEntry(file, 'x', [3]))], [1, -2, Infinity]);
});

const entry = (dtype: string, shape: unknown, offsets: unknown): string => JSON.stringify({ x: { dtype, shape, data_offsets: offsets } });

const CORRUPT: { readonly [what: string]: readonly [Uint8Array, RegExp] } = {
	'an empty file': [new Uint8Array(0), /0 bytes/u],
	'a file shorter than a length': [new Uint8Array(7), /7 bytes/u],
	'a header longer than the limit': [withHeader('{}', new Uint8Array(0), BigInt(MAX_HEADER_BYTES) + 1n), /claims/u],
	'a header of 2^63 bytes': [withHeader('{}', new Uint8Array(0), 2n ** 63n), /claims/u],
	'a file that ends inside its header': [withHeader('{}', new Uint8Array(0), 100n), /inside its header/u],
	'a header that is not JSON': [withHeader('{x'), /not JSON/u],
	'a header that is not UTF-8': [withHeader(Uint8Array.of(0x22, 0xff, 0x22)), /not JSON/u],
	'a header that is a list': [withHeader('[]'), /not an object/u],
	'a header that is null': [withHeader('null'), /not an object/u],
	'an entry that is not an object': [withHeader('{"x":3}'), /unknown type/u],
	'an unknown element type': [withHeader(entry('F31', [4], [0, 16])), /unknown type/u],
	'a negative dimension': [withHeader(entry('F32', [-4], [0, 16])), /wrong form/u],
	'a fractional offset': [withHeader(entry('F32', [4], [0, 15.5])), /wrong form/u],
	'three offsets': [withHeader(entry('F32', [4], [0, 8, 16])), /wrong form/u],
	'a tensor beyond the end': [withHeader(entry('F32', [8], [0, 32])), /outside the file/u],
	'offsets that do not match the shape': [withHeader(entry('F32', [3], [0, 16])), /size of its shape/u],
	'offsets the wrong way round': [withHeader(entry('F32', [4], [16, 0])), /size of its shape/u],
	'a shape whose size overflows': [withHeader(entry('F32', [2 ** 52, 2 ** 52], [0, 16])), /size of its shape/u],
};

for (const [what, [bytes, pattern]] of Object.entries(CORRUPT)) {
	test(`${what} is refused as weights_corrupt with a reason`, () => {
		assert.throws(() => parseSafetensors('file.safetensors', bytes), isCorrupt(pattern));
	});
}

test('a missing tensor, another shape and a type that is no weight are model_invalid and name the tensor', () => {
	const file = parseSafetensors('f', encodeSafetensors({ 'a.weight': { dtype: 'I64', shape: [1], data: BigInt64Array.of(1n) } }));
	const invalid = (pattern: RegExp) => (error: unknown): boolean => error instanceof TurbocastError && error.code === 'model_invalid' && pattern.test(error.message);
	assert.throws(() => tensorEntry(file, 'b.weight', [1]), invalid(/b\.weight/u));
	assert.throws(() => tensorEntry(file, 'a.weight', [1, 1]), invalid(/a\.weight is \[1\], but the configuration beside it asks for \[1, 1\]/u));
	assert.throws(() => readFloats(file, tensorEntry(file, 'a.weight', [1])), invalid(/I64/u));
});
