import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseArguments, parseNumber, parseSize, usageOf } from '../../src/cli/arguments.js';
import { controlsAt, promptAt } from '../../src/cli/clip.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const table = {
	seconds: { values: ['S'], says: 'length' },
	at: { values: ['T', 'PROMPT'], repeatable: true, says: 'a change' },
	quiet: { values: [], says: 'no bar' },
} as const;

const refused = (mention: RegExp) => (error: unknown): boolean => {
	assert.ok(error instanceof TurbocastError);
	assert.equal(error.code, 'invalid_option');
	assert.match(error.message, mention);
	return true;
};

test('words, flags of no, one and two values, and --flag=value are told apart', () => {
	const parsed = parseArguments(['a cat', '--seconds=5', '--at', '2.5', 'a dog', '--at', '3', 'a fox', '--quiet'], table);
	assert.deepEqual(parsed.words, ['a cat']);
	assert.equal(parsed.one('seconds'), '5');
	assert.deepEqual(parsed.all('at'), [['2.5', 'a dog'], ['3', 'a fox']]);
	assert.equal(parsed.has('quiet'), true);
	assert.equal(parsed.has('nothing'), false);
});

test('after -- everything is a word', () => {
	assert.deepEqual(parseArguments(['--', '--seconds'], table).words, ['--seconds']);
});

test('an unknown flag, a missing value, a repeated flag and a value too many are refused', () => {
	assert.throws(() => parseArguments(['--secnds', '5'], table), refused(/--secnds is not a known option; known: --seconds/u));
	assert.throws(() => parseArguments(['--at', '2.5'], table), refused(/needs T and PROMPT/u));
	assert.throws(() => parseArguments(['--seconds', '1', '--seconds', '2'], table), refused(/only once/u));
	assert.throws(() => parseArguments(['--quiet=1'], table), refused(/takes no value/u));
	assert.throws(() => parseArguments(['--constructor'], table), refused(/not a known option/u));
});

test('numbers and sizes out of range are refused with the range', () => {
	assert.equal(parseNumber('seed', '7', { min: 0, max: 10, integer: true }), 7);
	for (const wrong of ['', 'x', '11', '-1', '1.5', 'NaN', 'Infinity']) {
		assert.throws(() => parseNumber('seed', wrong, { min: 0, max: 10, integer: true }), refused(/whole number from 0 to 10/u));
	}
	assert.deepEqual(parseSize('size', '128x96'), { width: 128, height: 96 });
	assert.throws(() => parseSize('size', '128*96'), refused(/WIDTHxHEIGHT/u));
});

test('usage shows every flag', () => {
	assert.match(usageOf(table), /--at T PROMPT\s+a change/u);
});

test('a change applies at the first chunk that starts at or after its time; of two the later wins', () => {
	const options = { prompt: 'a', changes: [{ atMs: 1200, prompt: 'c' }, { atMs: 500, prompt: 'b' }] };
	assert.deepEqual([0, 499, 500, 1000, 1200, 9000].map((startMs) => promptAt(options, startMs)), ['a', 'a', 'b', 'b', 'c', 'c']);
	assert.equal(promptAt({ prompt: 'a', changes: [{ atMs: 0, prompt: 'b' }, { atMs: 0, prompt: 'c' }] }, 0), 'c');
});

test('a control has its latest value, whatever the order of the actions; of two at one time the later wins', () => {
	const actions = [{ atMs: 900, name: 'zoom', value: -1 }, { atMs: 500, name: 'zoom', value: 1 }, { atMs: 500, name: 'pan_x', value: 0.5 }, { atMs: 500, name: 'pan_x', value: 1 }];
	assert.deepEqual(controlsAt(actions, 499), {});
	assert.deepEqual(controlsAt(actions, 500), { zoom: 1, pan_x: 1 });
	assert.deepEqual(controlsAt(actions, 2000), { zoom: -1, pan_x: 1 });
});
