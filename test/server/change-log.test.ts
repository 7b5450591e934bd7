import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TurbocastError } from '../../src/protocol/errors.js';
import { ChangeLog, MAX_WAITING_CHANGES } from '../../src/server/change-log.js';

const change = (eventId: string) => ({ eventId, receivedAtMs: 0 });
const idsOf = (changes: readonly { readonly eventId: string | undefined }[]) => changes.map((entry) => entry.eventId);
const newLog = () => new ChangeLog({ prompt: 'a cat', steps: 4, controls: {} }, { steer_x: 0, zoom: 1 });

test('inputs are latched when a chunk begins: what comes later waits for the next', () => {
	const log = newLog();
	log.add(change('a'), { prompt: 'a dog' });
	assert.equal(log.nextChunkIndex, 0);
	assert.deepEqual(log.latch(0, 0), { prompt: 'a dog', steps: 4, controls: {} });
	log.add(change('b'), { steps: 1 });
	assert.equal(log.nextChunkIndex, 1);
	assert.deepEqual(idsOf(log.carriedBy(0)), ['a']);
	assert.deepEqual(log.latch(1, 0), { prompt: 'a dog', steps: 1, controls: {} });
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
		log.add(change(`c${index}`), { prompt: `prompt ${index}` });
	}
	assert.throws(() => log.add(change('late'), { prompt: 'late' }), (error) => error instanceof TurbocastError && error.code === 'rate_limited' && error.retryAfterMs !== undefined);
	assert.equal(log.latch(0, 0).prompt, `prompt ${MAX_WAITING_CHANGES - 1}`);
	log.add(change('later'), { prompt: 'later' });
	assert.equal(log.latch(1, 0).prompt, 'later');
});
