import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TurbocastError } from '../../src/protocol/errors.js';
import { ChangeLog, MAX_WAITING_CHANGES } from '../../src/server/change-log.js';

const change = (eventId: string) => ({ eventId, receivedAtMs: 0 });
const idsOf = (changes: readonly { readonly eventId: string | undefined }[]) => changes.map((entry) => entry.eventId);
const one = (text: string) => [{ text, weight: 1 }];
const newLog = () => new ChangeLog({ prompts: one('a cat'), steps: 4, controls: {}, seed: 7 }, { controlDefaults: { steer_x: 0, zoom: 1 } });

test('inputs are latched when a chunk begins: what comes later waits for the next', () => {
	const log = newLog();
	log.add(change('a'), { prompts: one('a dog') });
	assert.equal(log.nextChunkIndex, 0);
	assert.deepEqual(log.latch(0, 0), { prompt: 'a dog', steps: 4, controls: {}, seed: 7, past: 'recache' });
	log.add(change('b'), { steps: 1 });
	assert.equal(log.nextChunkIndex, 1);
	assert.deepEqual(idsOf(log.carriedBy(0)), ['a']);
	assert.deepEqual(log.latch(1, 0), { prompt: 'a dog', steps: 1, controls: {}, seed: 7, past: 'keep' });
	assert.deepEqual(idsOf(log.carriedBy(0)), ['a']);
	assert.deepEqual(idsOf(log.carriedBy(1)), ['a', 'b']);
});

test('a change is applied once; one that no frame carried yet stays', () => {
	const log = newLog();
	log.add(change('a'), {});
	log.latch(0, 0);
	log.add(change('b'), {});
	log.latch(1, 0);
	log.applied(log.carriedBy(0));
	assert.deepEqual(idsOf(log.carriedBy(0)), []);
	assert.deepEqual(idsOf(log.carriedBy(1)), ['b']);
});

test('the changes of a chunk that came to nothing are carried by the next, before newer ones', () => {
	const log = newLog();
	log.add(change('a'), {});
	log.add(change('b'), {});
	log.latch(3, 0);
	log.add(change('c'), {});
	log.latch(4, 0);
	assert.deepEqual(idsOf(log.carriedBy(4)), ['a', 'b', 'c']);
});

test('controls keep their value until set again; one put back to its default is as if never given', () => {
	const log = newLog();
	log.add(change('a'), { controls: { steer_x: 1 } });
	log.add(change('b'), { controls: { zoom: 0 } });
	assert.deepEqual(log.latch(0, 0).controls, { steer_x: 1, zoom: 0 });
	log.add(change('c'), { controls: { steer_x: 0 } });
	assert.deepEqual(log.latch(1, 0).controls, { zoom: 0 });
	log.add(change('d'), { controls: { zoom: 1 } });
	assert.deepEqual(log.latch(2, 0).controls, {});
});

test('too many waiting changes are refused and leave the inputs as they were', () => {
	const log = newLog();
	for (let index = 0; index < MAX_WAITING_CHANGES; index++) {
		log.add(change(`c${index}`), { prompts: one(`prompt ${index}`) });
	}
	assert.throws(() => log.add(change('late'), { prompts: one('late') }), (error) => error instanceof TurbocastError && error.code === 'rate_limited' && error.retryAfterMs !== undefined);
	assert.equal(log.latch(0, 0).prompt, `prompt ${MAX_WAITING_CHANGES - 1}`);
	log.add(change('later'), { prompts: one('later') });
	assert.equal(log.latch(1, 0).prompt, 'later');
});

const latches = (log: ChangeLog, from: number, count: number): unknown[] => Array.from({ length: count }, (_, index) => {
	const { prompt, past } = log.latch(from + index, 0);
	return [prompt, past];
});

