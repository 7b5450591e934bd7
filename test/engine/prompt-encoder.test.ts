import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PromptTensors } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';

const BYTES = 16;

/** Counts what reaches the network; each result has `BYTES` bytes. */
const counting = (): { readonly spec: { readonly dit: { readonly num_heads: number } }; readonly calls: string[]; readonly encodePrompt: (text: string) => Promise<PromptTensors> } => {
	const calls: string[] = [];
	return {
		spec: { dit: { num_heads: 1 } },
		calls,
		encodePrompt: (text) => {
			calls.push(text);
			if (text === 'bad') {
				return Promise.reject(new Error('bad'));
			}
			return Promise.resolve({ context: new Float32Array(3), mask: new Float32Array(1), crossK: [], crossV: [], unknownWords: [], isTruncated: false });
		},
	};
};

test('a prompt that stays is encoded once', async () => {
	const network = counting();
	const encoder = new PromptEncoder(network);
	const first = await encoder.encode('a cat');
	assert.equal(await encoder.encode('a cat'), first);
	await encoder.encode('a dog');
	assert.deepEqual(network.calls, ['a cat', 'a dog']);
});

test('the least recently used prompt leaves first, by bytes held', async () => {
	const network = counting();
	const encoder = new PromptEncoder(network, 2 * BYTES);
	for (const text of ['a', 'b', 'a', 'c', 'a', 'b']) {
		await encoder.encode(text);
	}
	assert.deepEqual(network.calls, ['a', 'b', 'c', 'b']);
});

test('the latest prompt is kept even when it alone is larger than the bound', async () => {
	const network = counting();
	const encoder = new PromptEncoder(network, 1);
	await encoder.encode('a');
	await encoder.encode('a');
	await encoder.encode('b');
	await encoder.encode('a');
	assert.deepEqual(network.calls, ['a', 'b', 'a']);
});

test('a failure is not remembered', async () => {
	const network = counting();
	const encoder = new PromptEncoder(network);
	await assert.rejects(encoder.encode('bad'), /bad/u);
	await assert.rejects(encoder.encode('bad'), /bad/u);
	assert.equal(network.calls.length, 2);
});

test('the empty prompt and prompts that differ in nothing but case are prompts of their own', async () => {
	const network = counting();
	const encoder = new PromptEncoder(network);
	for (const text of ['', 'A cat', 'a cat', '']) {
		await encoder.encode(text);
	}
	assert.deepEqual(network.calls, ['', 'A cat', 'a cat']);
});
