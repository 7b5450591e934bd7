/** The tokenizer of a model folder, whatever form it has: a list of words, a SentencePiece model or Hugging Face's tokenizer.json. */
import { basename } from 'node:path';
import { createTokenizer, type Tokenizer } from '../tokenizer.js';
import { parseSentencePieceModel, parseUnigramJson } from './sentencepiece-model.js';
import { createUnigramTokenizer, parseJson, readTokenizerFile } from './unigram-tokenizer.js';

/** `name` is the file's; a list of words says so in its `kind`. Throws `model_invalid`. */
export const parseTokenizer = (name: string, bytes: Uint8Array, vocabularySize: number, textLength: number): Tokenizer => {
	const label = basename(name);
	if (!label.endsWith('.json')) {
		return createUnigramTokenizer(label, parseSentencePieceModel(label, bytes), vocabularySize, textLength);
	}
	const value = parseJson(label, bytes);
	return typeof value === 'object' && value !== null && 'kind' in value
		? createTokenizer(value, vocabularySize, textLength)
		: createUnigramTokenizer(label, parseUnigramJson(label, value), vocabularySize, textLength);
};

/** Throws `model_invalid`. */
export const openTokenizer = async (path: string, vocabularySize: number, textLength: number): Promise<Tokenizer> =>
	parseTokenizer(path, await readTokenizerFile(path), vocabularySize, textLength);
