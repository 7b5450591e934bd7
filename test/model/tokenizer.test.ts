import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTokenizer } from '../../src/model/tokenizer.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const WORDS = { kind: 'words', lowercase: true, pad: 0, end: 1, unknown: 2, words: ['<pad>', '</s>', '<unk>', 'a', 'cat', 'glass', 'don\'t', 'fiancé', '7', 's'], aliases: { kitty: 'cat', lost: 'nowhere' } };
const tokenizer = createTokenizer(WORDS, 10, 6);
const tokens = (text: string): number[] => [...tokenizer.tokenize(text).ids];

test('words are looked up in lower case, split at everything but letters, digits and apostrophes', () => {
	assert.deepEqual(tokens('A,cat;7\tGLASS'), [3, 4, 7 + 1, 5, 1, 0]);
	assert.deepEqual(tokens('Don\'t'), tokens('don’t'));
	assert.deepEqual(tokens('don\'t'), [6, 1, 0, 0, 0, 0]);
});

test('a word is tried as it is, then as an alias, then without a final s', () => {
	assert.deepEqual(tokens('kitty cats glass'), [4, 4, 5, 1, 0, 0]);
});

test('composed and decomposed letters are the same word', () => {
	assert.deepEqual(tokens('fiance\u0301'), tokens('fianc\u00e9'));
	assert.deepEqual(tokens('fianc\u00e9'), [7, 1, 0, 0, 0, 0]);
});

test('unknown words are reported as written, once each, in order', () => {
	const { ids, unknownWords } = tokenizer.tokenize('Zebra cat GNU zebra Zebra lost');
	assert.deepEqual(ids, [2, 4, 2, 2, 2, 1]);
	assert.deepEqual(unknownWords, ['Zebra', 'GNU', 'lost']);
});

test('the names of the special tokens are ordinary unknown words when typed', () => {
	assert.deepEqual(tokenizer.tokenize('pad </s> <unk>').unknownWords, ['pad', 'unk']);
});

test('the mask covers the words and the end', () => {
	assert.deepEqual(tokenizer.tokenize('a cat').mask, [1, 1, 1, 0, 0, 0]);
	assert.deepEqual(tokenizer.tokenize('').ids, [1, 0, 0, 0, 0, 0]);
	assert.deepEqual(tokenizer.tokenize('…!?').ids, [1, 0, 0, 0, 0, 0]);
});

test('a text that is too long loses its end, keeps </s>, and says so', () => {
	const { ids, mask, isTruncated } = tokenizer.tokenize('a a a a a a a');
	assert.deepEqual(ids, [3, 3, 3, 3, 3, 1]);
	assert.deepEqual(mask, [1, 1, 1, 1, 1, 1]);
	assert.equal(isTruncated, true);
	assert.equal(tokenizer.tokenize('a a a a a').isTruncated, false);
});

test('words named like members of Object are not found there', () => {
	assert.deepEqual(tokenizer.tokenize('constructor toString __proto__').unknownWords, ['constructor', 'toString', 'proto']);
});

test('a tokenizer that does not fit its model is model_invalid', () => {
	const invalid = (value: unknown, vocabulary = 10): void => assert.throws(() => createTokenizer(value, vocabulary, 6),
		(error: unknown) => error instanceof TurbocastError && error.code === 'model_invalid' && error.message.startsWith('tokenizer.json'));
	invalid(null);
	invalid({ ...WORDS, kind: 'bytes' });
	invalid({ ...WORDS, words: 'a cat' });
	invalid({ ...WORDS, unknown: 10 });
	invalid(WORDS, 9);
});
