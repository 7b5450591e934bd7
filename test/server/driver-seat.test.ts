import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriverSeat } from '../../src/server/driver-seat.js';

const seatOf = (...members: string[]) => {
	const heard: string[] = [];
	const seat = new DriverSeat('owner', { onGranted: (id) => heard.push(`+${id}`), onRevoked: (id, reason) => heard.push(`-${id} ${reason}`) });
	members.forEach((member) => seat.join(member));
	return { seat, heard };
};

test('the owner drives at first; others ask, wait in turn, and get it when it is let go', () => {
	const { seat, heard } = seatOf('owner', 'a', 'b');
	seat.request('a');
	seat.request('b');
	seat.request('a');
	assert.deepEqual([seat.driver, seat.wants('a'), seat.wants('b')], ['owner', true, true]);
	seat.release('owner');
	assert.deepEqual([seat.driver, seat.wants('a'), seat.wants('b')], ['a', false, true]);
	seat.release('a');
	seat.release('b');
	assert.equal(seat.driver, 'owner', 'back to the owner when nobody asks');
	seat.release('owner');
	assert.equal(seat.driver, 'owner', 'who lets go with nobody else there keeps it');
	assert.deepEqual(heard, ['+owner', '-owner released', '+a', '-a released', '+b', '-b released', '+owner', '-owner released', '+owner']);
});

test('the owner takes it back by asking, and hands it over by granting', () => {
	const { seat, heard } = seatOf('owner', 'a', 'b');
	assert.equal(seat.grant('a'), true);
	seat.request('b');
	seat.request('owner');
	assert.deepEqual([seat.driver, seat.wants('b')], ['owner', true]);
	assert.equal(seat.grant('b'), true);
	assert.deepEqual([seat.driver, seat.wants('b')], ['b', false]);
	assert.equal(seat.grant('b'), true);
	assert.equal(seat.grant('stranger'), false);
	assert.deepEqual(heard, ['+owner', '-owner granted', '+a', '-a granted', '+owner', '-owner granted', '+b']);
});

test('who leaves gives up both the seat and the place in the line', () => {
	const { seat } = seatOf('owner', 'a', 'b');
	seat.request('a');
	seat.request('b');
	seat.leave('a');
	seat.leave('owner');
	assert.equal(seat.driver, 'b');
	seat.leave('b');
	assert.equal(seat.driver, undefined);
	seat.request('a');
	assert.equal(seat.driver, undefined, 'who has left cannot ask');
	seat.join('c');
	assert.equal(seat.driver, undefined, 'a guest does not drive unasked');
	seat.request('c');
	assert.equal(seat.driver, 'c');
	seat.join('owner');
	assert.equal(seat.driver, 'c', 'an owner who comes back does not push anybody out');
	seat.request('owner');
	assert.equal(seat.driver, 'owner');
});
