/** Text to token ids (docs/model-format.md, section on the tokenizer): whole words, looked up. */
import { TurbocastError } from '../protocol/errors.js';
import { boolean, integer, list, literal, object, record, string, withDefault, type Infer } from '../protocol/schema.js';

export type TokenizedText = {
	/** [text_len], `</s>` after the last word, then `<pad>`. */
	readonly ids: readonly number[];
	/** [text_len]; 1 for a token (`</s>` included), 0 for padding. */
	readonly mask: readonly number[];
	/** Words without an id, as written, each once, in order. */
	readonly unknownWords: readonly string[];
	/** Whether words at the end were left out. */
	readonly isTruncated: boolean;
};

export type Tokenizer = { readonly tokenize: (text: string) => TokenizedText };

const MAX_WORDS = 1_000_000;
const MAX_WORD_LENGTH = 256;
const id = integer({ min: 0, max: MAX_WORDS });

const TOKENIZER_FILE = object({
	kind: literal('words'),
	lowercase: withDefault(boolean(), true),
	pad: id, end: id, unknown: id,
	/** A word's id is its index. */
	words: list(string({ max: MAX_WORD_LENGTH }), { min: 3, max: MAX_WORDS }),
	/** Other spellings, to the word they stand for. */
	aliases: withDefault(record(string({ max: MAX_WORD_LENGTH }), { max: MAX_WORDS }), {}),
});
export type TokenizerFile = Infer<typeof TOKENIZER_FILE>;

/** Letters with the marks that belong to them, digits and apostrophes; everything else separates. */
const WORD = /[\p{L}\p{M}\p{N}'’]+/gu;

const parseFile = (value: unknown): TokenizerFile => {
	try {
		return TOKENIZER_FILE.parse(value);
	} catch (error) {
		throw new TurbocastError('model_invalid', `tokenizer.json: ${TurbocastError.from(error).message}`, { cause: error });
	}
};

/** Makes the tokenizer of a parsed tokenizer.json for texts of `textLength` tokens. Throws `model_invalid`. */
export const createTokenizer = (value: unknown, vocabularySize: number, textLength: number): Tokenizer => {
	const file = parseFile(value);
	if (file.words.length > vocabularySize || [file.pad, file.end, file.unknown].some((special) => special >= file.words.length)) {
		throw new TurbocastError('model_invalid', `tokenizer.json: ${file.words.length} words and their special ids do not fit text.vocab_size ${vocabularySize}.`);
	}
	const specials = new Set([file.pad, file.end, file.unknown]);
	const ids = new Map(file.words.flatMap((word, index): [string, number][] => (specials.has(index) ? [] : [[word, index]])));
	const aliases = new Map(Object.entries(file.aliases));

	const lookUp = (word: string): number | undefined => {
		const alias = aliases.get(word);
		return ids.get(word)
			?? (alias === undefined ? undefined : ids.get(alias))
			?? (word.endsWith('s') ? ids.get(word.slice(0, -1)) : undefined);
	};

	return {
		tokenize: (text) => {
			const pieces = text.normalize('NFKC').match(WORD) ?? [];
			const unknownWords = new Map<string, string>();
			const found = pieces.map((piece) => {
				const word = (file.lowercase ? piece.toLowerCase() : piece).replaceAll('’', '\'');
				const known = lookUp(word);
				if (known === undefined && !unknownWords.has(word)) {
					unknownWords.set(word, piece);
				}
				return known ?? file.unknown;
			});
			const tokens = [...found.slice(0, textLength - 1), file.end];
			return {
				ids: Array.from({ length: textLength }, (_, index) => tokens[index] ?? file.pad),
				mask: Array.from({ length: textLength }, (_, index) => (index < tokens.length ? 1 : 0)),
				unknownWords: [...unknownWords.values()],
				isTruncated: found.length > textLength - 1,
			};
		},
	};
};
