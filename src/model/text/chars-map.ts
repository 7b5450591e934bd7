/**
 * SentencePiece's normalisation of characters: a trie from UTF-8 spellings to what stands for them, longest match first. The trie is a
 * double array as Darts-clone lays it out: 32-bit units with a label, an offset to the children and, at a leaf, a value.
 */
import { TurbocastError } from '../../protocol/errors.js';

const LENGTH_BYTES = 4;

const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);
/** A leaf's mark is part of the label, so that no byte equals it. */
const labelOf = (unit: number): number => (unit & 0x800000ff) >>> 0;
const hasValue = (unit: number): boolean => (unit & 0x100) !== 0;
const valueOf = (unit: number): number => unit & 0x7fffffff;

const lengthOfCharacter = (first: number): number => (first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);

/** What one step of reading gives: the bytes that stand for the next `length` bytes of the text. */
export type Replacement = { readonly bytes: Uint8Array; readonly length: number };

/** `text` is well-formed UTF-8 and `at` the start of a character. */
export type CharsMap = (text: Uint8Array, at: number) => Replacement;

/** Reads a `precompiled_charsmap`: the length of the trie, the trie, then the replacements, each ended by a zero. Throws `model_invalid`. */
export const parseCharsMap = (label: string, blob: Uint8Array): CharsMap => {
	const unchanged = (text: Uint8Array, at: number): Replacement => {
		const length = lengthOfCharacter(text[at] ?? 0);
		return { bytes: text.subarray(at, at + length), length };
	};
	if (blob.length === 0) {
		return unchanged;
	}
	const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
	const trieBytes = blob.length < LENGTH_BYTES ? -1 : view.getUint32(0, true);
	if (trieBytes <= 0 || trieBytes % 4 !== 0 || LENGTH_BYTES + trieBytes > blob.length) {
		throw new TurbocastError('model_invalid', `${label}: its map of characters is damaged.`);
	}
	const trie = Uint32Array.from({ length: trieBytes / 4 }, (_, index) => view.getUint32(LENGTH_BYTES + 4 * index, true));
	const replacements = blob.subarray(LENGTH_BYTES + trieBytes);
	return (text, at) => {
		let [node, length, value] = [offsetOf(trie[0] ?? 0), 0, 0];
		for (let index = at; index < text.length; index++) {
			const byte = text[index] ?? 0;
			node ^= byte;
			const unit = trie[node];
			if (unit === undefined || labelOf(unit) !== byte) {
				break;
			}
			node ^= offsetOf(unit);
			if (hasValue(unit)) {
				[length, value] = [index + 1 - at, valueOf(trie[node] ?? 0)];
			}
		}
		if (length === 0) {
			return unchanged(text, at);
		}
		const end = replacements.indexOf(0, value);
		return { bytes: replacements.subarray(value, end === -1 ? replacements.length : end), length };
	};
};
