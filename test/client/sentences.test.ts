import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expiringNote, paceNote, progressOf, retryNote, statusOf, unknownWordsNote } from '../../client/demo/sentences.js';
import { TurbocastError } from '../../src/protocol/errors.js';

test('unknown words are named, a few of them, each once', () => {
	assert.equal(unknownWordsNote([]), '');
	assert.equal(unknownWordsNote(['gnu']), 'I don\'t know the word “gnu”. The rest of the prompt is used.');
	assert.equal(unknownWordsNote(['gnu', 'yak', 'gnu']), 'I don\'t know the words “gnu” and “yak”. The rest of the prompt is used.');
	assert.equal(unknownWordsNote(['a', 'b', 'c']), 'I don\'t know the words “a”, “b” and “c”. The rest of the prompt is used.');
	assert.doesNotMatch(unknownWordsNote(['a', 'b', 'c', 'd', 'e', 'f']), /“f”/u);
});

test('each state has a sentence, and a failure has its own', () => {
	const error = new TurbocastError('transport_failed', 'The connection was lost; connect again.');
	assert.equal(statusOf({ kind: 'failed', error }, false), error.message);
	assert.match(statusOf({ kind: 'restarting', message: 'x' }, true), /Restarting the engine/u);
	assert.match(statusOf({ kind: 'queued', position: 1, queueSize: 3, estimatedWaitMs: 20_400 }, true), /you are next, about 20 seconds/u);
	assert.match(statusOf({ kind: 'queued', position: 3, queueSize: 3, estimatedWaitMs: 120_000 }, true), /number 3 in line, about 2 minutes/u);
	assert.equal(progressOf({ kind: 'generating', chunkIndex: -1 }), '');
	assert.equal(progressOf({ kind: 'generating', chunkIndex: 0 }), 'chunk 1');
	assert.equal(retryNote(error, 400), 'The connection was lost. Trying again in a second.');
	assert.equal(retryNote(error, 2600), 'The connection was lost. Trying again in 3 seconds.');
});

test('a session that is going to end says when and why, and takes it back', () => {
	assert.equal(expiringNote('idle', 60), 'This session ends in 60 seconds: nobody is watching.');
	assert.equal(expiringNote('max_duration', 10.2), 'This session ends in 10 seconds: its time is over.');
	assert.equal(expiringNote('max_duration', 0.4), 'This session ends in 1 second: its time is over.');
	assert.equal(expiringNote('draining', 1800), 'This session ends in 30 minutes: the server is shutting down.');
	assert.equal(expiringNote('idle', null), '');
});

test('generation that falls behind is said, with what helps where something does', () => {
	assert.equal(paceNote({ reason: 'behind', fps: 11.4 }, 16, true), 'Generation falls behind: the picture runs at 11 of 16 frames a second. Fewer steps are faster.');
	assert.equal(paceNote({ reason: 'behind', fps: 8 }, 16, false), 'Generation falls behind: the picture runs at 8 of 16 frames a second.');
	assert.equal(paceNote({ reason: 'recovered', fps: 15.2 }, 16, true), '');
	assert.equal(paceNote({ reason: 'requested', fps: 16 }, 16, true), '');
});
