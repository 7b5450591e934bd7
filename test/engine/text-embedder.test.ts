import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createOnnxRuntime } from '../../src/engine/backends/onnxruntime.js';
import { encodeText } from '../../src/engine/backends/reference-text.js';
import { createEmbeddingCache, DEFAULT_MAX_BYTES } from '../../src/engine/embedding-cache.js';
import { createTextEmbedder, encodeUmt5, type LoadedTextEncoder } from '../../src/engine/text-embedder.js';
import type { TextSpec } from '../../src/model/spec.js';
import { textEncoderGraph } from '../../src/model/text-encoder.js';
import { createUnigramTokenizer, readSentencePieceModel } from '../../src/model/text/unigram-tokenizer.js';
import { relativeError } from '../../src/verify/verifier.js';
import { randomWeights } from '../model/random-weights.js';
import { textShapes } from '../model/random-model.js';
import { repositoryRoot } from '../repository.js';

const SPEC: TextSpec = { kind: 'umt5', vocab_size: 470, dim: 20, dim_attn: 24, dim_ffn: 28, num_heads: 3, num_layers: 2, num_buckets: 32, max_dist: 128, eps: 1e-6, text_len: 40 };
const weights = randomWeights(textShapes(SPEC), 5);
const model = await readSentencePieceModel(join(repositoryRoot, 'test', 'fixtures', 'sentencepiece', 'small.model'));
const tokenizer = createUnigramTokenizer('small.model', model, SPEC.vocab_size, SPEC.text_len);
const signal = new AbortController().signal;
const folder = await mkdtemp(join(tmpdir(), 'turbocast-embedder-'));
after(() => rm(folder, { recursive: true, force: true }));

/** The real encoder; what is counted is how often it is loaded and how many are in memory. */
const setUp = (cacheFolder?: string) => {
	const counts = { loaded: 0, open: 0, encoded: 0 };
	const warnings: string[] = [];
	const load = async (): Promise<LoadedTextEncoder> => {
		const session = await createOnnxRuntime({ threads: 1 }).load(textEncoderGraph(SPEC, weights));
		counts.loaded += 1;
		counts.open += 1;
		return {
			encode: (tokens) => {
				counts.encoded += 1;
				return encodeUmt5(session, tokens);
			},
			close: async () => {
				counts.open -= 1;
				await session.close();
			},
		};
	};
	const cache = cacheFolder === undefined ? undefined : createEmbeddingCache({ folder: cacheFolder, maxBytes: DEFAULT_MAX_BYTES, nowMs: () => Date.now(), log: { warn: (_fields, message) => void warnings.push(message) } });
	return { counts, warnings, embedder: createTextEmbedder({ tokenizer, textLength: SPEC.text_len, dim: SPEC.dim, encoderId: 'random', load, cache }) };
};

test('an embedding is what the reference computes, with rows of padding zero', async () => {
	const prompts = ['A cat jumps on the beach.', 'Der Hund läuft 🚀', ''];
	const { embedder, counts } = setUp();
	const embeddings = await embedder.embed(prompts, signal);
	for (const [index, { context, mask, isTruncated }] of embeddings.entries()) {
		const tokens = tokenizer.tokenize(prompts[index] ?? '');
		const error = relativeError(context, encodeText(SPEC, weights, tokens.ids, tokens.mask));
		assert.ok(error <= 1e-5, `${error}`);
		const length = tokens.mask.indexOf(0);
		assert.ok(length > 0 && context.subarray(length * SPEC.dim).every((value) => value === 0));
		assert.deepEqual([...mask], tokens.mask);
		assert.equal(isTruncated, false);
	}
	assert.deepEqual(counts, { loaded: 1, open: 0, encoded: 3 });
});

test('a cached prompt loads no encoder and gives the same bits; a new one loads it once and lets it go', async () => {
	const at = join(folder, 'cached');
	const first = setUp(at);
	const [made] = await first.embedder.embed(['a cat at night'], signal);
	const second = setUp(at);
	const [read] = await second.embedder.embed(['  a cat&nbsp;at night '], signal);
	assert.deepEqual(read, made);
	assert.deepEqual(second.counts, { loaded: 0, open: 0, encoded: 0 });
	await second.embedder.embed(['a cat at night', 'a dog at night', 'a fox at night'], signal);
	assert.deepEqual(second.counts, { loaded: 1, open: 0, encoded: 2 });
});

test('a damaged cache file is made again', async () => {
	const at = join(folder, 'damaged');
	const { embedder, counts, warnings } = setUp(at);
	const [made] = await embedder.embed(['a whale'], signal);
	const [name = ''] = await readdir(at);
	await writeFile(join(at, name), 'not an embedding');
	assert.deepEqual((await embedder.embed(['a whale'], signal))[0], made);
	assert.equal(counts.loaded, 2);
	assert.equal(warnings.length, 1);
});

test('an encoder that fails is let go, and its numbers are not kept', async () => {
	const at = join(folder, 'failing');
	let open = 0;
	const cache = createEmbeddingCache({ folder: at, maxBytes: DEFAULT_MAX_BYTES, nowMs: () => Date.now(), log: { warn: () => undefined } });
	const load = (): Promise<LoadedTextEncoder> => {
		open += 1;
		return Promise.resolve({
			encode: () => Promise.resolve(new Float32Array(SPEC.text_len * SPEC.dim).fill(Number.NaN)),
			close: () => {
				open -= 1;
				return Promise.resolve();
			},
		});
	};
	const embedder = createTextEmbedder({ tokenizer, textLength: SPEC.text_len, dim: SPEC.dim, encoderId: 'broken', load, cache });
	await assert.rejects(embedder.embed(['a whale'], signal), /no embedding/u);
	assert.equal(open, 0);
	assert.deepEqual(await readdir(at).catch(() => []), []);
});

test('an abort ends before the encoder is loaded', async () => {
	const { embedder, counts } = setUp();
	await assert.rejects(embedder.embed(['a whale'], AbortSignal.abort(new Error('stop'))), /stop/u);
	assert.equal(counts.loaded, 0);
});
