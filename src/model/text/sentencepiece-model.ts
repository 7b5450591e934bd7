/**
 * A SentencePiece unigram model as a list of scored pieces, read from either form in which it is published: `spiece.model` (the protocol
 * buffer `ModelProto` of sentencepiece_model.proto) or Hugging Face's `tokenizer.json`.
 */
import { TurbocastError } from '../../protocol/errors.js';

/** Numbers of `ModelProto.SentencePiece.Type`. */
const PIECE_KINDS = { 1: 'normal', 2: 'unknown', 3: 'control', 4: 'user', 5: 'unused', 6: 'byte' } as const;
export type PieceKind = (typeof PIECE_KINDS)[keyof typeof PIECE_KINDS];

/** A piece's id is its index. */
export type Piece = { readonly text: string; readonly score: number; readonly kind: PieceKind };

export type SentencePieceModel = {
	readonly pieces: readonly Piece[];
	readonly unknown: number;
	readonly end: number;
	readonly pad: number;
	/** Whether a character without a piece is spelled in its UTF-8 bytes. */
	readonly hasByteFallback: boolean;
	/** `precompiled_charsmap`: what is written otherwise before it is looked up; empty for nothing. */
	readonly charsMap: Uint8Array;
	/** Whether a space is put in front of the text. */
	readonly hasDummyPrefix: boolean;
	/** Whether spaces at both ends go and several in a row become one. */
	readonly collapsesSpaces: boolean;
};

/** umT5's has 256,300. */
const MAX_PIECES = 1_000_000;
const MAX_PIECE_LENGTH = 1024;
const [PAD, END] = ['<pad>', '</s>'];

const refuse = (label: string, sentence: string): never => {
	throw new TurbocastError('model_invalid', `${label}: ${sentence}.`);
};

type Field = { readonly number: number; readonly integer: number; readonly bytes: Uint8Array };

/** Fields of a message in the order in which they stand (protocol buffers' wire format): varints, fixed and length-delimited ones. */
const fieldsOf = function* (label: string, message: Uint8Array): Generator<Field> {
	const cut = (): never => refuse(label, 'it ends inside a field; it is no SentencePiece model or was cut short');
	let at = 0;
	const varint = (): number => {
		let [value, factor] = [0, 1];
		for (let length = 0; length < 10; length++) {
			const byte = message[at] ?? cut();
			at += 1;
			value += (byte & 0x7f) * factor;
			if (byte < 0x80) {
				return value;
			}
			factor *= 128;
		}
		return cut();
	};
	while (at < message.length) {
		const key = varint();
		const [number, wire] = [Math.floor(key / 8), key % 8];
		const integer = wire === 0 ? varint() : 0;
		const length = wire === 0 ? 0 : wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? varint() : cut();
		if (number === 0 || at + length > message.length) {
			cut();
		}
		yield { number, integer, bytes: message.subarray(at, at + length) };
		at += length;
	}
};

const float32Of = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat32(0, true);

const parsePiece = (label: string, message: Uint8Array): Piece => {
	let piece: Piece = { text: '', score: 0, kind: 'normal' };
	for (const { number, integer, bytes } of fieldsOf(label, message)) {
		switch (number) {
			case 1:
				piece = { ...piece, text: new TextDecoder().decode(bytes) };
				break;
			case 2:
				piece = { ...piece, score: bytes.length === 4 ? float32Of(bytes) : refuse(label, 'a score is no float') };
				break;
			case 3:
				piece = { ...piece, kind: PIECE_KINDS[integer as keyof typeof PIECE_KINDS] ?? refuse(label, `a piece is of the unknown type ${integer}`) };
				break;
			default:
		}
	}
	return piece;
};

const UNIGRAM = 1;

const checked = (label: string, model: Omit<SentencePieceModel, 'unknown' | 'end' | 'pad'>): SentencePieceModel => {
	const { pieces } = model;
	if (pieces.length === 0 || pieces.length > MAX_PIECES || pieces.some(({ text, score }) => text.length > MAX_PIECE_LENGTH || !Number.isFinite(score))) {
		refuse(label, `it must hold 1 to ${MAX_PIECES} pieces of at most ${MAX_PIECE_LENGTH} characters with finite scores`);
	}
	const find = (what: string, test: (piece: Piece) => boolean): number => {
		const index = pieces.findIndex(test);
		return index === -1 ? refuse(label, `it has no piece ${what}`) : index;
	};
	return { ...model, unknown: find('for what is unknown', ({ kind }) => kind === 'unknown'), end: find(END, ({ text }) => text === END), pad: find(PAD, ({ text }) => text === PAD) };
};

