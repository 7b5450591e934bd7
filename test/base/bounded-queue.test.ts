import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedQueue } from '../../src/base/bounded-queue.js';

/** Whether a promise is still pending after everything that is due has run. */
const isPending = async (promise: Promise<unknown>): Promise<boolean> => {
	const pending = Symbol('pending');
	await new Promise((resolve) => setImmediate(resolve));
	return (await Promise.race([promise, Promise.resolve(pending)])) === pending;
};

const readAll = async <T>(queue: BoundedQueue<T>): Promise<T[]> => {
	const items: T[] = [];
	for await (const item of queue) {
		items.push(item);
	}
	return items;
};

test('gives items in order, also to a reader that came first', async () => {
	const queue = new BoundedQueue<number>(4, 'wait');
	const first = queue.next();
	await queue.push(1);
	await queue.push(2);
	assert.deepEqual(await first, { value: 1, done: false });
	assert.equal(queue.length, 1);
	assert.equal(queue.poll(), 2);
	assert.equal(queue.poll(), undefined);
});

test('a full waiting queue holds the writer until there is room', async () => {
	const queue = new BoundedQueue<number>(1, 'wait');
	await queue.push(1);
	const second = queue.push(2);
	assert.equal(await isPending(second), true);
	assert.deepEqual(await queue.next(), { value: 1, done: false });
	await second;
	assert.equal(queue.length, 1);
	assert.equal(queue.dropped, 0);
});

test('two writers that wait come one after the other and nothing is lost', async () => {
	const queue = new BoundedQueue<number>(1, 'wait');
	await queue.push(1);
	const writers = [queue.push(2), queue.push(3)];
	const got = [await queue.next(), await queue.next(), await queue.next()].map((result) => result.value);
	await Promise.all(writers);
	assert.deepEqual(got, [1, 2, 3]);
});

test('a full dropping queue loses its oldest and counts', async () => {
	const queue = new BoundedQueue<number>(2, 'drop-oldest');
	for (const item of [1, 2, 3]) {
		await queue.push(item);
	}
	queue.close();
	assert.deepEqual(await readAll(queue), [2, 3]);
	assert.equal(queue.dropped, 1);
});

test('closing lets readers have what is left, then ends them; later items are dropped', async () => {
	const queue = new BoundedQueue<number>(2, 'wait');
	await queue.push(1);
	queue.close();
	queue.close(new Error('the second close does not count'));
	await queue.push(2);
	assert.deepEqual(await readAll(queue), [1]);
	assert.equal(queue.isClosed, true);
	assert.equal(queue.dropped, 1);
});

test('closing with an error rejects readers, those that wait and those that come', async () => {
	const queue = new BoundedQueue<number>(2, 'wait');
	const waiting = queue.next();
	queue.close(new Error('gone'));
	await assert.rejects(waiting, /gone/u);
	await assert.rejects(queue.next(), /gone/u);
});

test('closing and clearing free writers that wait', async () => {
	for (const free of [(queue: BoundedQueue<number>) => queue.close(), (queue: BoundedQueue<number>) => void queue.clear()]) {
		const queue = new BoundedQueue<number>(1, 'wait');
		await queue.push(1);
		const writer = queue.push(2);
		free(queue);
		await writer;
	}
});

test('leaving a loop early closes the queue and throws away the rest', async () => {
	const queue = new BoundedQueue<number>(3, 'wait');
	await queue.push(1);
	await queue.push(2);
	for await (const item of queue) {
		assert.equal(item, 1);
		break;
	}
	assert.equal(queue.isClosed, true);
	assert.equal(queue.length, 0);
});
