/** The tokenizer of umT5: the prompt is cleaned as Wan does it, encoded, cut to the model's length and ended. */
import { readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { TurbocastError } from '../../protocol/errors.js';
import type { Tokenizer } from '../tokenizer.js';
import { cleanPrompt } from './prompt-cleaning.js';
import { parseSentencePieceModel, parseUnigramJson, type SentencePieceModel } from './sentencepiece-model.js';
import { createUnigram } from './unigram.js';

/** umT5's tokenizer.json has 16 MB, its spiece.model 4.5 MB. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;

/** Throws `model_invalid`. */
export const parseJson = (label: string, bytes: Uint8Array): unknown => {
	try {
		return JSON.parse(new TextDecoder().decode(bytes));
	} catch (error) {
		throw new TurbocastError('model_invalid', `${label} is not JSON text; fetch the file again.`, { cause: error });
	}
};

/** Bytes of a tokenizer file. Throws `model_invalid`. */
export const readTokenizerFile = async (path: string): Promise<Uint8Array> => {
	const size = await stat(path).then((found) => found.size, () => -1);
	if (size < 0 || size > MAX_FILE_BYTES) {
		throw new TurbocastError('model_invalid', size < 0 ? `${path} is missing; it holds the tokenizer.` : `${path} has ${size} bytes, more than the ${MAX_FILE_BYTES} allowed.`);
	}
	return readFile(path);
};

/** Reads `spiece.model` or a `.json`. Throws `model_invalid`. */
export const readSentencePieceModel = async (path: string): Promise<SentencePieceModel> => {
	const [bytes, label] = [await readTokenizerFile(path), basename(path)];
	return label.endsWith('.json') ? parseUnigramJson(label, parseJson(label, bytes)) : parseSentencePieceModel(label, bytes);
};

/** A tokenizer for texts of `textLength` tokens, `</s>` included. Throws `model_invalid` when the pieces do not fit the vocabulary. */
export const createUnigramTokenizer = (label: string, model: SentencePieceModel, vocabularySize: number, textLength: number): Tokenizer => {
	if (model.pieces.length > vocabularySize) {
		throw new TurbocastError('model_invalid', `${label} has ${model.pieces.length} pieces, but the text encoder knows ${vocabularySize}; they belong to different models.`);
	}
	const { encode } = createUnigram(label, model);
	return {
		tokenize: (text) => {
			const found = encode(cleanPrompt(text));
			const tokens = [...found.slice(0, textLength - 1), model.end];
			return {
				ids: Array.from({ length: textLength }, (_, index) => tokens[index] ?? model.pad),
				mask: Array.from({ length: textLength }, (_, index) => (index < tokens.length ? 1 : 0)),
				// Every character can be said in pieces or bytes, so no word is unknown as it is to a list of whole words.
				unknownWords: [],
				isTruncated: found.length > textLength - 1,
			};
		},
	};
};