/** Reads `spiece.model`. Throws `model_invalid`. */
export const parseSentencePieceModel = (label: string, file: Uint8Array): SentencePieceModel => {
	const pieces: Piece[] = [];
	let [isUnigram, hasByteFallback, hasDummyPrefix, collapsesSpaces] = [true, false, true, true];
	let charsMap: Uint8Array = new Uint8Array(0);
	for (const { number, bytes } of fieldsOf(label, file)) {
		if (number === 1) { // pieces
			pieces.push(parsePiece(label, bytes));
		} else if (number === 2) { // trainer_spec
			for (const field of fieldsOf(label, bytes)) {
				isUnigram = field.number === 3 ? field.integer === UNIGRAM : isUnigram;
				hasByteFallback = field.number === 35 ? field.integer !== 0 : hasByteFallback;
			}
		} else if (number === 3) { // normalizer_spec
			for (const field of fieldsOf(label, bytes)) {
				charsMap = field.number === 2 ? field.bytes : charsMap;
				hasDummyPrefix = field.number === 3 ? field.integer !== 0 : hasDummyPrefix;
				collapsesSpaces = field.number === 4 ? field.integer !== 0 : collapsesSpaces;
			}
		}
	}
	if (!isUnigram) {
		refuse(label, 'it is not a unigram model');
	}
	return checked(label, { pieces, hasByteFallback, charsMap, hasDummyPrefix, collapsesSpaces });
};

type Json = { readonly [key: string]: unknown };
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** The first object of a `type` in a tree of normalisers or pre-tokenizers. */
const findType = (tree: unknown, type: string): Json | undefined => {
	if (Array.isArray(tree)) {
		return tree.map((each) => findType(each, type)).find((found) => found !== undefined);
	}
	if (!isObject(tree)) {
		return undefined;
	}
	return tree['type'] === type ? tree : findType(tree['normalizers'] ?? tree['pretokenizers'], type);
};

const BYTE_PIECE = /^<0x[0-9A-F]{2}>$/u;

/** Reads `tokenizer.json`, whose model must be a unigram one. Throws `model_invalid`. */
export const parseUnigramJson = (label: string, value: unknown): SentencePieceModel => {
	const model = isObject(value) && isObject(value['model']) ? value['model'] : {};
	const vocabulary = model['vocab'];
	if (model['type'] !== 'Unigram' || !Array.isArray(vocabulary)) {
		return refuse(label, 'it does not describe a unigram model; give umT5\'s tokenizer.json or spiece.model');
	}
	const root = value as Json;
	const added = new Map((Array.isArray(root['added_tokens']) ? root['added_tokens'] as unknown[] : []).flatMap((token): [number, string][] =>
		(isObject(token) && typeof token['id'] === 'number' && typeof token['content'] === 'string' ? [[token['id'], token['content']]] : [])));
	const hasByteFallback = model['byte_fallback'] === true;
	const kindOf = (text: string, id: number): PieceKind => {
		if (id === model['unk_id']) {
			return 'unknown';
		}
		if (hasByteFallback && BYTE_PIECE.test(text)) {
			return 'byte';
		}
		return added.get(id) !== text ? 'normal' : text.startsWith('<extra_id_') ? 'user' : 'control';
	};
	const pieces = vocabulary.map((entry: unknown, id): Piece => {
		const [text, score] = Array.isArray(entry) ? entry as unknown[] : [];
		return typeof text === 'string' && typeof score === 'number' ? { text, score, kind: kindOf(text, id) } : refuse(label, `entry ${id} of its vocabulary is no piece with a score`);
	});
	const map = findType(root['normalizer'], 'Precompiled')?.['precompiled_charsmap'];
	const charsMap = typeof map === 'string' ? new Uint8Array(Buffer.from(map, 'base64')) : new Uint8Array(0);
	return checked(label, { pieces, hasByteFallback, charsMap, hasDummyPrefix: findType(root['pre_tokenizer'], 'Metaspace') !== undefined, collapsesSpaces: true });
};