test('a change waits for the chunk that it was put off to, and a moment that has passed is the next one', () => {
	const log = newLog();
	assert.equal(log.add(change('later'), { prompts: one('a dog') }, 2), 2);
	assert.equal(log.add(change('now'), { steps: 1 }), 0);
	assert.deepEqual(latches(log, 0, 2), [['a cat', 'keep'], ['a cat', 'keep']]);
	assert.deepEqual(idsOf(log.carriedBy(1)), ['now']);
	assert.deepEqual(latches(log, 2, 1), [['a dog', 'recache']]);
	assert.deepEqual(idsOf(log.carriedBy(2)), ['now', 'later']);
	assert.equal(log.add(change('past'), { steps: 2 }, 1), 3);
});

test('a cut forgets the past; the same prompt again leaves it alone', () => {
	const log = newLog();
	log.latch(0, 0);
	log.add(change('a'), { prompts: one('a cat') });
	assert.deepEqual(latches(log, 1, 1), [['a cat', 'keep']]);
	log.add(change('b'), { prompts: one('a dog'), transition: { mode: 'cut' } });
	assert.deepEqual(latches(log, 2, 2), [['a dog', 'forget'], ['a dog', 'keep']]);
});

test('a blend has moved with its first chunk and is there with its last: 1/N, 2/N, ... 1', () => {
	const log = newLog();
	log.latch(0, 0);
	log.add(change('a'), { prompts: one('a dog'), transition: { mode: 'blend', chunks: 4 } });
	const mix = (cat: number) => [{ text: 'a cat', weight: cat }, { text: 'a dog', weight: 1 - cat }];
	assert.deepEqual(latches(log, 1, 5), [[mix(0.75), 'recache'], [mix(0.5), 'recache'], [mix(0.25), 'recache'], ['a dog', 'recache'], ['a dog', 'keep']]);
});

test('a change in the middle of a blend goes on from the mixture of that moment', () => {
	const log = newLog();
	log.add(change('a'), { prompts: one('a dog'), transition: { mode: 'blend', chunks: 2 } });
	log.latch(0, 0);
	log.add(change('b'), { prompts: one('a fox'), transition: { mode: 'blend', chunks: 2 } });
	assert.deepEqual(log.latch(1, 0).prompt, [{ text: 'a cat', weight: 0.25 }, { text: 'a dog', weight: 0.25 }, { text: 'a fox', weight: 0.5 }]);
	assert.equal(log.latch(2, 0).prompt, 'a fox');
});

test('a reset forgets the past under a new seed with the prompt in use, a blend at its end, and never goes back to the first prompt', () => {
	const log = newLog();
	log.latch(0, 0);
	log.add(change('a'), { prompts: one('a dog'), transition: { mode: 'blend', chunks: 8 } });
	log.latch(1, 0);
	log.add(change('b'), { isReset: true, seed: 99 });
	assert.deepEqual(log.latch(2, 0), { prompt: 'a dog', steps: 4, controls: {}, seed: 99, past: 'forget' });
	assert.deepEqual(log.latch(3, 0), { prompt: 'a dog', steps: 4, controls: {}, seed: 99, past: 'keep' });
});

test('a fork goes on as the first: from the chunk to come, or from one that has begun, without making its transition twice', () => {
	const log = newLog();
	log.latch(0, 0);
	log.add(change('a'), { prompts: one('a dog'), transition: { mode: 'blend', chunks: 3 } });
	const before = log.forkAt(1);
	assert.deepEqual(latches(before, 1, 2), [['a cat', 'keep'], ['a cat', 'keep']], 'what waits is the first session\'s');
	const first = log.latch(1, 0);
	const begun = log.forkAt(1);
	assert.deepEqual(begun.latch(1, 0), first);
	assert.deepEqual(begun.latch(2, 0), log.latch(2, 0));
	const other = log.forkAt(2);
	other.add(change('x'), { prompts: one('a fox'), seed: 1 });
	assert.deepEqual(other.latch(2, 0), { prompt: 'a fox', steps: 4, controls: {}, seed: 1, past: 'recache' });
	assert.equal(log.latch(3, 0).prompt, 'a dog');
});
