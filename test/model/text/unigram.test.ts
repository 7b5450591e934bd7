import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openTokenizer } from '../../../src/model/text/open-tokenizer.js';
import { cleanPrompt } from '../../../src/model/text/prompt-cleaning.js';
import { parseSentencePieceModel, parseUnigramJson, type SentencePieceModel } from '../../../src/model/text/sentencepiece-model.js';
import { createUnigram } from '../../../src/model/text/unigram.js';
import { createUnigramTokenizer, readSentencePieceModel } from '../../../src/model/text/unigram-tokenizer.js';
import { TurbocastError } from '../../../src/protocol/errors.js';
import { repositoryRoot } from '../../repository.js';

/** Made by the original libraries; make.py beside the files says how. */
const fixtures = join(repositoryRoot, 'test', 'fixtures', 'sentencepiece');
const json = (name: string): unknown => JSON.parse(readFileSync(join(fixtures, name), 'utf8'));
const bytesOf = (name: string): Uint8Array => readFileSync(join(fixtures, name));
const golden = json('ids.json') as { readonly [name: string]: readonly { readonly text: string; readonly ids: readonly number[] }[] };

/** The same model in the form of Hugging Face's tokenizer.json. */
const asTokenizerJson = ({ pieces, charsMap, hasByteFallback, unknown }: SentencePieceModel): unknown => ({
	added_tokens: pieces.flatMap(({ text, kind }, id) => (kind === 'control' || kind === 'user' || kind === 'unknown' ? [{ id, content: text }] : [])),
	normalizer: { type: 'Sequence', normalizers: [{ type: 'Precompiled', precompiled_charsmap: Buffer.from(charsMap).toString('base64') }] },
	pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
	model: { type: 'Unigram', unk_id: unknown, byte_fallback: hasByteFallback, vocab: pieces.map(({ text, score }) => [text, score]) },
});

const isInvalid = (error: unknown): boolean => error instanceof TurbocastError && error.code === 'model_invalid';

for (const name of ['small', 'plain']) {
	test(`${name}.model gives the ids that SentencePiece gives`, () => {
		const { encode } = createUnigram(name, parseSentencePieceModel(name, bytesOf(`${name}.model`)));
		const cases = golden[name] ?? [];
		assert.ok(cases.length > 30);
		for (const { text, ids } of cases) {
			assert.deepEqual(encode(text), ids, JSON.stringify(text));
		}
	});
}

test('tokenizer.json and spiece.model of the same pieces give the same ids', () => {
	const model = parseSentencePieceModel('small', bytesOf('small.model'));
	const { encode } = createUnigram('json', parseUnigramJson('tokenizer.json', asTokenizerJson(model)));
	for (const { text, ids } of golden['small'] ?? []) {
		assert.deepEqual(encode(text), ids, JSON.stringify(text));
	}
});

test('prompts are cleaned as ftfy and Python\'s html module clean them', () => {
	const cases = json('cleaning.json') as readonly { readonly text: string; readonly cleaned: string }[];
	assert.ok(cases.length > 50);
	const wrong = cases.filter(({ text, cleaned }) => cleanPrompt(text) !== cleaned).map(({ text, cleaned }) => ({ text, ours: cleanPrompt(text), cleaned }));
	assert.deepEqual(wrong, []);
});

test('the tokenizer ends each text, fills it up, and cuts what is too long', async () => {
	const model = await readSentencePieceModel(join(fixtures, 'small.model'));
	const { tokenize } = createUnigramTokenizer('small', model, model.pieces.length, 12);
	const short = tokenize('  a&nbsp;cat ');
	const [end, pad] = [model.pieces.findIndex(({ text }) => text === '</s>'), model.pieces.findIndex(({ text }) => text === '<pad>')];
	const length = short.ids.indexOf(end) + 1;
	assert.ok(length > 1 && length < 12);
	assert.deepEqual(short.ids.slice(length), new Array(12 - length).fill(pad));
	assert.deepEqual(short.mask, Array.from({ length: 12 }, (_, index) => (index < length ? 1 : 0)));
	assert.deepEqual(short.ids, tokenize('a cat').ids);
	assert.equal(short.isTruncated, false);
	const long = tokenize('zebra '.repeat(40));
	assert.equal(long.ids.length, 12);
	assert.equal(long.ids.at(-1), end);
	assert.equal(long.isTruncated, true);
});

test('a tokenizer is opened by what its file holds', async () => {
	const folder = await mkdtemp(join(tmpdir(), 'turbocast-tokenizer-'));
	try {
		const model = parseSentencePieceModel('small', bytesOf('small.model'));
		await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(asTokenizerJson(model)));
		await writeFile(join(folder, 'words.json'), JSON.stringify({ kind: 'words', pad: 0, end: 1, unknown: 2, words: ['<pad>', '</s>', '<unk>', 'cat'] }));
		await writeFile(join(folder, 'broken.json'), '{');
		const pieces = await openTokenizer(join(fixtures, 'small.model'), 500, 16);
		const { ids } = (await openTokenizer(join(folder, 'tokenizer.json'), 500, 16)).tokenize('A cat in the snow');
		assert.deepEqual(ids, pieces.tokenize('A cat in the snow').ids);
		assert.deepEqual((await openTokenizer(join(folder, 'words.json'), 4, 4)).tokenize('A cat').ids, [2, 3, 1, 0]);
		await assert.rejects(openTokenizer(join(folder, 'broken.json'), 500, 16), isInvalid);
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
});

test('a file that is no unigram model is model_invalid', async () => {
	const small = bytesOf('small.model');
	assert.throws(() => parseSentencePieceModel('cut', small.subarray(0, 1000)), isInvalid);
	assert.throws(() => parseSentencePieceModel('empty', new Uint8Array(0)), isInvalid);
	assert.throws(() => parseSentencePieceModel('text', new TextEncoder().encode('{"model": {}}')), isInvalid);
	assert.throws(() => parseUnigramJson('words', { model: { type: 'WordLevel', vocab: [] } }), isInvalid);
	assert.throws(() => parseUnigramJson('pieces', { model: { type: 'Unigram', vocab: [['a', 'b']] } }), isInvalid);
	await assert.rejects(readSentencePieceModel(join(fixtures, 'nothing.model')), isInvalid);
	const model = parseSentencePieceModel('small', small);
	assert.throws(() => createUnigram('damaged', { ...model, charsMap: model.charsMap.subarray(0, 100) }), isInvalid);
	assert.throws(() => createUnigramTokenizer('small', model, model.pieces.length - 1, 12), isInvalid);
});
